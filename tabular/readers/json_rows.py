"""Parsed rows of JSON, as numbers or as cells."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.json.members import Members
from tabular.source import (
    Columns,
    NotNumbersError,
    check_columns,
    clean_names,
    default_names,
    rows_per_chunk,
)

_NUMBERS: Final = frozenset({int, float})
_NUMBERS_AND_NULL: Final = _NUMBERS | {type(None)}
_JSON_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}


class JsonRows:
    """Converter of parsed rows of one table to numbers.

    Attributes:
        names: Names of the columns.
        keys: Keys of the columns in rows that are objects; None: rows are lists.
        named: True where the table gives the names itself.
        rows: Number of rows converted so far.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        keys: Sequence[str] | None,
        named: bool = True,
        nested: frozenset[int] | None = None,
    ) -> None:
        """Take the form of the rows.

        Args:
            names: Names of the columns.
            keys: Keys of the columns in rows that are objects; None: rows are lists.
            named: True where the table gives the names itself.
            nested: Positions of columns of lists and objects, whose cells are null; also the members
                that objects lack are. None: neither is accepted.
        """
        self.names = list(names)
        self.named = named
        self.rows = 0
        self.keys = keys
        self.nested = nested or frozenset()
        self.has_gaps = nested is not None

    @classmethod
    def of(
        cls,
        first: object,
        *,
        names: list[str] | None,
        options: ParseOptions,
        clean: Callable[[list[str]], list[str]] = clean_names,
    ) -> "JsonRows":
        """Return the converter for rows that are all as the first one, which is not converted yet.

        Args:
            first: First row of the table.
            names: Names of the columns, if the table gives them.
            options: Bounds of the table's size.
            clean: Function that checks or mends the names.

        Raises:
            TableError: The first is no row, or the names are bad.
        """
        if not isinstance(first, dict | list):
            raise _misshapen(1, "is neither a list nor an object")
        check_columns(len(first), options=options)
        keys = list(first) if isinstance(first, dict) else None
        given = names if keys is None else keys
        if given is None:
            return cls(default_names(len(first)), keys=None, named=False)
        if len(given) != len(first):
            raise TableError(
                "dataset-shape", f"There are {len(given)} names, but row 1 has {len(first)} values."
            )
        return cls(clean(given), keys=keys)

    def values(self, rows: list[Any]) -> NDArray[np.float64]:
        """Return parsed rows as an array of shape (rows, columns), nulls as not-a-number.

        Args:
            rows: At least one row; those that follow the rows converted before.

        Raises:
            TableError: Naming the row, and the column where it can.
        """
        if self.are_sparse(rows):
            return self._sparse_values(rows)
        lists = self.lists(rows)
        if not set(map(type, chain.from_iterable(lists))) <= _NUMBERS_AND_NULL:
            raise self._not_a_number(lists)
        width = len(self.names)
        try:
            flat = np.fromiter(chain.from_iterable(lists), np.float64, len(lists) * width)
        except OverflowError:
            raise _too_large() from None
        self.rows += len(rows)
        return flat.reshape(len(lists), width)

    def lists(self, rows: list[Any]) -> list[list[Any]]:
        """Return parsed rows as one list of cells each, in the order of the columns.

        Raises:
            TableError: Naming the row that is no such list or object.
        """
        return self._lists(rows) if self.keys is None else self._ordered(rows, self.keys)

    def are_sparse(self, rows: list[Any]) -> bool:
        """Return whether rows that may lack members lack most of them: a list of the cells of each costs too much."""
        if self.keys is None or not self.has_gaps:
            return False
        have = sum(len(row) for row in rows if type(row) is dict)
        return 2 * have < len(rows) * len(self.keys)

    def members(self, rows: list[Any], places: Sequence[int] | None = None) -> Members:
        """Return the cells that parsed rows have, of objects.

        Args:
            rows: Rows that follow the rows converted before.
            places: Positions of the wanted columns; None: all.

        Raises:
            TableError: As of `lists`.
        """
        keys = self.keys or ()
        wanted = range(len(keys)) if places is None else places
        place_of = {keys[place]: at for at, place in enumerate(wanted)}
        cells: dict[int, tuple[list[int], list[Any]]] = {}
        for index, row in enumerate(rows):
            if type(row) is not dict or len(row) > len(keys):
                self._check_object(row, self.rows + index + 1)
            for key, cell in row.items():
                at = place_of.get(key)
                if at is not None:
                    own_rows, own_cells = cells.get(at) or cells.setdefault(at, ([], []))
                    own_rows.append(index)
                    own_cells.append(cell)
        return Members(len(rows), rows_per_chunk(len(keys)), cells)

    def cells(self, rows: list[Any], text: frozenset[int]) -> pa.RecordBatch:
        """Return parsed rows as columns of numbers, booleans or text.

        Args:
            rows: At least one row; those that follow the rows converted before.
            text: Positions of the columns that hold more than numbers.

        Raises:
            NotNumbersError: Another column holds more than numbers.
            TableError: Naming the row, and the column where it can.
        """
        lists = self.lists(rows)
        columns = [
            self._cells(place, list(map(itemgetter(place), lists)), text=place in text)
            for place in range(len(self.names))
        ]
        self.rows += len(rows)
        return pa.record_batch(columns, names=[str(place) for place in range(len(columns))])

    def _cells(self, place: int, values: list[Any], *, text: bool) -> pa.Array:
        kinds = set(map(type, values))
        if place in self.nested:
            return pa.nulls(len(values), pa.string())
        if kinds & {list, dict}:
            row = next(row for row, value in enumerate(values) if type(value) in {list, dict})
            name = self.names[place]
            raise TableError(
                "dataset-dtype",
                f"Column {name!r}, row {self.rows + row + 1}: the value is"
                f" {_JSON_TYPES[type(values[row])]}, not a single value.",
                column=name,
                row=self.rows + row + 1,
            )
        if kinds <= _NUMBERS_AND_NULL and not text:
            try:
                return pa.array(values, pa.float64())
            except (OverflowError, pa.ArrowInvalid):  # whole numbers that are not exact
                return pa.array([None if v is None else _as_float(v) for v in values], pa.float64())
        if not text:
            raise NotNumbersError(place)
        if kinds <= {bool, type(None)}:
            return pa.array(values, pa.bool_())
        return pa.array([_as_text(value) for value in values], pa.string())

    def columns(self, rows: list[Any]) -> Columns:
        """Return what `values` does, column by column."""
        return np.ascontiguousarray(self.values(rows).T)

    def look_at(self, rows: list[Any]) -> tuple[frozenset[int], frozenset[int]]:
        """Return the columns that hold more than numbers in some rows, and those of lists and objects.

        Of the latter most cells are such; a single one is a fault.
        """
        text, nested = set(), set()
        for place, cells in self._by_column(rows):
            kinds = Counter(map(type, cells))
            if not kinds.keys() <= _NUMBERS_AND_NULL:
                text.add(place)
            inside = kinds[list] + kinds[dict]
            if inside and 2 * inside > kinds.total() - kinds[type(None)]:
                nested.add(place)
        return frozenset(text), frozenset(nested)

    def _by_column(self, rows: list[Any]) -> Iterator[tuple[int, Iterable[Any]]]:
        """Yield columns with their cells; what rows lack may be left out, or null."""
        if self.are_sparse(rows):
            for place, (_, cells) in self.members(rows).cells.items():
                yield place, cells
            return
        lists = self.lists(rows)
        for place in range(len(self.names)):
            yield place, map(itemgetter(place), lists)

    def _sparse_values(self, rows: list[Any]) -> NDArray[np.float64]:
        """Return what `values` does of rows that lack most members."""
        cells = self.members(rows).cells
        if not set(map(type, chain.from_iterable(own for _, own in cells.values()))) <= (
            _NUMBERS_AND_NULL
        ):
            raise self._not_a_number(self.lists(rows))
        values = np.full((len(rows), len(self.names)), np.nan)
        try:
            for place, (own_rows, own) in cells.items():
                values[own_rows, place] = np.array(own, np.float64)
        except OverflowError:
            raise _too_large() from None
        self.rows += len(rows)
        return values

    def _lists(self, rows: list[Any]) -> list[list[Any]]:
        width = len(self.names)
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not list:
                raise _misshapen(index, "is not a list of numbers")
            if len(row) != width:
                raise _misshapen(index, f"has {_values(len(row))} instead of {width}")
        return rows

    def _ordered(self, rows: list[Any], keys: Sequence[str]) -> list[Any]:
        get = itemgetter(*keys) if len(keys) > 1 else lambda row: (row[keys[0]],)
        ordered = []
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not dict:
                raise _no_object(index)
            try:
                ordered.append(get(row))
            except KeyError:
                if not self.has_gaps:
                    raise self._missing(row, index, keys) from None
                ordered.append(tuple(map(row.get, keys)))
                continue
            if len(row) != len(keys):
                raise _has_more(row, index, keys)
        return ordered

    def _check_object(self, row: object, index: int) -> None:
        """Refuse a row that is no object, or that has all members and others."""
        if type(row) is not dict:
            raise _no_object(index)
        keys = self.keys or ()
        if len(row) > len(keys) and all(key in row for key in keys):
            raise _has_more(row, index, keys)

    def _missing(self, row: dict[str, Any], index: int, keys: Sequence[str]) -> TableError:
        name = next(name for key, name in zip(keys, self.names, strict=True) if key not in row)
        return TableError(
            "dataset-shape", f"Row {index} lacks the column {name!r}.", column=name, row=index
        )

    def _not_a_number(self, lists: list[list[Any]]) -> TableError:
        row, column, value = next(
            (row, column, value)
            for row, values in enumerate(lists, self.rows + 1)
            for column, value in enumerate(values)
            if type(value) not in _NUMBERS_AND_NULL
        )
        name = self.names[column]
        return TableError(
            "dataset-dtype",
            f"Column {name!r}, row {row}: the value is {_JSON_TYPES[type(value)]}, not a number.",
            column=name,
            row=row,
        )


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise _too_large() from None


def _as_text(value: str | float | bool | None) -> str | None:  # noqa: FBT001 - a value of JSON
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def _misshapen(row: int, reason: str) -> TableError:
    return TableError("dataset-shape", f"Row {row} {reason}.", row=row)


def _no_object(row: int) -> TableError:
    return _misshapen(row, "is not an object keyed by column")


def _has_more(row: dict[str, Any], index: int, keys: Sequence[str]) -> TableError:
    return _misshapen(index, f"has {len(row)} members; row 1 has {len(keys)}")


def _too_large() -> TableError:
    return TableError("dataset-nonfinite", "A number is too large for a 64-bit float.")
