"""Screen for values that no stored table may hold: infinite and far too large ones, and gaps on demand.

Infinite and far too large values are what programs write for "no value": a division by zero, the largest
number of a type. They count as missing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import MissingPolicy, TableWarning
from tabular.slugs import Slug
from tabular.source import Columns

MAX_MAGNITUDE = 1e37
"""The largest size of a value. Models compute in float32, whose largest number is 3.4e38: below a
thirtieth of it, differences of two values and a few standard deviations more are still finite."""

_MAX_NAMED = 3
_INFINITE = "infinite, or too large for a float. With missing=keep it counts as missing"
_LARGE = f"larger than {MAX_MAGNITUDE:g}, beyond what models compute with. Rescale it"
_ABSENT = "missing. With missing=keep, gaps are data; with missing=drop, such rows are left out"


@dataclass
class _Fault:
    """Values of one column that cannot be stored.

    Attributes:
        slug: Problem of the first of them.
        what: Words for what is wrong with them.
        count: Number of such values.
        rows: First rows that have them.
    """

    slug: Slug
    what: str
    count: int
    rows: list[int]


class RowScreen:
    """Screen that makes gaps of what cannot be stored, and drops rows with gaps, or refuses them, on demand.

    Attributes:
        rows_read: Number of rows seen so far.
        rows_dropped: Number of rows dropped.
    """

    def __init__(self, names: list[str], *, missing: MissingPolicy) -> None:
        self.names = names
        self.missing = missing
        self.rows_read = 0
        self.rows_dropped = 0
        self._missing_values = np.zeros(len(names), np.int64)
        self._first_missing: int | None = None
        self._unusable = np.zeros(len(names), np.int64)
        self._first_unusable = np.zeros(len(names), np.int64)
        self._faults: dict[int, _Fault] = {}

    def apply(self, values: Columns) -> tuple[Columns, NDArray[np.int64]]:
        """Return the rows that stay and their numbers, counted from 1 over the whole file."""
        numbers = np.arange(self.rows_read + 1, self.rows_read + values.shape[1] + 1)
        self.rows_read += values.shape[1]
        # One comparison for all: not-a-number is in no range.
        if values.size and values.max() <= MAX_MAGNITUDE and values.min() >= -MAX_MAGNITUDE:
            return values, numbers
        infinite = np.isinf(values)
        large = (np.abs(values) > MAX_MAGNITUDE) & ~infinite
        absent = np.isnan(values)
        if self.missing == "error":
            self._note(infinite, numbers, "dataset-nonfinite", _INFINITE)
            self._note(large, numbers, "dataset-range", _LARGE)
            self._note(absent, numbers, "dataset-nonfinite", _ABSENT)
        unusable = infinite | large
        if unusable.any():
            self._note_gaps(unusable, numbers)
            values = np.where(unusable, np.nan, values)
            absent |= unusable
        incomplete = absent.any(axis=0)
        if self.missing == "drop" and incomplete.any():
            self._count(absent, numbers[incomplete])
            values, numbers = values[:, ~incomplete], numbers[~incomplete]
        return values, numbers

    def check(self) -> None:
        """Refuse the table if it has values that cannot be stored.

        Raises:
            TableError: ``dataset-nonfinite`` or ``dataset-range``, naming all such columns.
        """
        if not self._faults:
            return
        place, first = min(self._faults.items(), key=lambda item: (item[1].rows[0], item[0]))
        name, row = self.names[place], first.rows[0]
        raise TableError(
            first.slug,
            f"Column {name!r}, row {row}: the value is {first.what}.",
            column=name,
            row=row,
            errors=[
                (self.names[at], _described(fault)) for at, fault in sorted(self._faults.items())
            ],
        )

    def warnings(self) -> list[TableWarning]:
        """Return the warnings about values that count as missing, and about dropped rows."""
        return [*self._about_unusable(), *self._about_dropped()]

    def _about_unusable(self) -> list[TableWarning]:
        return [
            {
                "code": "nonfinite",
                "column": self.names[place],
                "detail": f"{self._unusable[place]} of {self.rows_read} cells are infinite, or larger"
                f" than {MAX_MAGNITUDE:g}, and count as missing, the first of them in row"
                f" {self._first_unusable[place]}.",
            }
            for place in np.flatnonzero(self._unusable).tolist()
        ]

    def _about_dropped(self) -> list[TableWarning]:
        if not self.rows_dropped:
            return []
        worst = np.argsort(-self._missing_values, kind="stable")[:_MAX_NAMED]
        named = [
            f"{self.names[i]!r} ({self._missing_values[i]})"
            for i in worst
            if self._missing_values[i]
        ]
        return [
            {
                "code": "missing",
                "column": None,
                "detail": f"{self.rows_dropped} of {self.rows_read} rows were dropped because a"
                f" value is missing, the first of them row {self._first_missing}. Most are missing"
                f" in {', '.join(named)}.",
            }
        ]

    def _count(self, absent: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
        self.rows_dropped += numbers.size
        self._missing_values += np.count_nonzero(absent, axis=1)
        if self._first_missing is None:
            self._first_missing = int(numbers[0])

    def _note_gaps(self, unusable: NDArray[np.bool_], numbers: NDArray[np.int64]) -> None:
        places = np.flatnonzero(unusable.any(axis=1))
        fresh = places[self._unusable[places] == 0]
        self._first_unusable[fresh] = numbers[unusable[fresh].argmax(axis=1)]
        self._unusable[places] += np.count_nonzero(unusable[places], axis=1)

    def _note(
        self, bad: NDArray[np.bool_], numbers: NDArray[np.int64], slug: Slug, what: str
    ) -> None:
        for place in np.flatnonzero(bad.any(axis=1)).tolist():
            rows = numbers[bad[place]]
            fault = self._faults.setdefault(place, _Fault(slug, what, 0, []))
            fault.count += rows.size
            fault.rows += rows[: _MAX_NAMED - len(fault.rows)].tolist()


def _described(fault: _Fault) -> str:
    rows = ", ".join(map(str, fault.rows))
    more = " and more" if fault.count > len(fault.rows) else ""
    return f"Row {rows}{more}: the value is {fault.what}."
