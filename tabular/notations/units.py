"""Texts around the numbers of a column: signs of currencies, units, or a text on either side.

A unit is one text, before or after the numbers. A text on either side is written with a `#` for the number,
as in `$#/kg` and `tensor(#)`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above

from tabular.numerals import CURRENCIES, CURRENCY_CODES

PLACE = "#"
"""Place of the number in a unit that has a text on either side of it."""

_CODES = "|".join(map(re.escape, CURRENCY_CODES))
_SIGNS = re.escape(CURRENCIES)
_MONEY = rf"[{_SIGNS}]|{_CODES}|[A-Z]{{1,2}}\$"
# By which programs show a number; others, as in Level(3), are names of things.
_CALL = (
    r"(?:[a-z_]{1,10}\.){0,2}"
    r"(?:tensor|[Aa]rray|Decimal|mpf|Number(?:Int|Long|Decimal)|(?:u?int|b?float)\d{0,3})\("
)
_WORD = r"(?:°|[^\W\d_])[^\d\s.,;:()+-]{0,9}"
_MORE = rf"(?:(?:\. ?| ){_WORD}){{0,2}}(?:[23²³]|\.)?"  # square metres, sq.ft., m a. s. l.
_OF = r"/ ?(?:5|20|50|10{1,3})"
_PER = r"/ ?\d{1,4} ?[^\W\d_]{1,6}"  # litres on 100 km
_UNITS = re.compile(
    rf"^\(?[+-]? ?([{_SIGNS}±]|{_CODES}|[A-Z]{{1,2}}\$|[A-Z]{{3}}(?= \d))"
    rf"|\d[.,]?\)?\s?([{_SIGNS}%‰°\"″]|{_WORD}{_PER}|{_WORD}{_MORE}|{_OF})$"
)
_EXPONENT = r"e[+-]?\d+|d[+-]\d+| ?[x×*·] ?10(?:\^[+-]?\d{1,3}|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3})"  # noqa: RUF001 - of print
# Digits in one run, with marks between them that numbers may have.
_ONE_NUMBER = re.compile(
    rf"[^\d]{{0,40}}\d[\d.,'\u2019\s]*({_EXPONENT})?"
    rf"(?:[^\d]{{0,40}}|[^\d]{{1,20}}[23]|{_OF}|[^\d]{{1,12}}{_PER})|[^\d]{{0,9}}inf[a-z]*",
    re.IGNORECASE,
)
_NUMBER = r"[+-]?\d[\d.,'\u2019 ]*(?:e[+-]?\d+)?"
# Money by a unit, in millions, or with the dash of whole rupees; and a number that a program shows as it is.
_BETWEEN = re.compile(
    rf"[+-]?(?P<money>(?:{_MONEY}) ?)(?P<amount>{_NUMBER})(?<![ '])(?P<by> ?/ ?-|(?: ?/ ?| (?:[^\W\d_]{{1,4}} )?)[^\W\d_]{{1,12}}|[KMBTkmbt]n?)"
    rf"|(?P<open>{_CALL}['\"]?|\[(?=[+-]?\d+(?:\.|e-))|/Date\()(?P<shown>{_NUMBER})(?<![ '])"
    r"(?P<close>['\"]?(?:, ?\w{1,12}=[^,()]{1,16}|[+-]\d{4})?[)\]]/?)"
)
_OPENED = re.compile(r"[^\W\d][\w.]{0,20}\(|\[|/Date\(")
_PADDED = re.compile(r"[+-]?0\d")  # as codes are
_GROUPED = re.compile(r"(?<![\d.,])(\d+)(?:([.,])(\d+))?(?![\d.,])")
_FEWEST_BARE, _FEWEST_GROUPED = 2, 5
_MOST_OTHERS = 0.05


def may_have_number(text: str) -> bool:
    """Return whether a text may have a number between other texts, as is told at little cost."""
    return _UNITS.search(text) is not None or _OPENED.match(text) is not None


def has_one_number(text: str) -> bool:
    """Return whether a text has a single number, or one in a call such as `tensor(0.5)`."""
    return _ONE_NUMBER.fullmatch(text) is not None or _OPENED.match(text) is not None


def units_of(texts: Sequence[str]) -> list[str]:
    """Return the signs before or after numbers in some texts, such as of currencies."""
    found = (_UNITS.search(text.replace("\u00a0", " ")) for text in texts)
    return list(dict.fromkeys(match[1] or match[2] for match in found if match))


def sides_of(texts: Sequence[str]) -> list[str]:
    """Return the texts before and behind the numbers of nearly all texts, with a mark between; nothing if they differ."""
    matches = (_BETWEEN.fullmatch(text.replace("\u00a0", " ")) for text in texts)
    found = [match for match in matches if match]
    if any(_PADDED.match(match["amount"] or match["shown"]) for match in found):
        return []
    sides = Counter(
        (match["money"] or match["open"], match["by"] or match["close"]) for match in found
    )
    for (before, after), count in sides.most_common(1):
        if count >= (1 - _MOST_OTHERS) * len(texts) and PLACE not in before + after:
            return [f"{before.strip()}{PLACE}{after.strip()}"]
    return []


def without_unit(text: pa.Array, unit: str) -> pa.Array:
    """Return numbers without the unit of their column, where they have it.

    Args:
        text: Strings without white space around them.
        unit: Unit, or the texts on either side of the place of the number.
    """
    before, _, after = unit.partition(PLACE)
    if before and after:
        pattern = rf"^([+-]?) ?{re.escape(before)} ?(.*?) ?{re.escape(after)}$"
        return pc.replace_substring_regex(text, pattern, r"\1\2")
    unit = re.escape(unit)
    return pc.replace_substring_regex(text, rf"^([+-]?) ?{unit} ?|( ?){unit}$", r"\1")


def grouping_mark(texts: Iterable[str]) -> str:
    """Return the mark that separates thousands, empty if it may stand before decimals.

    It is before three digits in all numbers that have it, several of them, and others below a thousand lack
    it: numbers of up to three decimals would have one or two of them more often than none.
    """
    found = [match for match in map(_GROUPED.search, texts) if match]
    marks = {match[2] for match in found if match[2]}
    bare = {match[1] for match in found if not match[2] and match[1].strip("0")}
    grouped = [match for match in found if match[2]]
    if len(marks) != 1 or len(bare) < _FEWEST_BARE or len(grouped) < _FEWEST_GROUPED:
        return ""
    fits = all(len(match[3]) == 3 and match[1][0] != "0" for match in grouped)
    return marks.pop() if fits and all(len(text) <= 3 for text in bare) else ""


def has_unit(text: str, unit: str) -> bool:
    """Return whether a text has the unit of its column."""
    before, _, after = unit.partition(PLACE)
    return (before in text and after in text) if before and after else unit in text


def named(unit: str) -> str:
    """Return how a unit is told."""
    before, _, after = unit.partition(PLACE)
    return (
        f"the texts {before!r} and {after!r} around them"
        if before and after
        else f"the unit {unit}"
    )
