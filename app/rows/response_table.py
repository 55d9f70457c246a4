"""Head and chunks of a response of rows, the same for every format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from app.rows.model_types import ModelTypes, RowWarnings
from app.rows.shape import Floats
from tabular.typed_rows import TypedRows

Codes = NDArray[np.uint8] | NDArray[np.uint16]
"""What is wrong with each row: `FINE`, another of these, or `MISSING` + the place of a column."""

FINE, NON_FINITE, NON_FINITE_INPUT, MISSING = 0, 1, 2, 3

_DETAILS = {
    NON_FINITE: (
        "non_finite",
        "The result is not finite: the row is too far from the data of the model.",
    ),
    NON_FINITE_INPUT: ("non_finite_input", "The row has a missing, NaN or infinite value."),
}


@dataclass(frozen=True)
class Part:
    """Member of a JSON response.

    Args:
        name: Name of the member.
        start: First value of a row that belongs to it.
        stop: Value after its last one; None for one value a row instead of a list of values.
        keys: Names of the values of a row, which is an object then; None: it is a list.
    """

    name: str
    start: int
    stop: int | None
    keys: Sequence[str] | None = None

    def of(self, values: Floats) -> Floats:
        """Return the values of the member."""
        return values[:, self.start] if self.stop is None else values[:, self.start : self.stop]


@dataclass(frozen=True)
class ResponseTable:
    """Head of a response: all but the rows.

    Args:
        columns: Names of the values of a row.
        parts: Members of a JSON response that hold the values.
        rows: Number of rows.
        dtype: Type of the values.
        members: Further members of a JSON response.
        explains: True to add the reasons of rows that are not finite.
        flat: True for an npy array of one dimension, of the only column.
        typed: Converter of rows to cells; None: the response holds numbers.
        drops_zeros: True to write whole numbers without decimals in text, 42 for 42.0.
        inputs: Names of the columns of the rows that the response is about, for its errors and warnings.
        warnings: Warnings about single rows; None for a model without types, which has none.
    """

    columns: Sequence[str]
    parts: Sequence[Part]
    rows: int
    dtype: np.dtype[Any]
    members: Mapping[str, Any]
    explains: bool = True
    flat: bool = False
    typed: TypedRows | None = None
    drops_zeros: bool = False
    inputs: Sequence[str] = ()
    warnings: RowWarnings | None = None

    @property
    def text_bytes(self) -> int:
        """Most bytes of the names and texts of a row."""
        texts = 0 if self.typed is None else self.typed.text_bytes
        return texts + sum(map(len, self.columns))

    def batch(self, chunk: "Chunk") -> pa.RecordBatch:
        """Return the cells of some rows, of a response that holds cells."""
        assert self.typed is not None  # noqa: S101  it holds cells
        return self.typed.batch(chunk.values) if chunk.cells is None else chunk.cells


@dataclass(frozen=True)
class Chunk:
    """Some rows of a response.

    Args:
        values: Array of shape (rows, columns).
        codes: Code of what is wrong with each row; None where all are finite.
        cells: The same rows in the types and texts of a table, where they are there already.
    """

    values: Floats
    codes: Codes | None = None
    cells: pa.RecordBatch | None = None

    def part(self, start: int, stop: int) -> "Chunk":
        """Return the rows from `start` to before `stop`."""
        codes = None if self.codes is None else self.codes[start:stop]
        cells = None if self.cells is None else self.cells.slice(start, stop - start)
        return Chunk(self.values[start:stop], codes, cells)

    @classmethod
    def of(
        cls,
        values: Floats,
        inputs: Floats | None = None,
        *,
        types: ModelTypes | None = None,
        checked: int | None = None,
    ) -> "Chunk":
        """Return rows with the reasons of those that are not finite.

        Args:
            values: Rows of shape (n, columns).
            inputs: The n rows that the values were computed from.
            types: Types of the columns of `inputs`; None: all are plain numbers.
            checked: Number of values of a row that must be finite, the first ones; None: all.
        """
        if np.isfinite(values).all():
            return cls(values)
        bad = _bad_rows(values[:, :checked])
        codes: Codes = np.where(bad, np.uint8(NON_FINITE), np.uint8(FINE))
        if inputs is not None:
            codes[bad & _bad_rows(inputs)] = NON_FINITE_INPUT
            if types is not None:
                codes = _naming_gaps(codes, inputs, types)
        return cls(values, codes)

    @classmethod
    def of_samples(cls, values: Floats, types: ModelTypes) -> "Chunk":
        """Return samples, in which a gap is a value where training had gaps."""
        places = [place for place in range(values.shape[1]) if not types.columns[place].missing]
        bad = np.isinf(values).any(axis=1) | np.isnan(values[:, places]).any(axis=1)
        return cls(
            values, np.where(bad, np.uint8(NON_FINITE), np.uint8(FINE)) if bad.any() else None
        )


def _bad_rows(values: Floats) -> NDArray[np.bool_]:
    """Return a mask of the rows with a value that is not finite."""
    return np.logical_not(np.isfinite(values).all(axis=1))


def _naming_gaps(codes: Codes, inputs: Floats, types: ModelTypes) -> Codes:
    """Return codes that name the first column with a gap where training had none."""
    named = codes.astype(np.uint16)
    places = np.array(
        [place for place, column in enumerate(types.gaps) if not column.missing], np.intp
    )
    rows = np.flatnonzero(codes)
    gaps = np.isnan(inputs[np.ix_(rows, places)])
    some = gaps.any(axis=1)
    if some.any():
        named[rows[some]] = MISSING + places[gaps[some].argmax(axis=1)]
    # What the model knows gaps of is not to blame: the result is too far from its data.
    explained = ~some & ~np.isinf(inputs[rows]).any(axis=1)
    named[rows[explained]] = NON_FINITE
    return named


def row_errors(codes: Codes, *, start: int, inputs: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the entries of `row_errors` for the rows from `start` on.

    Args:
        codes: Codes of the rows.
        start: Number of the first row.
        inputs: Names of the columns that the codes may name.
    """
    for index in np.flatnonzero(codes).tolist():
        number = int(codes[index])
        if number >= MISSING:
            name = inputs[number - MISSING]
            detail = (
                f"The row has no value of {name!r}, which no training row lacked. With"
                ' `missing: "any"` a model is trained to score rows with any values missing.'
            )
            yield {
                "row": start + index,
                "code": "non_finite_input",
                "column": name,
                "detail": detail,
            }
        else:
            code, detail = _DETAILS[number]
            yield {"row": start + index, "code": code, "detail": detail}
