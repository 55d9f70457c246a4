"""Cells of columns to the numbers of a stored table, and back."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.columns import OTHER, UNSEEN, Column, Level
from tabular.dates import format_dates, parse_dates
from tabular.errors import TableError
from tabular.numbers import parse_numbers, round_to
from tabular.words import BLANKS, MISSING_SPELLINGS, TRUTHS

_TEXT = pa.string()
_EXACT = 2.0**53
_MOST_INTEGER = 2.0**63 - 1024  # the largest float64 that an int64 holds
_WANTED = {
    "number": "a number",
    "integer": "a number",
    "datetime": "a date",
}


def encode_cells(cells: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the number of each cell of a column: a value, the index of a level, or not-a-number.

    Args:
        cells: Cells in any Arrow type that stands for the type of the column: text as in a CSV file,
            numbers, booleans, timestamps, dictionaries.

    Returns:
        One number per cell. A level that the column lacks is `UNSEEN`, or the value that is no level
        where levels are numbers.

    Raises:
        TableError: `dataset-dtype`: a cell cannot be one of this type; it names the first such row.
    """
    numbers, bad = try_encode(cells, column)
    if bad.any():
        row = int(bad.argmax()) + 1
        raise TableError(
            "dataset-dtype",
            f"Column {column.name!r}, row {row}: the value is not {_WANTED[column.type]}.",
            column=column.name,
            row=row,
        )
    return numbers


