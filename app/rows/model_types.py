"""Types of the columns of a model, prepared once for all requests to it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_store.records import Version
from tabular.cells import level_text, try_encode
from tabular.columns import UNSEEN, Column
from tabular.typed_rows import JsonCell, TypedRows, encode_rows, json_cells

MAX_ROW_WARNINGS = 1000
"""Most warnings about single rows that a response lists."""

_Numbers = NDArray[np.floating[Any]]

_MAX_MODELS = 64
_BLOCK_VALUES = 1 << 20
_EXACT = 2.0**53
_MAX_LENGTH = 128
_MAX_WHOLE = 10**300
_NUMBERS = frozenset({int, float, type(None)})
_TEXTS = frozenset({str, type(None)})
_SHOWN_ROWS = 20
_DETAILS = {
    "unseen_level": "Training never saw this level; its small probability makes the row unlikely.",
    "infinite": "This number is infinite, and counts as missing.",
}

_prepared: "OrderedDict[str, ModelTypes]" = OrderedDict()
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
            return _prepared[key]
    columns = tuple(Column.from_dict(column) for column in version.types)
    types = ModelTypes(columns, dim=version.dim, any_gaps=version.flow.get("missing") == "any")
    with _lock:
        _prepared[key] = types
        if len(_prepared) > _MAX_MODELS:
            _prepared.popitem(last=False)
    return types


class Roundings:
    """Decimals of samples of plain numbers, which text shows as the data do.

    Args:
        columns: Columns of the samples, of which some have decimals.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        decimals = [column.decimals for column in columns]
        self.some_whole = 0 in decimals
        self._all_whole = set(decimals) == {0}
        self._scales: NDArray[np.float64] = np.array([10.0 ** (number or 0) for number in decimals])
        self._free = np.array([at for at, n in enumerate(decimals) if n is None], np.intp)

    def apply(self, rows: _Numbers) -> NDArray[Any]:
        """Return rows of shape (n, columns) with the decimals of their columns, without -0.

        They are integers where all are whole numbers, which are written faster.
        """
        rounded: NDArray[Any] = np.asarray(rows, np.float64) * self._scales
        np.rint(rounded, out=rounded)
        rounded /= self._scales
        rounded += 0.0
        if self._free.size:
            rounded[:, self._free] = rows[:, self._free]
        if self._all_whole and np.abs(rounded).max(initial=0.0) < _EXACT:
            return rounded.astype(np.int64)
        return rounded


class CellCodes:
    """Converter of rows of JSON to numbers, which looks up the texts that it has seen before.

    To make numbers of texts takes a library of columns some tenths of a millisecond a column, however
    few they are. It is safe in threads.

    Args:
        most_texts: Number of texts that are kept.
    """

    def __init__(self, columns: Sequence[Column], *, most_texts: int = 10_000) -> None:
        self._columns, self._most_texts = columns, most_texts
        self._known: list[dict[JsonCell, float]] = [{} for _ in columns]
        self._count = 0

    def rows(self, rows: Sequence[Sequence[JsonCell]], *, before: int = 0) -> NDArray[np.float64]:
        """Return rows of cells as rows of numbers.

        Args:
            rows: Rows of as many cells as there are columns.

        Raises:
            TableError: ``dataset-dtype``, naming the first bad column and its first bad row.
        """
        numbers = np.empty((len(rows), len(self._columns)))
        for place in range(len(self._columns)):
            found = self._column([row[place] for row in rows], place)
            if found is None:  # something is wrong, or nearly so: that is said by who looks closely
                return encode_rows(rows, self._columns, before=before)
            numbers[:, place] = found
        return numbers

    def _column(
        self, values: list[JsonCell], place: int
    ) -> Sequence[float] | NDArray[np.float64] | None:
        column, kinds = self._columns[place], set(map(type, values))
        stand_for_themselves = column.holds_values and not (
            column.na_values or column.writes_digits
        )
        if kinds <= _NUMBERS and stand_for_themselves:
            whole = (value for value in values if isinstance(value, int))
            fits = int not in kinds or all(abs(value) < _MAX_WHOLE for value in whole)
            return np.array(values, np.float64) if fits else None
        if not kinds <= _TEXTS:
            if column.holds_values or kinds & {list, dict}:
                return None
            values = [value if value is None else level_text(value) for value in values]
        known = self._known[place]
        if not known.keys() >= set(values):
            fresh = self._encoded(values, place)
            return None if fresh is None else [fresh[value] for value in values]
        return [known[value] for value in values]

    def _encoded(self, values: list[JsonCell], place: int) -> dict[JsonCell, float] | None:
        """Return the numbers of some texts, which are remembered; None where one has none."""
        unique = list(dict.fromkeys(values))
        numbers, bad = try_encode(json_cells(unique), self._columns[place])
        if bad.any():
            return None
        fresh = dict(zip(unique, numbers.tolist(), strict=True))
        short = [text for text in unique if text is None or len(str(text)) <= _MAX_LENGTH]
        if self._count + len(short) > self._most_texts:
            self._known = [{} for _ in self._columns]
            self._count = 0
        if len(short) <= self._most_texts:
            self._known[place].update((text, fresh[text]) for text in short)
            self._count += len(short)
        return fresh


@dataclass(frozen=True)
class ModelTypes:
    """Types of the columns of a row: those that the model describes, then its context.

    Args:
        columns: Types of the columns, in the order of a row.
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
        columns = self.columns[: self.dim]
        return Roundings(columns) if any(c.decimals is not None for c in columns) else None

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


class RowWarnings:
    """Cells whose levels training never saw, and infinite ones that count as gaps.

    Args:
        rows: Rows of numbers, of shape (n, columns).

    Attributes:
        count: Number of all; the first ones are listed.
    """

    def __init__(self, types: ModelTypes, rows: _Numbers) -> None:
        self._columns = types.columns
        unseen, infinite = types.unseen(rows), types.infinite(rows)
        told = unseen | infinite
        self.count = int(np.count_nonzero(told))
        places = np.argwhere(told)[:MAX_ROW_WARNINGS].tolist() if self.count else []
        self._cells = [
            (row, place, "infinite" if infinite[row, place] else "unseen_level")
            for row, place in places
        ]

    def listed(self) -> list[dict[str, Any]]:
        """Return the entries of `row_warnings`."""
        return [
            {
                "row": row,
                "column": self._columns[place].name,
                "code": code,
                "detail": _DETAILS[code],
            }
            for row, place, code in self._cells
        ]

    @property
    def header(self) -> str:
        """Number of the cells, and the first rows that have some, for a response that is no JSON."""
        rows = dict.fromkeys(row for row, *_ in self._cells)
        first = " ".join(str(row) for row, _ in zip(rows, range(_SHOWN_ROWS), strict=False))
        return f'{self.count};rows="{first}"' if self.count else "0"
