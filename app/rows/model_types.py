"""Types of the columns of a model, prepared once for all requests to it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.rows.cell_codes import CellCodes
from app.rows.roundings import Roundings
from models_store.records import Version
from tabular.columns import UNSEEN, Column
from tabular.typed_rows import TypedRows

MAX_ROW_WARNINGS = 1000
"""Most warnings about single rows that a response lists."""

_Numbers = NDArray[np.floating[Any]]

_MAX_MODELS = 64
_MAX_BYTES = 32 * 2**20  # of the rows of their versions: levels may take megabytes
_BLOCK_VALUES = 1 << 20

_prepared: "OrderedDict[str, tuple[ModelTypes, int]]" = OrderedDict()
_lock = Lock()  # rows are read on the event loop, and those of jobs in threads


def types_of(version: Version) -> "ModelTypes | None":
    """Return the types of a version's columns; None for a model of plain numbers."""
    types = known_types_of(version)
    return None if types is None or types.are_plain else types


def known_types_of(version: Version) -> "ModelTypes | None":
    """Return the types of a version's columns; None for one from before types were recorded."""
    if version.types is None:
        return None
    key = version.checkpoint_key
    with _lock:
        if key in _prepared:
            _prepared.move_to_end(key)
            return _prepared[key][0]
    types = _prepare(version, version.types)
    with _lock:
        _prepared[key] = types, version.row_bytes
        while len(_prepared) > _MAX_MODELS or _kept_bytes() > _MAX_BYTES:
            _prepared.popitem(last=False)
    return types


def _kept_bytes() -> int:
    return sum(size for _, size in _prepared.values())


def _prepare(version: Version, fields: list[dict[str, Any]]) -> "ModelTypes":
    columns = tuple(Column.from_dict(column) for column in fields)
    any_gaps = version.flow.get("missing") == "any"
    return ModelTypes(columns, dim=version.dim, any_gaps=any_gaps)


@dataclass(frozen=True)
class ModelTypes:
    """Types of the columns of a row: those that the model describes, then its context.

    Args:
        columns: Types of the columns, in the order of a row.
        dim: Number of columns that the model describes.
        any_gaps: True if the model scores rows with gaps that training did not have.
    """

    columns: tuple[Column, ...]
    dim: int
    any_gaps: bool = False

    @cached_property
    def are_plain(self) -> bool:
        """True if all columns are plain numbers, in rows of any format."""
        return all(column.is_plain for column in self.columns)

    @cached_property
    def roundings(self) -> Roundings | None:
        """Decimals of samples; None if there are none to round to."""
        return Roundings.of(self.columns[: self.dim])

    @cached_property
    def are_numbers(self) -> bool:
        """True if every cell that is a number stands for itself."""
        return all(c.holds_values and not (c.na_values or c.writes_digits) for c in self.columns)

    @cached_property
    def has_codes(self) -> bool:
        """True if numbers of some column are indices of its levels."""
        return not all(column.holds_values for column in self.columns)

    @cached_property
    def gaps(self) -> tuple[Column, ...]:
        """Columns in which `missing` says whether a row without a value has a score."""
        if not self.any_gaps:
            return self.columns
        return tuple(replace(column, missing=True) for column in self.columns)

    @cached_property
    def samples(self) -> TypedRows:
        """Converter of samples to cells."""
        return TypedRows(self.columns[: self.dim])

    @cached_property
    def codes(self) -> CellCodes:
        """Converter of rows of JSON to numbers."""
        return CellCodes(self.columns)

    @property
    def context(self) -> Sequence[Column]:
        """Types of the columns of the context."""
        return self.columns[self.dim :]

    def unseen(self, inputs: _Numbers) -> NDArray[np.bool_]:
        """Return a mask of the cells whose levels training never saw; infinite ones are none.

        Args:
            inputs: Rows of shape (n, columns).
        """
        found = np.zeros(inputs.shape, np.bool_)
        found[:, self._coded] = inputs[:, self._coded] == UNSEEN
        for places, levels in self._levels:
            step = max(1, _BLOCK_VALUES // levels.size)
            for start in range(0, len(inputs), step):
                cells = inputs[start : start + step, places]
                known = ~np.isfinite(cells) | (cells[:, :, None] == levels).any(axis=2)
                found[start : start + step, places] = ~known
        return found

    def infinite(self, inputs: _Numbers) -> NDArray[np.bool_]:
        """Return a mask of the infinite cells that count as gaps.

        Args:
            inputs: Rows of shape (n, columns).
        """
        return np.isinf(inputs) & np.array([column.missing for column in self.gaps], np.bool_)

    @cached_property
    def _coded(self) -> NDArray[np.intp]:
        """Places of the columns whose numbers are indices of levels."""
        return np.array(
            [place for place, c in enumerate(self.columns) if not c.holds_values], np.intp
        )

    @cached_property
    def _levels(self) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        """Places of columns whose levels are numbers, and their levels, by about how many these are."""
        by_size: dict[int, list[int]] = {}
        for place, column in enumerate(self.columns):
            if column.levels and column.holds_values:
                by_size.setdefault(len(column.levels).bit_length(), []).append(place)
        return [(np.array(places, np.intp), self._padded(places)) for places in by_size.values()]

    def _padded(self, places: list[int]) -> NDArray[np.float64]:
        """Return the levels of some columns, a row each, which ends with not-a-number."""
        levels = [self.columns[place].level_numbers for place in places]
        padded = np.full((len(places), max(map(len, levels))), np.nan)
        for row, numbers in zip(padded, levels, strict=True):
            row[: len(numbers)] = numbers
        return padded


@dataclass(eq=False)
class RowWarnings:
    """Cells whose levels training never saw, and infinite ones that count as gaps.

    Attributes:
        count: Number of all; the first ones are listed.

    Args:
        types: Types of the columns of the rows.
    """

    types: ModelTypes
    count: int = 0

    def __post_init__(self) -> None:
        self._cells: list[tuple[int, int, str]] = []

    def add(self, inputs: _Numbers, *, start: int) -> None:
        """Count such cells of some rows.

        Args:
            inputs: Rows of numbers, of shape (n, columns).
            start: Number of the first row.
        """
        unseen, infinite = self.types.unseen(inputs), self.types.infinite(inputs)
        told = unseen | infinite
        count = int(np.count_nonzero(told))
        self.count += count
        room = MAX_ROW_WARNINGS - len(self._cells)
        if count and room:
            for row, place in np.argwhere(told)[:room].tolist():
                code = "infinite" if infinite[row, place] else "unseen_level"
                self._cells.append((start + row, place, code))

    def listed(self) -> list[dict[str, Any]]:
        """Return the entries of `row_warnings`."""
        columns = self.types.columns
        return [
            {"row": row, "column": columns[place].name, "code": code, "detail": _DETAILS[code]}
            for row, place, code in self._cells
        ]

    @property
    def header(self) -> str:
        """Number of the cells, and the first rows that have some, for a response that is no JSON."""
        rows = dict.fromkeys(row for row, *_ in self._cells)
        first = " ".join(str(row) for row, _ in zip(rows, range(_SHOWN_ROWS), strict=False))
        return f'{self.count};rows="{first}"' if self.count else "0"


_SHOWN_ROWS = 20
_DETAILS = {
    "unseen_level": "Training never saw this level; its small probability makes the row unlikely.",
    "infinite": "This number is infinite, and counts as missing.",
}
