"""Types and preprocessing of the columns that a training models, and the mixed density that follows."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flows import FlowSpec
from models_store.errors import RequestError
from models_store.records import Dataset
from models_store.requests.training import ColumnOptions, Levels, Preprocessing, TrainingRequest
from tabular.columns import Column
from tabular.source import MAX_NAME_LENGTH

# Share of the rows on the bound of a column, from which on it is a spike in a table of numbers.
_FLOOR_SHARE = 0.5
# Share of the rows that have one value of a column, in at least half of the columns, from which on such
# values are spikes in a table of numbers: noise that bounds the density there would hide all else.
_ATOM_SHARE = 0.6
# Most levels of a column of a table of numbers: as more, far values would rank as any rare one.
_MOST_LEVELS = 20
# Distances of the median from the farther quartile.
_FAR = 20.0
# Quantiles beside a value that half of the rows have.
_FEWEST_OTHERS = 3
# Ranges of 98 % of the values in a standard deviation.
_GIANT = 30.0


def needs_values(request: TrainingRequest) -> bool:
    """Return whether a request treats all columns as numbers, whatever their types say.

    So do the Bernoulli MADE, which models 0 and 1, and the preprocessing of images.
    """
    chosen, flow = request.preprocessing, request.chosen_flow
    binary = flow is not None and flow.is_binary
    return binary or isinstance(chosen.dequantise, Levels) or chosen.logit is not None


def accept_types(
    request: TrainingRequest, dataset: Dataset, *, columns: Sequence[str], context: Sequence[str]
) -> list[Column]:
    """Return the types of the columns that a request models, then of its context columns.

    Raises:
        RequestError: An option for a column does not fit it.
    """
    known = {column.name: column for column in dataset.column_types}
    chosen = [known[name] for name in columns]
    conditions = [known[name] for name in context]
    if needs_values(request):
        check_values(chosen, pointer="/columns")
        return [*map(_as_values, chosen), *conditions]
    statistics = {column["name"]: column for column in dataset.columns}
    if is_numeric([*chosen, *conditions]):
        chosen = _as_numbers(chosen, statistics, rows=dataset.rows)
    else:
        stated = request.preprocessing.columns
        chosen = [_with_transform(column) for column in _with_ties(chosen, statistics, stated)]
    # Spikes and other transforms of values that are given, not modelled, would change nothing.
    conditions = [replace(column, spikes=()) for column in conditions]
    circles = {name for name, one in request.preprocessing.columns.items() if _turns(one)}
    turned = [column for column in conditions if column.name in circles]
    found = with_options([*chosen, *turned], request.preprocessing)
    check_bounds(found[: len(chosen)], statistics, pointer="/preprocessing/columns")
    around = {column.name: column for column in found[len(chosen) :]}
    return [*found[: len(chosen)], *(around.get(column.name, column) for column in conditions)]


def _turns(options: ColumnOptions) -> bool:
    return options.transform == "circular" and not options.spikes


def _as_values(column: Column) -> Column:
    """Return a column of plain numbers with the decimals of another."""
    whole = column.decimals == 0 or column.type == "boolean"
    decimals = 0 if whole else column.decimals
    return Column(name=column.name, type="integer" if whole else "number", decimals=decimals)


def is_numeric(columns: Sequence[Column]) -> bool:
    """Return whether all columns hold numbers or dates, without gaps."""
    return all(
        column.type in ("number", "integer", "datetime") and not column.missing
        for column in columns
    )


def _with_ties(
    columns: Sequence[Column],
    statistics: Mapping[str, Mapping[str, Any]],
    stated: Container[str],
) -> list[Column]:
    """Return the columns, of which those are levels whose values come in the same pairs with those of another.

    Args:
        stated: Names of the columns that the caller has options for, which stay.
    """
    free = {column.name for column in columns if column.name not in stated}
    found = []
    for column in columns:
        repetition = statistics[column.name].get("repetition") or {}
        others = free.intersection(repetition.get("tied") or ())
        if column.name in free and others and not column.is_discrete:
            levels = tuple(
                int(v) if v.is_integer() else v for v in map(float, repetition["listed"])
            )
            column = replace(  # noqa: PLW2901  as it is modelled
                column, levels=levels, spikes=(), transform="none", low=None, high=None
            )
        found.append(column)
    return found


def _with_transform(column: Column) -> Column:
    if column.is_discrete or column.transform != "none":
        return column
    return replace(column, transform="quantiles")


def _as_numbers(
    columns: Sequence[Column], statistics: Mapping[str, Mapping[str, Any]], *, rows: int
) -> list[Column]:
    """Return the columns of a table of numbers: on their plain scales, as far as one flow models them all.

    Where some column makes the density mixed, no noise spreads the zeros of an amount that most rows
    share. They are then a spike, with the scale and the bound that any mixed table gives such a column.
    """
    if _is_of_atoms(columns, statistics, rows=rows):
        return [_with_transform(column) for column in columns]
    columns = [
        replace(column, levels=()) if len(column.levels) > _MOST_LEVELS else column
        for column in columns
    ]
    plain = [_as_number(column, statistics[column.name]) for column in columns]
    if not is_mixed(plain):
        return plain
    return [
        _with_floor(column, kept, statistics[column.name], rows=rows)
        for column, kept in zip(columns, plain, strict=True)
    ]


def _is_of_atoms(
    columns: Sequence[Column], statistics: Mapping[str, Mapping[str, Any]], *, rows: int
) -> bool:
    """Return whether half of the columns have one value in most rows."""
    largest: list[int] = [
        max(statistics[column.name].get("spike_counts") or (0,))
        for column in columns
        if column.spikes
    ]
    return 2 * sum(count >= _ATOM_SHARE * rows for count in largest) >= len(columns)


def _with_floor(
    column: Column, plain: Column, statistics: Mapping[str, Any], *, rows: int
) -> Column:
    """Return a column whose lower bound is a spike if that many rows have it; else the plain one."""
    counts = dict(zip(column.spikes, statistics.get("spike_counts") or (), strict=False))
    if column.low is None or counts.get(column.low, 0) < _FLOOR_SHARE * rows:
        return plain
    spikes = tuple(sorted({column.low, *plain.spikes}))
    return _with_transform(replace(column, spikes=spikes))


def _as_number(column: Column, statistics: Mapping[str, Any]) -> Column:
    """Return a column of a table of numbers: only values far from all others, such as -999, are spikes.

    Tables of numbers are ranked by their densities. A spike has a probability instead, and how it
    ranks beside a density depends on the unit of the column; so only those values become spikes that
    no density can describe. Noise spreads the others. The scale stays as it is, too, unless the
    request asks for a transform, or a few giant values would leave all others without a spread.
    """
    shares = statistics.get("quantiles") or {}
    spikes = _far_spikes(column.spikes, shares)
    if has_giants(statistics.get("std"), shares):
        transform = "asinh" if column.transform == "none" else column.transform
        return replace(column, transform=transform, spikes=spikes)
    return replace(column, transform="none", low=None, high=None, spikes=spikes)


def _far_spikes(spikes: Sequence[float], shares: Mapping[str, float]) -> tuple[float, ...]:
    """Return those spikes that are far from all other values."""
    if not {"0.25", "0.5", "0.75"} <= shares.keys():
        return ()
    middle = shares["0.5"]
    scale = max(middle - shares["0.25"], shares["0.75"] - middle)
    rest = [value for value in shares.values() if value not in spikes]
    low, high = min(rest, default=0.0), max(rest, default=0.0)
    # In half of the rows or more, it is the middle itself, and is compared with enough others.
    away = max(low - middle, middle - high) if len(rest) >= _FEWEST_OTHERS else 0.0
    return tuple(
        spike
        for spike in spikes
        if abs(spike - middle) > _FAR * scale > 0 or (spike == middle and away > high - low > 0)
    )


def has_giants(std: float | None, shares: Mapping[str, float]) -> bool:
    """Return whether the standard deviation is that of a few values alone.

    Args:
        std: Standard deviation of a column.
        shares: Quantiles of its values.
    """
    if std is None or not {"0.01", "0.99"} <= shares.keys():
        return False
    spread = shares["0.99"] - shares["0.01"]
    return bool(std > _GIANT * spread > 0)


def check_held_out(columns: Sequence[Column], dataset: Dataset) -> None:
    """Check that the cells of another dataset are of the types that are modelled.

    Raises:
        RequestError: A column holds other values, or has gaps where training rows have none.
    """
    found = {column.name: column for column in dataset.column_types}
    for column in columns:
        other = found[column.name]
        same = other.holds_values == column.holds_values and (
            (other.type == "datetime") == (column.type == "datetime")
        )
        gaps = other.missing and not column.missing
        if gaps or not same:
            what = "has gaps, which the training rows lack" if gaps else "holds other values"
            raise RequestError(
                "split-invalid",
                f"column {column.name!r} of dataset {dataset.id} {what}",
                pointer="/split",
            )


def check_values(columns: Sequence[Column], *, pointer: str) -> None:
    """Check that all columns hold numbers without gaps.

    Raises:
        RequestError: A column holds other values, or cells of it are missing.
    """
    for index, column in enumerate(columns):
        if not column.holds_values or column.missing or column.type == "datetime":
            what = "missing cells" if column.missing else f"values of type {column.type}"
            raise RequestError(
                "preprocessing-unsuitable",
                f"this needs columns of numbers without gaps; column {index + 1} of the"
                f" {len(columns)} in `{pointer[1:]}` has {what}",
                pointer=pointer,
            )


def with_options(columns: Sequence[Column], wanted: Preprocessing) -> list[Column]:
    """Return the columns with the transforms, bounds and spikes that a request asks for.

    Raises:
        RequestError: An option is for a column that is not modelled, or that it does not fit.
    """
    options = wanted.columns
    names = {column.name for column in columns}
    for name in options:
        if name not in names:
            raise RequestError(
                "unknown-column",
                f"`preprocessing.columns` names {name[:MAX_NAME_LENGTH]!r}, which is not modelled; a column"
                " of the context"
                " takes the transform circular alone",
                pointer="/preprocessing/columns",
            )
    return [
        _with_options(column, options[column.name]) if column.name in options else column
        for column in columns
    ]


def _with_options(column: Column, options: ColumnOptions) -> Column:
    if column.is_discrete:
        raise _unsuitable(column, f"it has {len(column.levels)} levels, and no continuous scale")
    chosen = options.model_dump(exclude_none=True)
    chosen |= {"spikes": tuple(chosen["spikes"])} if "spikes" in chosen else {}
    if column.transform == "none" and chosen.keys() & {"low", "high"}:
        chosen = {"transform": "quantiles"} | chosen  # of all scales, the one that keeps any bounds
    changed = replace(column, **chosen)
    bounded = changed.transform in ("logit", "circular")
    if bounded and (changed.low is None or changed.high is None):
        raise _unsuitable(column, f"the transform {changed.transform} needs `low` and `high`")
    if changed.low is not None and changed.high is not None and changed.low >= changed.high:
        raise _unsuitable(column, "`low` must be below `high`")
    return changed


def _unsuitable(column: Column, reason: str) -> RequestError:
    return RequestError(
        "preprocessing-unsuitable",
        f"the options of column {column.name!r} do not fit it: {reason}",
        pointer="/preprocessing/columns",
    )


def check_bounds(
    columns: Sequence[Column], statistics: Mapping[str, Mapping[str, Any]], *, pointer: str
) -> None:
    """Check that the values of the dataset lie within the bounds of their columns.

    Args:
        columns: Columns with their bounds.
        statistics: Statistics of each column of the dataset, by name.
        pointer: JSON pointer of the option that names the bounds.

    Raises:
        RequestError: The smallest or the largest value of a column lies outside.
    """
    for column in columns:
        found = statistics[column.name]
        least, most = _continuous_ends(column, found)
        if column.is_discrete or least is None or most is None or column.transform == "circular":
            continue
        low = 0.0 if column.low is None and column.transform == "log" else column.low
        if (low is not None and least < low) or (column.high is not None and most > column.high):
            raise RequestError(
                "preprocessing-unsuitable",
                f"column {column.name!r} has values from {least:g} to {most:g}, which the bounds"
                " of its transform exclude",
                pointer=pointer,
            )


def _continuous_ends(
    column: Column, statistics: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value that is no spike, or a quantile where that is unknown."""
    shares = sorted((statistics.get("quantiles") or {}).values())
    known = [value for value in shares if value not in column.spikes]
    ends = statistics.get("min"), statistics.get("max")
    if not known:
        return ends
    least, most = (
        known[place] if end in column.spikes else end
        for end, place in zip(ends, (0, -1), strict=True)
    )
    return least, most


