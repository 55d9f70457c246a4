"""Numbers written as text, in a style that all cells of a column share.

A style, which is part of the type of a column, is a mark before the decimals, a mark between groups of three
digits, and an affix: a text such as `$` before the digits, `kg` behind them, or both, which is written with a `#`
for the number, as in `$#/kg`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.columns import Column

MAX_DECIMALS = 15
"""The most decimals that a value is rounded to: float64 has no more."""

PLACE = "#"
"""Place of the number in an affix that has a text on either side of it."""

_CURRENCIES = (
    r"[$€£¥₹₽₩₺₪฿₫₴₦￥]|[A-Z]{1,2}\$|USD|EUR|GBP|CHF|JPY|CNY|INR|SEK|NOK|DKK|PLN|Rs\.?|kr\.?"
)
_BEHIND = r"[^\d\s.,;:()+\-'\"#](?:[^\d.,;:()+\-'\"#]{0,15}[^\d\s.,;:()+\-'\"#])?[23²³]?"
_AMOUNT = r"(?:\d[\d.,' ]*|[.,]\d+)(?:[eE][+-]?\d+)?"
_AFFIXED = re.compile(
    rf"\(?[+-]? ?(?P<before>{_CURRENCIES})? ?[+-]?(?P<amount>{_AMOUNT})(?P<behind> ?{_BEHIND})?\)?"
)
_PLAIN = r"^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|(?i:inf(?:inity)?))$"
_CODE = re.compile(r"'?[+-]?0\d+")
_ASCII = str.maketrans("\u00a0\u202f\u2009\u2212\u2013\u2019", "   --'")
_PRINTED = "[\u00a0\u202f\u2009\u2212\u2013\u2019']"  # what print has for a space, a minus and an apostrophe


_DECIMAL = b"decimal"
_MARKS = {",": "commas", ".": "points", " ": "spaces", "'": "apostrophes"}
_PLAIN_COLUMN = Column(name="")


def told_style(column: Column) -> str:
    """Return the words for the style of a column behind "numbers"; none for plain ones."""
    decimals = f"decimal {'commas' if column.decimal == ',' else 'points'}"
    parts = [
        decimals if column.decimal == "," or column.thousands else "",
        f"{_MARKS[column.thousands]} between thousands" if column.thousands else "",
        f"the affix {column.unit}" if column.unit else "",
    ]
    named = [part for part in parts if part]
    return f" with {' and '.join(named)}" if named else ""


def parse_numbers(text: pa.Array, column: Column = _PLAIN_COLUMN) -> NDArray[np.float64]:
    """Return the value of each text, not-a-number where it is null or no number of the style of a column.

    A number in parentheses is negative, as accountants write it.

    Args:
        text: Strings without white space around them.
        column: Column whose style the numbers have; by default the one that programs write.
    """
    if column.has_plain_numbers:
        try:
            return _floats(text)
        except pa.ArrowInvalid:
            pass
    text = _without_print(text)
    if column.unit:
        text = _without_affix(text, column.unit)
    if pc.any(pc.ends_with(text, ")")).as_py():
        text = pc.replace_substring_regex(text, r"^\(([\d.,' ]+)\)$", r"-\1")
    if column.decimal != "." or column.thousands:
        styled = pc.match_substring_regex(text, _styled(column))
        text = pc.if_else(styled, text, pa.scalar(None, pa.string()))
        if column.thousands:
            text = pc.replace_substring(text, column.thousands, "")
        text = pc.replace_substring(text, column.decimal, ".")
    plain = pc.match_substring_regex(text, _PLAIN)
    return _floats(pc.if_else(plain, text, pa.scalar(None, pa.string())))


def likely_styles(texts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the styles that may be those of a column: mark before decimals, mark between thousands, affix."""
    plain = [text.translate(_ASCII) for text in texts]
    matches = [match for text in plain if (match := _AFFIXED.fullmatch(text))]
    affixes = Counter(_affix(match) for match in matches)
    for affix, _ in affixes.most_common(2):
        amounts = "".join(match["amount"] for match in matches if _affix(match) == affix)
        for decimal, thousands in _SEPARATORS:
            # Points between thousands alone, as in 1.234.567, tell that commas are before decimals.
            told = "" if decimal == "." or thousands == "." else decimal
            if thousands in amounts and told in amounts:
                yield decimal, thousands, affix


