"""Numbers of many columns to cells, those of columns alike together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.cells import decode_cells, is_whole, level_cells
from tabular.columns import Column

_CELLS_AT_ONCE = 65_536
_TEXT_BYTES_AT_ONCE = 1 << 28

_Numbers = NDArray[np.floating[Any]]
_Places = NDArray[np.intp]


class AlikeColumns:
    """Converter of the numbers of columns to cells.

    To convert a column takes as long as to convert hundreds of cells of it. Of few rows of thousands of columns,
    those are converted as one column whose cells follow from their numbers in the same way.

    Args:
        columns: Types of the columns, none of which is ignored.

    Attributes:
        types: Types of the cells.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        groups: dict[object, list[int]] = {}
        levels = [None if column.holds_values else level_cells(column) for column in columns]
        for place, column in enumerate(columns):
            cells = levels[place]
            key = _values_key(column) if cells is None else cells.type
            groups.setdefault(key, []).append(place)
        self._groups: list[_Values | _Levels] = []
        types: dict[int, pa.DataType] = {}
        for places in groups.values():
            some = [cells for place in places if (cells := levels[place]) is not None]
            where = np.array(places, np.intp)
            group = _Levels.of(where, some) if some else _Values(where, columns[places[0]])
            self._groups.append(group)
            types.update(dict.fromkeys(places, group.type))
        self.types = [types[place] for place in range(len(columns))]

    def cells(self, rows: _Numbers) -> list[pa.Array]:
        """Return the cells of each column.

        Args:
            rows: Rows of shape (n, columns), whose values behind those of the columns are left out.
        """
        cells: list[pa.Array] = [None] * len(self.types)
        for group in self._groups:
            for places, decoded in _decoded(group, rows):
                for start, place in enumerate(places.tolist()):
                    cells[place] = decoded.slice(start * len(rows), len(rows))
        return cells

    def write_values(self, rows: _Numbers, written: NDArray[np.float64]) -> None:
        """Write the cells that are numbers in place of the numbers that stand for them.

        Args:
            rows: Rows of shape (n, columns), as of `cells`.
            written: Rows to write into.
        """
        for group in self._groups:
            if isinstance(group, _Values) and group.column.type != "datetime":
                for places, decoded in _decoded(group, rows):
                    values = decoded.to_numpy(zero_copy_only=False)
                    written[:, places] = values.reshape(places.size, len(rows)).T


def _values_key(column: Column) -> object:
    """Return what the cells of a column follow from, beside its numbers."""
    if column.type == "datetime":
        return column.datetime_format, column.date_only, column.step_s, column.decimals
    return is_whole(column), column.decimals


@dataclass(frozen=True)
class _Values:
    """Columns of values.

    Attributes:
        places: Places of the columns.
        column: Type of one column; the cells of the others are made in the same way.
    """

    places: _Places
    column: Column
    cells_at_once = _CELLS_AT_ONCE

    @property
    def type(self) -> pa.DataType:
        return decode_cells(np.empty(0), self.column).type

    def decoded(self, _chosen: slice, numbers: _Numbers) -> pa.Array:
        """Return the cells of some columns, one column after another."""
        return decode_cells(numbers.reshape(-1), self.column)


@dataclass(frozen=True)
class _Levels:
    """Columns of indices of levels.

    Attributes:
        places: Places of the columns.
        levels: Levels of all columns, one column after another.
        starts: Place of the first level of each.
        counts: Number of levels of each.
        cells_at_once: Cells whose texts fit into one array.
    """

    places: _Places
    levels: pa.Array
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    cells_at_once: int

    @classmethod
    def of(cls, places: _Places, levels: Sequence[pa.Array]) -> "_Levels":
        counts = np.array([len(cells) for cells in levels])
        longest = max((cells.nbytes for cells in levels), default=0)
        at_once = min(_CELLS_AT_ONCE, _TEXT_BYTES_AT_ONCE // max(1, longest))
        starts = np.cumsum(counts) - counts
        return cls(places, pa.concat_arrays(levels), starts, counts, at_once)

    @property
    def type(self) -> pa.DataType:
        return self.levels.type

    def decoded(self, chosen: slice, numbers: _Numbers) -> pa.Array:
        """Return the cells of some columns, one column after another."""
        indices = np.nan_to_num(numbers, nan=-1.0, posinf=-1.0, neginf=-1.0).astype(np.int64)
        known = (indices >= 0) & (indices < self.counts[chosen, None])
        indices += self.starts[chosen, None]
        return self.levels.take(pa.array(indices.reshape(-1), mask=~known.reshape(-1)))


def _decoded(group: _Values | _Levels, rows: _Numbers) -> Iterator[tuple[_Places, pa.Array]]:
    """Yield places of columns with their cells, as many columns at a time as become a bounded array."""
    step = max(1, group.cells_at_once // max(1, len(rows)))
    for start in range(0, group.places.size, step):
        chosen = slice(start, start + step)
        places = group.places[chosen]
        yield places, group.decoded(chosen, np.ascontiguousarray(rows[:, places].T))
