"""Responses of rows: their head and chunks, and an encoder for each format."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from app.rows.model_types import ModelTypes, RowWarnings
from app.rows.shape import Floats
from tabular.typed_rows import TypedRows
from tabular.writers import Encoded, NpyTable, TableHead, TableWriter, json_numbers

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


class ResponseTable(NamedTuple):
    """Head of a response: all but the rows.

    Args:
        parts: Members of a JSON response that hold the values.
        members: Further members of a JSON response.
        explains: True to add the reasons of rows that are not finite.
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
    typed: TypedRows | None = None
    drops_zeros: bool = False
    inputs: Sequence[str] = ()
    warnings: RowWarnings | None = None

    def batch(self, chunk: "Chunk") -> pa.RecordBatch:
        """Return the cells of some rows, of a response that holds cells."""
        assert self.typed is not None  # noqa: S101  it holds cells
        return self.typed.batch(chunk.values) if chunk.cells is None else chunk.cells


class Chunk(NamedTuple):
    """Some rows of a response.

    Args:
        values: Array of shape (rows, columns).
        codes: Code of what is wrong with each row; None where all are finite.
        cells: The same rows in the types and texts of a table, where they are there already.
    """

    values: Floats
    codes: Codes | None = None
    cells: pa.RecordBatch | None = None

    def pieces(self, rows: int) -> Iterator["Chunk"]:
        """Yield the same rows, so many at a time."""
        for start in range(0, len(self.values), rows):
            part = slice(start, start + rows)
            codes = None if self.codes is None else self.codes[part]
            cells = None if self.cells is None else self.cells.slice(start, rows)
            yield Chunk(self.values[part], codes, cells)

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


