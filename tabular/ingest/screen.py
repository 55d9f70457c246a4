"""Screen for values that no stored table may hold: infinite and far too large ones, and gaps on demand.

Infinite and far too large values are what programs write for "no value": a division by zero, the largest
number of a type. They count as missing.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import MissingPolicy, TableWarning, remedy, warning
from tabular.source import Columns

MAX_MAGNITUDE = 1e37
"""The largest size of a value. Models compute in float32, whose largest number is 3.4e38: below a
thirtieth of it, differences of two values and a few standard deviations more are still finite."""

_MAX_NAMED = 3
_INFINITE = "infinite, or too large for a float. With missing=keep it counts as missing"
_LARGE = f"larger than {MAX_MAGNITUDE:g}, beyond what models compute with. Rescale it"
_ABSENT = "missing. With missing=keep, gaps are data; with missing=drop, such rows are left out"


class RowScreen:
    """Screen that makes gaps of what cannot be stored, and drops rows with gaps, or refuses them, on demand.

    Attributes:
        rows_read: Number of rows seen so far.
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

    def apply(self, values: Columns) -> tuple[Columns, NDArray[np.int64]]:
        """Return the rows that stay and their numbers, counted from 1 over the whole file.

        Raises:
            TableError: ``dataset-nonfinite`` or ``dataset-range`` for a value that the policy refuses, naming
                all columns that have some in these rows.
        """
        numbers = np.arange(self.rows_read + 1, self.rows_read + values.shape[1] + 1)
        self.rows_read += values.shape[1]
        # One comparison for all: not-a-number is in no range.
        if values.size and values.max() <= MAX_MAGNITUDE and values.min() >= -MAX_MAGNITUDE:
            return values, numbers
        infinite = np.isinf(values)
        large = (np.abs(values) > MAX_MAGNITUDE) & ~infinite
        absent = np.isnan(values)
        unusable = infinite | large
        if self.missing == "error" and (unusable | absent).any():
            raise self._refusal(infinite, large, absent, numbers)
        if unusable.any():
            self._note_gaps(unusable, numbers)
            values = np.where(unusable, np.nan, values)
            absent |= unusable
        incomplete = absent.any(axis=0)
        if self.missing == "drop" and incomplete.any():
            self._count(absent, numbers[incomplete])
            values, numbers = values[:, ~incomplete], numbers[~incomplete]
        return values, numbers

    def warnings(self) -> list[TableWarning]:
        """Return the warnings about values that count as missing, and about dropped rows."""
        return [*self._about_unusable(), *self._about_dropped()]

    def _about_unusable(self) -> Iterator[TableWarning]:
        for place in np.flatnonzero(self._unusable).tolist():
            yield warning(
                "nonfinite",
                self.names[place],
                f"{self._unusable[place]} of {self.rows_read} cells are infinite, or larger than"
                f" {MAX_MAGNITUDE:g}, and count as missing, the first of them in row"
                f" {self._first_unusable[place]}.",
            )

    def _about_dropped(self) -> Iterator[TableWarning]:
        if not self.rows_dropped:
            return
        worst = np.argsort(-self._missing_values, kind="stable")[:_MAX_NAMED]
        named = ", ".join(
            f"{self.names[i]!r} ({self._missing_values[i]})"
            for i in worst
            if self._missing_values[i]
        )
        yield warning(
            "missing",
            None,
            f"{self.rows_dropped} of {self.rows_read} rows were dropped because a value is missing, the first"
            f" of them row {self._first_missing}. Most are missing in {named}.",
            remedy("missing", "keep", "Keep these rows"),
        )

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

    def _refusal(
        self,
        infinite: NDArray[np.bool_],
        large: NDArray[np.bool_],
        absent: NDArray[np.bool_],
        numbers: NDArray[np.int64],
    ) -> TableError:
        """Return the error about the first row of each column that has a value that is refused."""
        bad = infinite | large | absent
        found = []
        for place in np.flatnonzero(bad.any(axis=1)).tolist():
            at = int(bad[place].argmax())
            what = _INFINITE if infinite[place, at] else _LARGE if large[place, at] else _ABSENT
            found.append((int(numbers[at]), place, what))
        row, place, what = min(found)
        return TableError(
            "dataset-range" if what is _LARGE else "dataset-nonfinite",
            f"Column {self.names[place]!r}, row {row}: the value is {what}.",
            column=self.names[place],
            row=row,
            errors=[
                (self.names[at], f"Row {n}: the value is {w}.")
                for n, at, w in sorted(found, key=lambda f: f[1])
            ],
        )
