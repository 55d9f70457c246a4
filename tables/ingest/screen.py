"""Screen for values that no stored table may hold: missing, infinite and far too large ones."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tables.errors import TableError
from tables.formats import MissingPolicy, TableWarning
from tables.source import Columns

MAX_MAGNITUDE = 1e37
"""The largest size of a value. Models compute in float32, whose largest number is 3.4e38: below a
thirtieth of it, differences of two values and a few standard deviations more are still finite."""

_MAX_NAMED = 3


class RowScreen:
    """Screen that drops or refuses rows with missing values, and refuses what cannot be stored.

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

    def apply(self, values: Columns) -> tuple[Columns, NDArray[np.int64]]:
        """Return the rows that stay and their numbers, counted from 1 over the whole file.

        Raises:
            TableError: ``dataset-nonfinite`` or ``dataset-range``, with the first such row.
        """
        numbers = np.arange(self.rows_read + 1, self.rows_read + values.shape[1] + 1)
        self.rows_read += values.shape[1]
        # One comparison for all: not-a-number is in no range.
        if values.size and values.max() <= MAX_MAGNITUDE and values.min() >= -MAX_MAGNITUDE:
            return values, numbers
        self._refuse(
            np.isinf(values),
            numbers,
            slug="dataset-nonfinite",
            what="is infinite, or too large for a float",
        )
        absent = np.isnan(values)
        if self.missing == "error":
            self._refuse(
                absent,
                numbers,
                slug="dataset-nonfinite",
                what="is missing. With missing=drop, such rows are left out",
            )
        incomplete = absent.any(axis=0)
        if incomplete.any():
            self._count(absent, numbers[incomplete])
            values, numbers = values[:, ~incomplete], numbers[~incomplete]
        self._refuse(
            np.abs(values) > MAX_MAGNITUDE,
            numbers,
            slug="dataset-range",
            what=f"is larger than {MAX_MAGNITUDE:g}, beyond what models compute with. Rescale it",
        )
        return values, numbers

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

    def _refuse(
        self,
        bad: NDArray[np.bool_],
        numbers: NDArray[np.int64],
        *,
        slug: Literal["dataset-nonfinite", "dataset-range"],
        what: str,
    ) -> None:
        if not bad.any():
            return
        position = int(bad.any(axis=0).argmax())
        name = self.names[int(bad[:, position].argmax())]
        row = int(numbers[position])
        raise TableError(
            slug, f"Column {name!r}, row {row}: the value {what}.", column=name, row=row
        )