def _row_errors(codes: Codes, *, start: int, inputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the entries of `row_errors` for the rows from `start` on.

    Args:
        inputs: Names of the columns that the codes may name.
    """
    for index in np.flatnonzero(codes).tolist():
        number = int(codes[index])
        if number < MISSING:
            code, detail = _DETAILS[number]
            yield {"row": start + index, "code": code, "detail": detail}
            continue
        name = inputs[number - MISSING]
        yield {
            "row": start + index,
            "code": "non_finite_input",
            "column": name,
            "detail": f"The row has no value of {name!r}, which no training row lacked. With"
            ' `missing: "any"` a model is trained to score rows with any values missing.',
        }


_VALUES_AT_ONCE = 32_768  # that become objects


class Encoder(ABC):
    """Encoder of one response: `start`, then every chunk of rows, then `end`."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        self.layout = layout
        self.done = 0

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return b""

    @abstractmethod
    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""

    def end(self) -> Encoded:
        """Return what comes after the rows."""
        return b""

    def errors(self, chunk: Chunk, start: int) -> Iterator[dict[str, Any]]:
        """Yield the reasons of the rows from `start` on that have null."""
        if chunk.codes is not None and self.layout.explains:
            yield from _row_errors(chunk.codes, start=start, inputs=self.layout.inputs)

    def numbers(self, values: Floats) -> bytes:
        """Return values as between the brackets of a JSON list; null for what is not finite."""
        return json_numbers(values, drops_zeros=self.layout.drops_zeros)

    def cells(self, chunk: Chunk) -> Iterator[tuple[Any, ...]]:
        """Return the cells of each row, of a response that holds cells."""
        return zip(*(c.to_pylist() for c in self.layout.batch(chunk).columns), strict=True)


class JsonEncoder(Encoder):
    """JSON: one object of members, the parts as lists, and the reasons of rows with null.

    A response of several parts has all rows in one chunk.
    """

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self._errors: list[bytes] = []

    def start(self) -> bytes:
        """Return the members that are not rows."""
        head = orjson.dumps(dict(self.layout.members))[:-1]
        comma = b"," if self.layout.members else b""
        return head + comma + _opening(self.layout.parts[0])

    def rows(self, chunk: Chunk) -> bytes:
        """Encode rows between the brackets of the lists of the parts."""
        self._errors += map(orjson.dumps, self.errors(chunk, self.done))
        text = b"," if self.done else b""
        for place, part in enumerate(self.layout.parts):
            text += (b"]," + _opening(part) if place else b"") + self._encoded(part, chunk)
        self.done += len(chunk.values)
        return text

    def _encoded(self, part: Part, chunk: Chunk) -> bytes:
        if self.layout.typed is not None:
            return orjson.dumps(list(self.cells(chunk)))[1:-1]
        values = part.of(chunk.values)
        if part.keys is None:
            return self.numbers(values)
        template = _object_template(part.keys)
        step = max(1, _VALUES_AT_ONCE // len(part.keys))
        pieces = [values[start : start + step] for start in range(0, len(values), step)]
        return b",".join(self._objects(template, piece) for piece in pieces)

    def _objects(self, template: bytes, values: Floats) -> bytes:
        numbers = self.numbers(values.reshape(-1)).split(b",")
        return b",".join([template] * len(values)) % tuple(numbers)

    def end(self) -> bytes:
        """Return the end of the last list, and the explanations."""
        if not self.layout.explains:
            return b"]}"
        text = b'],"row_errors":[' + b",".join(self._errors) + b"]"
        if (warnings := self.layout.warnings) is not None:
            text += b',"row_warnings":' + orjson.dumps(warnings.listed())
            text += b',"row_warning_count":%d' % warnings.count
        return text + b"}"


class NdjsonEncoder(Encoder):
    """NDJSON: one object a row, keyed by column."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self._template = _object_template(layout.columns) + b"\n"
        self._warnings: dict[int, list[dict[str, Any]]] = {}
        for warning in () if layout.warnings is None else layout.warnings.listed():
            self._warnings.setdefault(warning["row"], []).append(warning)

    def rows(self, chunk: Chunk) -> bytes:
        """Encode a line a row; one that is not finite says why."""
        text = self._lines(chunk)
        start, self.done = self.done, self.done + len(chunk.values)
        notes = {e["row"]: b',"row_error":' + orjson.dumps(e) for e in self.errors(chunk, start)}
        for row in self._warnings.keys() & range(start, self.done):
            warnings = b',"row_warnings":' + orjson.dumps(self._warnings[row])
            notes[row] = notes.get(row, b"") + warnings
        if not notes:
            return text
        lines = text.split(b"\n")
        for row, note in notes.items():
            lines[row - start] = lines[row - start][:-1] + note + b"}"
        return b"\n".join(lines)

    def _lines(self, chunk: Chunk) -> bytes:
        names = self.layout.columns
        if self.layout.typed is not None:
            objects = (dict(zip(names, row, strict=True)) for row in self.cells(chunk))
            return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in objects)
        numbers = self.numbers(chunk.values.reshape(-1)).split(b",")
        return (self._template * len(chunk.values)) % tuple(numbers)


class TableEncoder(Encoder):
    """Any format of which a response is as a file."""

    def __init__(self, writer: type[TableWriter], layout: ResponseTable) -> None:
        """Prepare to encode the response of a head by a writer of files."""
        super().__init__(layout)
        schema = None if writer is NpyTable or layout.typed is None else layout.typed.schema
        self._holds_cells = schema is not None
        head = TableHead(
            layout.columns,
            [layout.dtype] * len(layout.columns),
            layout.rows,
            # One number a row is an npy array of one dimension, a table of one column is none.
            flat=layout.parts[0].stop is None,
            schema=schema,
            drops_zeros=layout.drops_zeros,
        )
        self._writer = writer(head)

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return self._writer.start()

    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""
        if self._holds_cells:
            return self._writer.cells(self.layout.batch(chunk))
        if self.layout.typed is not None:
            return self._writer.rows(self.layout.typed.numbers(chunk.values))
        return self._writer.rows(chunk.values)

    def end(self) -> Encoded:
        """Return what comes after the rows."""
        return self._writer.end()


def _opening(part: Part) -> bytes:
    return orjson.dumps(part.name) + b":["


def _object_template(keys: Sequence[str]) -> bytes:
    """Return an object of JSON with a place for each value."""
    names = [orjson.dumps(key).replace(b"%", b"%%") for key in keys]
    return b"{" + b",".join(name + b":%b" for name in names) + b"}"
