"""Types of columns, and what the numbers of a stored table stand for.

A table is stored as one array of floats. A cell of a number, an integer or a date is its value (a date
in seconds since 1970, UTC), also where the column has levels that are numbers; a cell whose levels are
text or truth values is the index of its level; a missing cell is not-a-number. So a table of numbers is
stored as it is. `tabular.cells` maps cells to these numbers and back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ColumnType = Literal["number", "integer", "boolean", "category", "datetime", "ignored"]
TransformName = Literal["none", "log", "logit", "asinh", "quantiles", "circular"]
Level = str | float | bool

OTHER = "*other*"
"""Text of a cell whose level is one of the rare ones that became the level *other*."""

MAX_LIST_BYTES = 4 << 20
"""Bytes that the levels, spikes and texts of gaps of all columns of a table may take together."""

_DIGIT_DATES = ("%Y%m%d", "%Y%m")  # formats of dates that are digits alone, which are numbers, too
# What former versions wrote that this one reads as plain numbers, and as dates of ISO 8601.
_FORMER_UNITS = ("K|M|B|T", "° ' \"", "1/2", "*", "\u2212")
_FORMER_FORMATS = re.compile(r"%0?[qGVuENDP]|[|]|^[a-z]{2,3}:|^P$|^h m s$|^\+")
_ENTRY_BYTES = 16  # of a level beside its text: its count, and signs between

UNSEEN = -1.0
"""Number of a level that the table did not have, where the column has no level *other*."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Column of a table: its type, and all that reading and writing its cells takes.

    Attributes:
        name: Name of the column.
        type: Type of its values. A column of type `ignored` is not in the array of the table.
        levels: Values that it holds, as JSON gives them: text, the most frequent first; numbers, or
            false and true, in ascending order. Empty for values on a continuous scale. Not only
            categories have levels: so have integers of few values, and columns with one value.
        other: True if the level after the last one, *other*, stands for all rarer text.
        merged: True if texts that differ from a level in case or blanks alone are of this level.
        missing: True if cells of the table were missing.
        spikes: Values of an otherwise continuous column that far more rows share than those around explain.
        decimals: Decimals that all its values have at most; None where there is no such number.
        na_values: Texts that mean a missing cell, besides those that do in every table.
        decimal: Character before the decimals, in text.
        thousands: Character between groups of three digits, in text; none where it is empty.
        unit: Text before or behind each number, in text, such as of a currency, or both with a `#` between, as in
            `$#/kg`; none where it is empty.
        datetime_format: Format of `datetime.strptime` in which dates are read and written; None for
            ISO 8601.
        first_year: First of the hundred years that years of two digits stand for; None where dates have none.
        date_only: True if all its values are dates without a time of day.
        step_s: Seconds that all dates with a time of day are multiples of, such as 60; 0 for whole
            seconds or parts of these.
        transform: Monotone map to a scale on which it is easier to model; `circular` for angles, whose
            period is the distance of the bounds.
        low: Bound that no value lies below; None if there is none.
        high: Bound that no value lies above; None if there is none.
    """

    name: str
    type: ColumnType = "number"
    levels: tuple[Level, ...] = ()
    other: bool = False
    merged: bool = False
    missing: bool = False
    spikes: tuple[float, ...] = ()
    decimals: int | None = None
    na_values: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    datetime_format: str | None = None
    first_year: int | None = None
    date_only: bool = False
    step_s: int = 0
    transform: TransformName = "none"
    low: float | None = None
    high: float | None = None

    @property
    def is_discrete(self) -> bool:
        """True if the column has levels."""
        return bool(self.levels)

    @property
    def holds_values(self) -> bool:
        """True if its numbers are values; else they are indices of its levels."""
        return not any(isinstance(level, str | bool) for level in self.levels)

    @property
    def writes_digits(self) -> bool:
        """True if its cells are dates that are digits alone, which are numbers, too."""
        return self.type == "datetime" and self.datetime_format in _DIGIT_DATES

    @property
    def has_plain_numbers(self) -> bool:
        """True if its numbers are written as programs do: no marks but a decimal point, and no affix."""
        return (self.decimal, self.thousands, self.unit) == (".", "", "")

    @property
    def level_numbers(self) -> tuple[float, ...]:
        """Numbers that stand for its levels in the array of the table, *other* included."""
        if self.holds_values:
            return tuple(float(level) for level in self.levels)
        return tuple(float(index) for index in range(self.level_count))

    @property
    def is_plain(self) -> bool:
        """True if its cells are finite numbers on a continuous scale, also in text."""
        return (
            self.type in ("number", "integer")
            and not (self.levels or self.missing or self.spikes)
            and not self.na_values
            and self.has_plain_numbers
            and self.transform == "none"
        )

    @property
    def level_count(self) -> int:
        """Number of levels, *other* included."""
        return len(self.levels) + int(self.other)

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        return fields | {name: list(getattr(self, name)) for name in _LISTS}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Column":
        """Return the column of `to_dict`; keys that are no field, such as statistics, are left out.

        A column without a type is one of plain numbers, as all were before columns had types. A notation of
        former versions that is read no more becomes the plain one.
        """
        known = {name: fields[name] for name in _FIELDS if name in fields}
        for name in _LISTS:
            if name in known:
                known[name] = tuple(known[name])
        if known.get("unit") in _FORMER_UNITS:
            known["unit"] = ""
        form = known.get("datetime_format") or ""
        if _FORMER_FORMATS.search(form):
            known["datetime_format"] = None
        elif (
            "%-" in form
        ):  # of days and months without a zero before them, as they are read now anyway
            known["datetime_format"] = form.replace("%-", "%")
        return cls(**known)


def list_bytes(columns: Iterable[Column]) -> int:
    """Return the bytes that the levels, spikes and texts of gaps of columns take, about as JSON."""
    return sum(
        _ENTRY_BYTES + (len(entry.encode()) if isinstance(entry, str) else 0)
        for column in columns
        for entry in (*column.levels, *column.spikes, *column.na_values)
    )


_LISTS = ("levels", "spikes", "na_values")
_FIELDS = tuple(Column.__dataclass_fields__)