def try_encode(cells: pa.Array, column: Column) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return what `encode_cells` does, and which cells cannot be of this type: they are not-a-number.

    Raises:
        TableError: `dataset-dtype`: the cells are lists, structures or bytes.
    """
    if pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type):
        raise TableError(
            "dataset-dtype",
            f"Column {column.name!r} holds lists, structures or bytes, not single values.",
            column=column.name,
        )
    if pa.types.is_dictionary(cells.type):
        numbers, bad = try_encode(cells.dictionary, column)
        indices = pc.cast(cells.indices, pa.int64())
        places = pc.fill_null(indices, numbers.size).to_numpy(zero_copy_only=False)
        return np.append(numbers, np.nan)[places], np.append(bad, False)[places]
    if column.is_discrete and not (column.holds_values and column.type in _WANTED):
        return _encode_levels(cells, column), np.zeros(len(cells), np.bool_)
    numbers = numbers_of(cells, column)
    bad = np.isnan(numbers) & ~missing_cells(cells, column)
    if column.na_values and not is_text(cells.type):
        numbers = np.where(_named_missing(numbers, column), np.nan, numbers)
    return numbers, bad


def decode_cells(
    numbers: NDArray[np.floating], column: Column, *, levels: pa.Array | None = None
) -> pa.Array:
    """Return cells in the types and texts of the column, null where they are missing.

    Args:
        numbers: Number of each cell, as of `encode_cells`, or as a model samples them.
        levels: Cells of its levels, as of `level_cells`; None to make them.

    Returns:
        An array of strings, float64, int64 or booleans; dates as text.
    """
    if not column.holds_values:
        places = np.nan_to_num(numbers, nan=UNSEEN, posinf=UNSEEN, neginf=UNSEEN).astype(np.int64)
        known = (places >= 0) & (places < column.level_count)
        levels = level_cells(column) if levels is None else levels
        return levels.take(pa.array(places, mask=~known))
    values = np.asarray(numbers, np.float64)
    if column.type == "datetime":
        if column.step_s:
            values = np.rint(values / column.step_s) * column.step_s
        return format_dates(
            values,
            column.datetime_format,
            date_only=column.date_only,
            decimals=column.decimals or 0,
        )
    whole = is_whole(column)
    decimals = 0 if whole else column.decimals
    rounded = values + 0.0 if decimals is None else round_to(values, decimals)
    gaps = np.isnan(rounded)
    if whole:
        # The type of the cells follows from the column alone: a sample may lie beyond any bound.
        known = np.clip(np.where(gaps, 0.0, rounded), -_MOST_INTEGER, _MOST_INTEGER)
        return pa.array(known.astype(np.int64), mask=gaps)
    return pa.array(rounded, mask=gaps)


def recode(
    rows: NDArray[np.floating], source: Sequence[Column], target: Sequence[Column]
) -> NDArray[np.float64]:
    """Return rows of one table as rows of another, whose levels have other indices.

    Args:
        rows: Rows of shape (n, len(source)).
        target: Columns to return, a subset of the same names in any order.

    Raises:
        TableError: `dataset-dtype`: a level cannot be a value of the other column, or one holds dates alone.
    """
    places = {column.name: place for place, column in enumerate(source)}
    recoded = np.empty((len(rows), len(target)))
    for place, column in enumerate(target):
        at = places[column.name]
        recoded[:, place] = _recoded(rows[:, at], source[at], column)
    return recoded


def level_cells(column: Column) -> pa.Array:
    """Return the levels of a column, *other* included, as cells of one type."""
    if not column.levels or column.holds_values:
        return decode_cells(np.array(column.levels, np.float64), column)
    if all(isinstance(level, bool) for level in column.levels):
        return pa.array(column.levels, pa.bool_())
    texts = _texts(column.levels)
    return pa.concat_arrays([texts, pa.array([OTHER], _TEXT)]) if column.other else texts


def _texts(levels: Sequence[Level]) -> pa.Array:
    """Return levels as text; to ask each for its text takes ten times as long where all are."""
    are_texts = set(map(type, levels)) <= {str}
    return pa.array(levels if are_texts else map(level_text, levels), _TEXT)


def level_text(level: Level) -> str:
    """Return a level as text, as a CSV file has it."""
    if isinstance(level, bool):
        return "true" if level else "false"
    if isinstance(level, str):
        return level
    return str(int(level)) if float(level).is_integer() and abs(level) < _EXACT else repr(level)


def as_text(cells: pa.Array) -> pa.Array:
    """Return cells as text without white space and invisible characters around it; whole numbers have no decimals."""
    if pa.types.is_boolean(cells.type):
        return pc.if_else(cells, "true", "false")
    if pa.types.is_floating(cells.type):
        text = pc.cast(pc.cast(cells, pa.float64()), _TEXT)
        return pc.replace_substring_regex(text, r"\.0$", "")
    text = cells if cells.type == _TEXT else pc.cast(cells, _TEXT)
    if pc.all(pc.string_is_ascii(text)).as_py():
        return pc.utf8_trim_whitespace(text)
    return pc.utf8_trim(text, BLANKS)


def folded(text: pa.Array) -> pa.Array:
    """Return texts in lower case with single blanks, by which those are found that differ in nothing else."""
    return pc.utf8_lower(pc.replace_substring_regex(text, r"\s+", " "))


def numbers_of(cells: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the values of cells on a continuous scale, not-a-number where they have none."""
    if is_text(cells.type):
        text = as_text(cells)
        text = pc.if_else(_is_named_missing(text, column), pa.scalar(None, _TEXT), text)
        if column.type == "datetime":
            return _date_numbers(text, column)
        return _parsed(text, column)
    if pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type):
        return timestamps(cells)
    if column.writes_digits and _is_number(cells.type):
        whole = pc.cast(pc.cast(cells, pa.float64(), safe=False), pa.int64(), safe=False)
        return _date_numbers(pc.cast(whole, _TEXT), column)
    if pa.types.is_duration(cells.type) or pa.types.is_time(cells.type):
        return _seconds(cells)
    numbers: NDArray[np.float64] = pc.cast(cells, pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return np.asarray(numbers, np.float64)


def missing_cells(cells: pa.Array, column: Column) -> NDArray[np.bool_]:
    """Return which cells are missing: null, not-a-number, or a text that says so."""
    if is_text(cells.type):
        missing = pc.or_(pc.is_null(cells), _is_named_missing(as_text(cells), column))
    else:
        missing = pc.is_null(cells, nan_is_null=pa.types.is_floating(cells.type))
    return np.asarray(missing.to_numpy(zero_copy_only=False), np.bool_)


def timestamps(cells: pa.Array) -> NDArray[np.float64]:
    """Return seconds since 1970 of timestamps and dates; those without a zone are in UTC."""
    if pa.types.is_date(cells.type):
        cells = pc.cast(cells, pa.timestamp("s" if cells.type == pa.date32() else "ms"))
    return _seconds(cells)


def _seconds(cells: pa.Array) -> NDArray[np.float64]:
    """Return the seconds of timestamps, durations and times of day."""
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[cells.type.unit]
    ticks = pc.cast(cells, pa.int32() if cells.type.bit_width == 32 else pa.int64())
    known = pc.fill_null(ticks, 0).to_numpy(zero_copy_only=False)
    part = np.fmod(known, per_s)  # apart: nanoseconds since 1970 have more digits than a float
    numbers = (known - part) / per_s + part / per_s
    return np.where(pc.is_valid(cells).to_numpy(zero_copy_only=False), numbers, np.nan)


def _encode_levels(cells: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the number of the level of each cell: levels are compared as text, then by value."""
    numbers = np.full(len(cells), _unseen(column))
    if _is_number(cells.type):
        values = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        found = _by_value(np.asarray(values, np.float64), column)
        long = np.abs(values) >= _EXACT
        if pa.types.is_integer(cells.type) and long.any():  # only their digits tell these apart
            texts = cells.filter(pa.array(long))
            found[long] = _by_text(texts, column, values=np.full(len(texts), np.nan))
        if column.holds_values:
            numbers = np.asarray(values, np.float64).copy()
    else:
        values = _text_values(cells, column)
        found = _by_text(cells, column, values=values)
        if column.holds_values:
            numbers = np.where(np.isnan(values), numbers, values)
    numbers[missing_cells(cells, column)] = np.nan
    known = found >= 0
    numbers[known] = np.array(column.level_numbers)[found[known]]
    return numbers


def _unseen(column: Column) -> float:
    """Return the number of a level that the column lacks."""
    if column.other:
        return column.level_count - 1.0
    levels = column.level_numbers
    return min(levels) - 1.0 if UNSEEN in levels else UNSEEN


def _text_values(cells: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the value of each text as one of the column's type, not-a-number where it has none."""
    text = as_text(cells)
    if column.type == "boolean":
        place = _places(pc.index_in(pc.utf8_lower(text), value_set=pa.array(TRUTHS)))
        return np.where(place < 0, np.nan, place % 2)
    return _parsed(text, column)


def _parsed(text: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the values of numbers in the style of a column, or without its affix and groups, as samples are."""
    values = parse_numbers(text, column)
    if column.has_plain_numbers or not np.isnan(values).any():
        return values
    bare = Column(name="", decimal=column.decimal)
    return np.where(np.isnan(values), parse_numbers(text, bare), values)


def _by_text(cells: pa.Array, column: Column, *, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the level of each text, or else of its value; -1 where there is none."""
    levels = level_cells(column)
    texts = levels if levels.type == _TEXT else _texts(levels.to_pylist())
    spelled, known = as_text(cells), as_text(texts)
    if column.merged:
        spelled, known = folded(spelled), folded(known)
    found = _places(pc.index_in(spelled, value_set=known))
    if not (found[~np.isnan(values)] < 0).any():
        return found
    return np.where(found < 0, _by_value(values, column), found)


def _by_value(values: NDArray[np.float64], column: Column) -> NDArray[np.int64]:
    """Return the index of the level with each value, -1 where there is none or several."""
    numbers = _values(column)
    if numbers is None:
        return np.full(values.size, -1)
    order = np.argsort(numbers, kind="stable")
    levels = numbers[order]
    first = np.minimum(np.searchsorted(levels, values, side="left"), levels.size - 1)
    last = np.searchsorted(levels, values, side="right") - 1
    return np.where((levels[first] == values) & (first == last), order[first], -1)


def _values(column: Column) -> NDArray[np.float64] | None:
    """Return the value of each level, not-a-number where it has none; None where none has one."""
    if column.type == "boolean":
        texts = [level_text(level).lower() for level in column.levels]
        values = np.array([TRUTHS.index(t) % 2 if t in TRUTHS else np.nan for t in texts])
    else:
        values = parse_numbers(pc.utf8_trim_whitespace(_texts(column.levels)))
    return None if np.isnan(values).all() else values


def _recoded(numbers: NDArray[np.floating], source: Column, target: Column) -> NDArray[np.float64]:
    if source.holds_values:
        values = np.asarray(numbers, np.float64)
        if not target.holds_values:
            return encode_cells(decode_cells(values, source), target)
        if (source.type == "datetime") != (target.type == "datetime"):  # whose numbers are seconds
            raise TableError(
                "dataset-dtype",
                f"Column {source.name!r} holds dates in one table and numbers in the other.",
                column=source.name,
            )
        return values
    levels = encode_cells(level_cells(source), target)
    unseen = _unseen(target) if target.is_discrete else np.nan
    places = np.where(np.isnan(numbers), levels.size, numbers).astype(np.int64)
    known = np.append(levels, np.nan)
    return np.where(places < 0, unseen, known[np.clip(places, 0, levels.size)])


def _date_numbers(text: pa.Array, column: Column) -> NDArray[np.float64]:
    """Return the seconds of texts in the format of the column, or in ISO 8601."""
    seconds = parse_dates(text, column.datetime_format, first_year=column.first_year)
    if column.datetime_format is None or not np.isnan(seconds).any():
        return seconds
    return np.where(np.isnan(seconds), parse_dates(text), seconds)


def _named_missing(numbers: NDArray[np.float64], column: Column) -> NDArray[np.bool_]:
    """Return which numbers are spelled by one of the texts that mean a missing cell."""
    named = parse_numbers(pa.array([text.strip() for text in column.na_values], _TEXT))
    return np.isin(numbers, named[~np.isnan(named)])


def _is_named_missing(text: pa.Array, column: Column) -> pa.Array:
    names = [*MISSING_SPELLINGS, *(name.strip() for name in column.na_values)]
    return pc.is_in(text, value_set=pa.array(names, _TEXT))


def _places(found: pa.Array) -> NDArray[np.int64]:
    places = pc.fill_null(pc.cast(found, pa.int64()), -1).to_numpy(zero_copy_only=False)
    return np.asarray(places, np.int64)


def is_text(kind: pa.DataType) -> bool:
    """Return whether cells of a type are texts."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_whole(column: Column) -> bool:
    """Return whether all values of a column are whole numbers."""
    if column.levels and column.type != "integer":
        return all(
            float(level).is_integer() and abs(float(level)) <= _EXACT for level in column.levels
        )
    return column.type == "integer"