def is_mixed(columns: Sequence[Column]) -> bool:
    """Return whether rows of these columns need a mixed density; else any flow models them."""
    return any(
        column.levels or column.missing or column.spikes or column.transform != "none"
        for column in columns
    )


def accept_preprocessing(
    wanted: Preprocessing, flow: FlowSpec, columns: Sequence[dict[str, Any]]
) -> Preprocessing:
    """Check the preprocessing against the modelled columns; return the one to carry out.

    Raises:
        RequestError: The values of a column are out of range.
    """
    if flow.is_binary:
        return _for_binary(wanted, columns)
    if isinstance(wanted.dequantise, Levels):
        largest = wanted.dequantise.levels - 1
        _check_range(columns, 0, largest, pointer="/preprocessing/dequantise")
    elif wanted.logit is not None:
        _check_range(columns, 0, 1, pointer="/preprocessing/logit")
    return wanted


def _for_binary(wanted: Preprocessing, columns: Sequence[dict[str, Any]]) -> Preprocessing:
    for name in ("standardise", "dequantise", "logit"):
        if name in wanted.model_fields_set and getattr(wanted, name):
            raise RequestError(
                "preprocessing-unsuitable",
                f"the Bernoulli MADE models 0 and 1 as they are: leave {name} out",
                pointer=f"/preprocessing/{name}",
            )
    for index, column in enumerate(columns):
        if not is_binary(column):
            raise RequestError(
                "preprocessing-unsuitable",
                f"the Bernoulli MADE models columns of 0 and 1; column {index + 1} of the"
                f" {len(columns)} to model holds others",
                pointer="/columns",
            )
    return Preprocessing(standardise=False, dequantise=None, logit=None)


def is_binary(column: dict[str, Any]) -> bool:
    """Return whether a column holds 0 and 1 only; beyond 1000, distinct values are not counted."""
    distinct = column["distinct"]
    return distinct is not None and distinct <= 2 and {column["min"], column["max"]} <= {0, 1}


def _check_range(
    columns: Sequence[dict[str, Any]], least: float, most: float, *, pointer: str
) -> None:
    for index, column in enumerate(columns):
        if column["min"] < least or column["max"] > most:
            raise RequestError(
                "preprocessing-unsuitable",
                f"values must be from {least:g} to {most:g}; column {index + 1} of the"
                f" {len(columns)} to model has {column['min']:g} to {column['max']:g}",
                pointer=pointer,
            )
