"""Warnings about a table that was accepted."""

from collections import Counter
from collections.abc import Iterable, Iterator, Set

import numpy as np
from numpy.typing import NDArray

from tabular.formats import TableWarning, WarningCode
from tabular.ingest.statistics import RunningStatistics

MAX_WARNINGS = 50
"""The most warnings of one code; one more says how many columns were left out."""

EXACT_INTEGERS = 2.0**53
"""From here on float64 does not hold every whole number."""

_LONGEST_INTEGER = 2.0**64
_FEW_ROWS = 100
_FEW_ROWS_PER_COLUMN = 10
COUNTED_ROWS = 10
"""The fewest rows of which a column can be a row number."""

_OUTLIER_Z = 20.0
_OUTLIER_SHARE = 0.95  # of the largest z that one row among so many can have
_FLOAT32_STEPS = 2.0**-16  # below this ratio of spread to size, fewer than 256 steps a deviation
_DEPENDENT = 1e-8  # of a column's variance is left when others explain it
_MAIN_PART = 1e-3  # of a deviation: a coefficient that is worth a name
_MAX_NAMED = 5


class Warnings:
    """Warnings about the columns of one table."""

    def __init__(
        self, statistics: RunningStatistics, *, names: list[str], dtypes: list[str]
    ) -> None:
        self.statistics = statistics
        self.names = names
        self.dtypes = dtypes
        self.mean = statistics.mean
        self.std = statistics.std
        self.distinct = statistics.distinct

    def about(
        self, columns: NDArray[np.intp], *, scaled: NDArray[np.intp], plain: Set[int]
    ) -> list[TableWarning]:
        """Return the warnings about columns, and their number of rows.

        Args:
            columns: Columns that are modelled.
            scaled: Those on a continuous scale.
            plain: Those on the scale of their values.
        """
        whole = scaled[self.statistics.missing[scaled] == 0]
        found = [*self._few_rows(columns), *self._collinear(whole)]
        for column in scaled.tolist():
            found.extend(self._about_column(column, plain=column in plain))
        return found

    def about_rounding(self, columns: Iterable[int]) -> Iterator[TableWarning]:
        """Yield the warnings about columns whose few values may be many that float64 rounds.

        Args:
            columns: Columns of numbers that have levels.
        """
        for column in columns:
            if self._size(column) >= EXACT_INTEGERS and (found := self._precision(column)):
                yield warning("precision", self.names[column], found)

    def _few_rows(self, columns: NDArray[np.intp]) -> Iterator[TableWarning]:
        wanted = max(_FEW_ROWS, _FEW_ROWS_PER_COLUMN * columns.size)
        if self.statistics.rows < wanted:
            yield warning(
                "few_rows",
                None,
                f"{self.statistics.rows} rows are few for a density in {columns.size} dimensions;"
                f" {wanted} or more are advisable.",
            )

    def _collinear(self, columns: NDArray[np.intp]) -> Iterator[TableWarning]:
        if self.statistics.rows <= columns.size + 1:
            return  # so few rows depend on one another whatever they are
        correlation = self.statistics.correlation(columns)
        if correlation is None:
            return
        for column, others in dependent_columns(correlation):
            named = [self.names[columns[other]] for other in others[:_MAX_NAMED]]
            more = f" and {len(others) - len(named)} more" if len(others) > len(named) else ""
            yield warning(
                "collinear",
                self.names[columns[column]],
                f"It is a linear function of {', '.join(map(repr, named))}{more}: the rows lie on"
                " a plane, where no density is finite. Leave one of them out of training.",
            )

    def _about_column(self, column: int, *, plain: bool) -> Iterator[TableWarning]:
        name = self.names[column]
        findings: list[tuple[WarningCode, str | None]] = [
            ("row_number", self._row_number(column)),
            ("precision", self._precision(column)),
            ("outlier", self._outlier(column) if plain else None),
        ]
        for code, detail in findings:
            if detail is not None:
                yield warning(code, name, detail)

    def _row_number(self, column: int) -> str | None:
        if not self.statistics.consecutive[column] or self.statistics.rows < COUNTED_ROWS:
            return None
        return (
            "It counts the rows; a row number says nothing about the row. Leave it out of training."
        )

    def _precision(self, column: int) -> str | None:
        dtype, size = self.dtypes[column], self._size(column)
        from_text = dtype in {"float64", "string"} and size < _LONGEST_INTEGER
        if (
            self.statistics.whole[column]
            and size >= EXACT_INTEGERS
            and (from_text or "int" in dtype)
        ):
            return (
                "It holds whole numbers beyond 2^53, which float64 rounds. If they are ids or codes,"
                " state the type ignored or category by types=."
            )
        if dtype not in {"float16", "float32"} and self.std[column] < _FLOAT32_STEPS * size:
            return (
                "Its spread is so small relative to its values that 32-bit numbers have fewer than 256 steps"
                " per standard deviation. Send its rows as text, JSON or 64-bit numbers. For an ONNX"
                " model, or one that does not standardise, subtract its mean before the upload."
            )
        return None

    def _outlier(self, column: int) -> str | None:
        distinct = self.distinct[column]
        if not self.std[column] > 0 or (distinct is not None and distinct <= 2):
            return None  # a rare event is no outlier
        low = (self.mean[column] - self.statistics.low.value[column]) / self.std[column]
        high = (self.statistics.high.value[column] - self.mean[column]) / self.std[column]
        extreme = self.statistics.low if low > high else self.statistics.high
        rows = self.statistics.rows
        largest = (rows - 1) / rows**0.5
        limit = min(_OUTLIER_Z, _OUTLIER_SHARE * largest)
        if rows < 10 or max(low, high) < limit:
            return None
        return (
            f"Row {extreme.row[column]} lies {max(low, high):.3g} standard deviations from the"
            " mean; such a value determines the scale of the column."
        )

    def _size(self, column: int) -> float:
        return float(
            max(abs(self.statistics.low.value[column]), abs(self.statistics.high.value[column]))
        )


def dependent_columns(correlation: NDArray[np.float64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each column that is a linear function of columns before it, and which ones.

    Args:
        correlation: Correlation matrix of columns that vary.
    """
    basis: list[int] = []
    for column in range(len(correlation)):
        weights = np.linalg.solve(correlation[np.ix_(basis, basis)], correlation[basis, column])
        left = 1.0 - correlation[basis, column] @ weights
        if left < _DEPENDENT:
            main = np.flatnonzero(np.abs(weights) > _MAIN_PART).tolist()
            yield column, [basis[i] for i in main]
        else:
            basis.append(column)


def limit_warnings(warnings: list[TableWarning]) -> list[TableWarning]:
    """Cut each code down to `MAX_WARNINGS`: a picture has thousands of columns."""
    kept: list[TableWarning] = []
    counts: Counter[WarningCode] = Counter()
    for one in warnings:
        counts[one["code"]] += 1
        if counts[one["code"]] <= MAX_WARNINGS:
            kept.append(one)
    for code, count in counts.items():
        if count > MAX_WARNINGS:
            kept.append(
                warning(code, None, f"The same applies to {count - MAX_WARNINGS} more columns.")
            )
    return kept


def warning(code: WarningCode, column: str | None, detail: str) -> TableWarning:
    """Return a warning."""
    return {"code": code, "column": column, "detail": detail}