_SEPARATORS = (
    *((".", ""), (",", ""), (".", ","), (",", ".")),
    *((".", "'"), (",", "'"), (".", " "), (",", " ")),
)


def is_code(text: str) -> bool:
    """Return whether a text is digits that begin with a zero, as codes do."""
    return _CODE.fullmatch(text) is not None


def is_sure(texts: Iterable[str], column: Column) -> bool:
    """Return whether the marks of a column can have no other meaning in some of its numbers.

    `1,5` has a decimal comma, `1,234,567` and `1,234.5` have commas between thousands; `1,234` may have either.

    Args:
        texts: Distinct texts of the column, all of which are numbers of its style.
        column: Column with a comma or a point that is not before decimals.
    """
    if column.thousands and column.thousands in "' ":
        return True
    if column.thousands:
        sure = rf"\{column.thousands}\d{{3}}[,.]"
    else:
        mark = rf"\{column.decimal}"
        sure = rf"{mark}(?:\d{{0,2}}|\d{{4,}})(?:\D|$)|(?:^|\D)0*{mark}"
    return any(map(re.compile(sure).search, texts))


def round_to(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    """Return values with so many decimals, never a negative zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.round(values, decimals)
    # Beyond 2^53 steps every float64 has so many decimals already.
    kept = np.where(np.isfinite(rounded), rounded, values)
    return np.asarray(kept + 0.0, np.float64)


def text_field(column: Column, kind: pa.DataType) -> pa.Field:
    """Return the field of a column, which says how its numbers are written as text."""
    mark = None if column.decimal == "." else {_DECIMAL: column.decimal}
    return pa.field(column.name, kind, metadata=mark)


def with_decimal_marks(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose numbers are texts where their fields have another mark before decimals than a point."""
    fields, columns = list(batch.schema), batch.columns
    for place, field in enumerate(fields):
        mark = (field.metadata or {}).get(_DECIMAL)
        if mark is not None and pa.types.is_floating(field.type):
            text = pc.replace_substring_regex(columns[place].cast(pa.string()), r"\.0$", "")
            columns[place] = pc.replace_substring(text, ".", mark.decode())
            fields[place] = pa.field(field.name, columns[place].type)
    # At once: to set a column takes as long as there are columns.
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _floats(text: pa.Array) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _affix(match: re.Match[str]) -> str:
    before, behind = match["before"] or "", (match["behind"] or "").strip()
    return f"{before}{PLACE}{behind}" if before and behind else before or behind


def _without_print(text: pa.Array) -> pa.Array:
    """Return texts with the spaces, minus signs and apostrophes of ASCII, and none in front of a number."""
    if not pc.any(pc.match_substring_regex(text, _PRINTED)).as_py():
        return text
    text = pc.replace_substring_regex(text, "[\u00a0\u202f\u2009]", " ")
    text = pc.replace_substring_regex(
        text, "^([^\\d]{0,4})[\u2212\u2013] ?([\\d.,]|\\p{Sc})", r"\1-\2"
    )
    text = pc.replace_substring(text, "\u2019", "'")
    return pc.replace_substring_regex(text, r"^'([+-]?[.,]?\d)", r"\1")


def _without_affix(text: pa.Array, affix: str) -> pa.Array:
    """Return numbers without the affix of their column; null where they lack it and are more than digits."""
    before, place, behind = affix.partition(PLACE)
    # A currency may stand on either side.
    sides = [(before, behind)] if place else [("", affix), (affix, "")]
    if not place and not re.fullmatch(_CURRENCIES, affix):
        sides.pop()
    found = pa.nulls(len(text), pa.string())
    for front, back in sides:
        pattern = rf"^(\(?[+-]?) ?{re.escape(front)} ?([+-]?[\d.,][^A-Za-z]*?(?:[eE][+-]?\d+)?) ?{re.escape(back)}(\)?)$"
        bare = pc.replace_substring_regex(text, pattern, r"\1\2\3")
        found = pc.if_else(pc.match_substring_regex(text, pattern), bare, found)
    return found


def _styled(column: Column) -> str:
    """Return the pattern of numbers with the marks of a column; groups have three digits."""
    point, mark = re.escape(column.decimal), re.escape(column.thousands)
    whole = rf"[1-9]\d{{0,2}}(?:{mark}\d{{3}})+|\d{{1,3}}" if column.thousands else r"\d+"
    return rf"^[+-]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?$"
