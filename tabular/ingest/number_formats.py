"""Formats of numbers in a file: decimals that are always there, thousands apart, a unit or several, their sign."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.ingest.profiles import TextProfile
from tabular.ingest.readings import reading_values
from tabular.notations.units import named, units_of
from tabular.notations.words import MISSING_SPELLINGS
from tabular.numerals import (
    ABBREVIATED,
    DEGREES,
    FRACTIONS,
    MARKED,
    MAX_PLACES,
    PLAIN_FORMATS,
    PRINTED,
)
from tabular.source import CellSource

_SPACES = " \u00a0\u202f\u2009"
_MARKS = {" ": f"[{_SPACES}]", "'": "['\u2019]"}
_MOST_AROUND = 24
_ROWS_LOOKED_AT = 1000
# Zeros before digits, no digit before the decimal mark, or an exponent.
_PADDED = re.compile(
    r"(?i)\D* 0\d|[+-]?[.,] |.*\d(?:e[+-]?\d|d[+-]\d| ?[x×*·] ?10\W{0,2}[\d⁰¹²³⁴-⁹])"  # noqa: RUF001
)

_SAID = {
    ABBREVIATED: "K, M, B and T for powers of a thousand",
    DEGREES: "degrees, minutes and seconds",
    FRACTIONS: "fractions behind some of them",
    MARKED: "marks behind some of them",
    PRINTED: "signs of print",
}
_UNITS_LOOKED_AT = 200
_MAX_NAMED = 3
_OF_PAIR = r"[+-]?(?:0|[1-9]\d*)(?:\.\d+)?"  # 001/23 is a code
_PAIR = re.compile(rf"[(\[]?{_OF_PAIR}\s*(?:[,;/x\u00d7|±]|\+/-)\s*{_OF_PAIR}[)\]]?")


class _Spellings:
    """Texts around and between the digits of the numbers of a column."""

    def __init__(self, column: Column) -> None:
        mark = _MARKS.get(column.thousands, re.escape(column.thousands))
        groups = rf"(?:{mark}\d{{2,3}})*" if mark else ""
        self._point = column.decimal
        decimals = rf"(?:{re.escape(self._point)}\d+)?"
        self._pattern = re.compile(rf"(\D*?)(\d+{groups}{decimals})(\D.*)?", re.DOTALL)
        self._around = {False: Counter[tuple[str, str]](), True: Counter[tuple[str, str]]()}
        self._marks = Counter[str]()
        self._places = set[int]()
        self._pairs = False

    def add(self, text: str, count: int, *, is_negative: bool) -> bool:
        """Add a text, and return whether its number is one that a format can write."""
        found = self._pattern.fullmatch(text)
        if found is None or _PADDED.match(f"{found[1]} {found[2]}{found[3] or ''}"):
            return False
        self._around[is_negative][found[1], found[3] or ""] += count
        whole, _, decimals = found[2].partition(self._point)
        self._places.add(len(decimals))
        self._marks.update(character for character in whole if not character.isdigit())
        self._pairs |= re.search(r"\d\D\d\d\D", whole) is not None
        return True

    def format(self) -> str:
        """Return the most frequent format; empty where there is none, or it could not be read."""
        below = next(iter(self._around[True].most_common(1)), (("", ""), 0))[0]
        if self._around[False]:
            before, after = self._around[False].most_common(1)[0][0]
        elif below[0].startswith(("-", "\u2212", "\u2013")):
            before, after = below[0][1:], below[1]
        else:
            return ""
        if not self._around[True]:
            sign = before.removeprefix("+")
            below = (f"{sign}-" if sign == "'" else f"-{sign}", after)
        around = (before, after, *below)
        if max(map(len, around)) > _MOST_AROUND or re.search("[#;]", "".join(around)):
            return ""
        if max(self._places) > MAX_PLACES:
            return ""
        digits = self._digits()
        return f"{before}{digits}{after};{below[0]}{digits}{below[1]}"

    def _digits(self) -> str:
        digits = "0"
        if self._marks:
            mark = self._marks.most_common(1)[0][0]
            digits = f"#{mark}##{mark}##0" if self._pairs else f"#{mark}##0"
        if self._places == {0}:
            return digits
        return f"{digits}{self._point}{'0' * max(self._places) if len(self._places) == 1 else '#'}"


def number_format(texts: Mapping[str, int], column: Column, values: NDArray[np.float64]) -> str:
    """Return the format of numbers, empty where they are written as they are, or in no one format.

    Args:
        texts: Some distinct cells, with their numbers.
        column: Column that they are read as.
        values: Their values, not-a-number where they have none.
    """
    if column.unit in (ABBREVIATED, DEGREES, FRACTIONS):
        return ""
    spellings = _Spellings(column)
    pairs = zip(texts.items(), values.tolist(), strict=True)
    known = [(*pair, value < 0) for pair, value in pairs if not np.isnan(value)]
    if not all(spellings.add(text, count, is_negative=below) for text, count, below in known):
        return ""
    found = spellings.format()
    return "" if found in PLAIN_FORMATS else found


def plain_format(texts: Iterable[str | None]) -> str:
    """Return the format of plain numbers that all have a sign, or the same decimals, some of them zeros at the end."""
    known = [text for text in texts if text is not None and text.strip() not in MISSING_SPELLINGS]
    if known and all(re.fullmatch(r"[+-](?:0|[1-9]\d*)", text.strip()) for text in known):
        return "+0;-0"
    found = [re.fullmatch(r"-?(?:0|[1-9]\d*)\.(\d+)", text.strip()) for text in known]
    places = {len(match[1]) if match else 0 for match in found}
    if len(places) != 1 or 0 in places or not any(text.strip().endswith("0") for text in known):
        return ""
    count = places.pop()
    if count > MAX_PLACES:
        return ""
    digits = "0." + "0" * count
    return f"{digits};-{digits}"


def plain_formats(table: CellSource, places: Collection[int]) -> dict[int, str]:
    """Return the formats of columns of plain numbers, by position, from the first rows of a file of text."""
    if not (table.untyped and places):
        return {}
    first = next(iter(table.read(frozenset(range(len(table.names))))), None)
    if first is None:
        return {}
    some = first.slice(0, _ROWS_LOOKED_AT)
    found = {at: plain_format(some.column(at).to_pylist()) for at in places}
    return {at: form for at, form in found.items() if form}


def marks_of(column: Column) -> str:
    """Return the marks of the numbers of a column, as the end of a sentence; empty where they have none."""
    parts = []
    if column.decimal != ".":
        parts.append("decimal commas")
    if column.thousands:
        parts.append(f"thousands separated by {column.thousands!r}")
    if column.unit:
        parts.append(_SAID.get(column.unit) or named(column.unit))
    return f" with {' and '.join(parts)}" if parts else ""


def reason_of_numbers(profile: TextProfile) -> str | None:
    """Return the reason not to model a column of numbers in different units, or of pairs; None if it is neither."""
    return _units_reason(profile) or _pairs_reason(profile)


def _units_reason(profile: TextProfile) -> str | None:
    """Return the reason not to model a column of numbers whose units differ, if it is one."""
    texts = list(profile.counts)[:_UNITS_LOOKED_AT]
    units = units_of(texts)
    column = Column(name=profile.name, thousands=",")
    bare = pa.array([_without(units, text) for text in texts], pa.string())
    if len(units) < 2 or np.isnan(reading_values(bare, column)).any():
        return None
    named = ", ".join(units[:_MAX_NAMED])
    return f"Its cells are numbers in different units ({named}); write all in one."


def _pairs_reason(profile: TextProfile) -> str | None:
    """Return the reason not to model a column of two numbers in each cell, if it is one."""
    texts = list(profile.counts)[:_UNITS_LOOKED_AT]
    if not texts or not all(map(_PAIR.fullmatch, texts)):
        return None
    return (
        "Its cells hold two numbers each, such as coordinates; put each into a column of its own."
    )


def _without(units: Sequence[str], text: str) -> str:
    for unit in sorted(units, key=len, reverse=True):
        text = text.removeprefix(unit).removesuffix(unit).strip()
    return text
