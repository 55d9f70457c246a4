"""Screen for values that no stored table may hold: infinite and far too large ones, and gaps on demand."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tables.errors import TableError
from tables.formats import MissingPolicy, TableWarning
from tables.slugs import Slug
from tables.source import Columns

MAX_MAGNITUDE = 1e37
"""The largest size of a value. Models compute in float32, whose largest number is 3.4e38: below a
thirtieth of it, differences of two values and a few standard deviations more are still finite."""

_MAX_NAMED = 3
_INFINITE = "infinite, or too large for a float. Name its text by na_values= to take it as missing"


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
    """Screen that drops rows with missing values on demand, and keeps account of what cannot be stored.

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
        self._note(infinite, numbers, "dataset-nonfinite", _INFINITE)
        self._note(
            large,
            numbers,
            "dataset-range",
            f"larger than {MAX_MAGNITUDE:g}, beyond what models compute with. Rescale it",
        )
        if self.missing == "error":
            what = "missing. With missing=keep, gaps are data; with missing=drop, such rows are left out"
            self._note(absent, numbers, "dataset-nonfinite", what)
        if self._faults:
            values = np.where(infinite | large, np.nan, values)
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
        """Return the warning about dropped rows, if there are any."""
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
