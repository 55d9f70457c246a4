"""Warnings about a table that was accepted."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.formats import Remedy, TableWarning, WarningCode, remedy, warning
from tabular.ingest.observed import SHORT_FLOATS, ObservedColumns

MAX_WARNINGS = 50
"""The most warnings of one code; one more says how many columns were left out."""

EXACT_INTEGERS = 2.0**53
"""From here on float64 does not hold every whole number."""

COUNTED_ROWS = 10
"""The fewest rows of which a column can be a row number."""

_LONGEST_INTEGER = 2.0**64
_FEW_ROWS = 100
_FEW_ROWS_PER_COLUMN = 10
_OUTLIER_Z = 20.0
_OUTLIER_SHARE = 0.95  # of the largest z that one row among so many can have
_FLOAT32_STEPS = 2.0**-16  # below this ratio of spread to size, fewer than 256 steps a deviation
_DEPENDENT = 1e-8  # of a column's variance is left when others explain it
_MAIN_PART = 1e-3  # of a deviation: a coefficient that is worth a name
_MAX_NAMED = 5
_FEWEST_CELLS = 3  # of a sentinel
_FEWEST_OTHERS = 10  # distinct values
_Told = tuple[WarningCode, str | None, Sequence[Remedy]]


def about_columns(
    observed: ObservedColumns, columns: Mapping[int, Column], dtypes: Sequence[str]
) -> Iterator[TableWarning]:
    """Yield the warnings about columns, and about their number of rows."""
    rows = observed.statistics.rows
    wanted = max(_FEW_ROWS, _FEW_ROWS_PER_COLUMN * len(columns))
    if rows < wanted:
        yield warning(
            "few_rows",
            None,
            f"{rows} rows are few for a density in {len(columns)} dimensions; {wanted} or more are advisable.",
        )
    numbers = {at: c for at, c in columns.items() if c.holds_values and c.type != "datetime"}
    scaled = {at: c.name for at, c in numbers.items() if not c.levels}
    yield from _about_dependence(observed, scaled)
    for at, column in numbers.items():
        name, found = column.name, list[_Told]()
        if not column.levels:
            plain = column.transform == "none"
            found.append(("row_number", _row_number(observed, at), [leave_out(name)]))
            found.append(("outlier", _outlier(observed, at) if plain else None, []))
            sentinels = find_sentinels(observed.sample[at], column)
            found.append(
                ("sentinel", _sentinels(observed.sample[at], sentinels), [_gaps(sentinels)])
            )
        if not column.levels or _size(observed, at) >= EXACT_INTEGERS:
            # Few values may be many that float64 rounds.
            found.append(("precision", _precision(observed, at, dtypes[at]), []))
        for code, detail, remedies in found:
            if detail is not None:
                yield warning(code, name, detail, *remedies)


def leave_out(name: str) -> Remedy:
    """Return the remedy of a column that is better not modelled."""
    return remedy("exclude", [name], "Leave out the column")


def _gaps(values: Sequence[float]) -> Remedy:
    texts = [f"{value:.15g}" for value in values]
    return remedy("na_values", texts, f"Take {', '.join(texts)} as missing")


def limit_warnings(warnings: Sequence[TableWarning]) -> list[TableWarning]:
    """Cut each code down to `MAX_WARNINGS`: a picture has thousands of columns."""
    kept: list[TableWarning] = []
    counts: Counter[WarningCode] = Counter()
    for one in warnings:
        counts[one["code"]] += 1
        if counts[one["code"]] <= MAX_WARNINGS:
            kept.append(one)
    for code, count in counts.items():
        if count > MAX_WARNINGS:
            detail = f"The same applies to {count - MAX_WARNINGS} more columns."
            kept.append(warning(code, None, detail))
    return kept


def _about_dependence(
    observed: ObservedColumns, names: Mapping[int, str]
) -> Iterator[TableWarning]:
    statistics = observed.statistics
    whole = np.array([at for at in names if not statistics.missing[at]], np.intp)
    if statistics.rows <= len(names) + 1:
        return  # so few rows depend on one another whatever they are
    correlation = statistics.correlation(whole)
    if correlation is None:
        return
    for column, others in _dependent_columns(correlation):
        named = ", ".join(repr(names[whole[other]]) for other in others[:_MAX_NAMED])
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        yield warning(
            "collinear",
            names[whole[column]],
            f"It is a linear function of {named}{more}: the rows lie on a plane, where no density is finite."
            " Leave one of them out of training.",
            leave_out(names[whole[column]]),
        )


def _dependent_columns(correlation: NDArray[np.float64]) -> Iterator[tuple[int, list[int]]]:
    """Yield each column that is a linear function of columns before it, and which ones."""
    basis: list[int] = []
    for column in range(len(correlation)):
        weights = np.linalg.solve(correlation[np.ix_(basis, basis)], correlation[basis, column])
        left = 1.0 - correlation[basis, column] @ weights
        if left < _DEPENDENT:
            main = np.flatnonzero(np.abs(weights) > _MAIN_PART).tolist()
            yield column, [basis[i] for i in main]
        else:
            basis.append(column)


def _row_number(observed: ObservedColumns, at: int) -> str | None:
    if not observed.statistics.consecutive[at] or observed.statistics.rows < COUNTED_ROWS:
        return None
    return "It counts the rows; a row number says nothing about the row. Leave it out of training."


def _precision(observed: ObservedColumns, at: int, dtype: str) -> str | None:
    size = _size(observed, at)
    from_text = dtype in {"float64", "string"} and size < _LONGEST_INTEGER
    is_whole = observed.statistics.whole[at] and (from_text or "int" in dtype)
    if is_whole and size >= EXACT_INTEGERS:
        return (
            "It holds whole numbers beyond 2^53, which float64 rounds. If they are ids or codes,"
            " state the type ignored or category by types=."
        )
    if dtype not in SHORT_FLOATS and observed.std[at] < _FLOAT32_STEPS * size:
        return (
            "Its spread is so small relative to its values that 32-bit numbers have fewer than 256 steps"
            " per standard deviation. Send its rows as text, JSON or 64-bit numbers. For an ONNX"
            " model, or one that does not standardise, subtract its mean before the upload."
        )
    return None


def _outlier(observed: ObservedColumns, at: int) -> str | None:
    statistics, distinct = observed.statistics, observed.distinct[at]
    mean, std, rows = observed.mean[at], observed.std[at], observed.statistics.rows
    if not std > 0 or (distinct is not None and distinct <= 2):
        return None  # a rare event is no outlier
    low, high = (mean - statistics.low.value[at]) / std, (statistics.high.value[at] - mean) / std
    row = (statistics.low if low > high else statistics.high).row[at]
    limit = min(_OUTLIER_Z, _OUTLIER_SHARE * (rows - 1) / rows**0.5)
    if rows < COUNTED_ROWS or max(low, high) < limit:
        return None
    return (
        f"Row {row} lies {max(low, high):.3g} standard deviations from the mean; such a value determines the"
        " scale of the column."
    )


def _size(observed: ObservedColumns, at: int) -> float:
    extremes = observed.statistics.low.value[at], observed.statistics.high.value[at]
    return float(max(map(abs, extremes)))


def _sentinels(sample: NDArray[np.float64], found: Sequence[float]) -> str | None:
    """Return what to ask about numbers such as -999, which may stand for no value."""
    if not found:
        return None
    rest = sample[~np.isin(sample, found)]
    named = ", ".join(f"{value:.15g}" for value in found)
    share = 100 * (1 - rest.size / sample.size)
    wanted = "&".join(f"na_values={value:.15g}" for value in found)
    return (
        f"{named} in {share:.2g} % of the cells is far from all others, which lie from {rest.min():.6g} to"
        f" {rest.max():.6g}. If it stands for no value, upload the table with {wanted}: the cells are then"
        " missing. Otherwise it is modelled as a value."
    )


def find_sentinels(sample: NDArray[np.float64], column: Column) -> list[float]:
    """Return values of several cells that are further from all others than these from one another."""
    values, counts = np.unique(sample, return_counts=True)
    several = values[counts >= _FEWEST_CELLS]
    if not several.size:
        return []
    asked = np.isin(values, column.spikes)
    asked[[0, -1]] |= counts[[0, -1]] >= _FEWEST_CELLS
    rest = values[~asked]
    if rest.size < _FEWEST_OTHERS:
        return []
    low, high = rest[0], rest[-1]
    found = values[asked]
    outside = np.maximum(low - found, found - high)
    return [float(value) for value in found[outside > high - low]]
