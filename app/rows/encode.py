"""Encoders of responses, a chunk of rows at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from app.rows.response_table import Chunk, Codes, Part, ResponseTable, row_errors
from app.rows.shape import Floats
from tabular.writers import Encoded, NpyTable, TableHead, TableWriter, json_numbers

_VALUES_AT_ONCE = 32_768  # that become objects


class Encoder(ABC):
    """Encoder of one response: `start`, then every chunk of rows, then `end`."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        self.layout = layout

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return b""

    @abstractmethod
    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""

    def written(self, values: Floats) -> bytes:
        """Return values as between the brackets of a JSON list; null for what is not finite."""
        return json_numbers(values, drops_zeros=self.layout.drops_zeros)

    def end(self) -> Encoded:
        """Return what comes after the rows."""
        return b""


class JsonEncoder(Encoder):
    """JSON: one object of members, the parts as lists, and the reasons of rows with null.

    A response of several parts has all rows in one chunk.
    """

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self._done = 0
        self._codes: list[tuple[int, Codes]] = []

    def start(self) -> bytes:
        """Return the members that are not rows."""
        head = orjson.dumps(dict(self.layout.members))[:-1]
        comma = b"," if self.layout.members else b""
        return head + comma + _opening(self.layout.parts[0])

    def rows(self, chunk: Chunk) -> bytes:
        """Encode rows between the brackets of the lists of the parts."""
        if chunk.codes is not None and self.layout.explains:
            self._codes.append((self._done, chunk.codes))
        text = b"," if self._done else b""
        for place, part in enumerate(self.layout.parts):
            text += (b"]," + _opening(part) if place else b"") + self._encoded(part, chunk)
        self._done += len(chunk.values)
        return text

    def _encoded(self, part: Part, chunk: Chunk) -> bytes:
        if self.layout.typed is not None:
            rows = zip(*_cells_of(self.layout, chunk), strict=True)
            return orjson.dumps(list(rows))[1:-1]
        values = part.of(chunk.values)
        if part.keys is None:
            return self.written(values)
        template = _object_template(part.keys)
        step = max(1, _VALUES_AT_ONCE // len(part.keys))
        pieces = [values[start : start + step] for start in range(0, len(values), step)]
        return b",".join(self._objects(template, piece) for piece in pieces)

    def _objects(self, template: bytes, values: Floats) -> bytes:
        numbers = self.written(values.reshape(-1)).split(b",")
        return b",".join([template] * len(values)) % tuple(numbers)

    def end(self) -> bytes:
        """Return the end of the last list, and the explanations."""
        if not self.layout.explains:
            return b"]}"
        errors = [orjson.dumps(error) for error in self._errors()]
        text = b'],"row_errors":[' + b",".join(errors) + b"]"
        if (warnings := self.layout.warnings) is not None:
            text += b',"row_warnings":' + orjson.dumps(warnings.listed())
            text += b',"row_warning_count":%d' % warnings.count
        return text + b"}"

    def _errors(self) -> Iterator[dict[str, Any]]:
        for start, codes in self._codes:
            yield from row_errors(codes, start=start, inputs=self.layout.inputs)


class NdjsonEncoder(Encoder):
    """NDJSON: one object a row, keyed by column."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self._template = b""  # made with the first rows: of thousands of names it takes long
        self._warnings = _by_row(layout)
        self._done = 0

    def rows(self, chunk: Chunk) -> bytes:
        """Encode a line a row; one that is not finite says why."""
        text = self._lines(chunk)
        stop = self._done + len(chunk.values)
        noted: dict[int, bytes] = {}
        if chunk.codes is not None and self.layout.explains:
            for error in row_errors(chunk.codes, start=self._done, inputs=self.layout.inputs):
                noted[error["row"]] = b',"row_error":' + orjson.dumps(error)
        if self._warnings:
            for row in range(self._done, stop):
                if row in self._warnings:
                    warnings = b',"row_warnings":' + orjson.dumps(self._warnings[row])
                    noted[row] = noted.get(row, b"") + warnings
        if noted:
            lines = text.split(b"\n")
            for row, note in noted.items():
                index = row - self._done
                lines[index] = lines[index][:-1] + note + b"}"
            text = b"\n".join(lines)
        self._done = stop
        return text

    def _lines(self, chunk: Chunk) -> bytes:
        names = self.layout.columns
        if self.layout.typed is not None:
            rows = zip(*_cells_of(self.layout, chunk), strict=True)
            objects = (dict(zip(names, row, strict=True)) for row in rows)
            return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in objects)
        self._template = self._template or _object_template(names) + b"\n"
        numbers = self.written(chunk.values.reshape(-1)).split(b",")
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
            flat=layout.flat,
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


def _cells_of(layout: ResponseTable, chunk: Chunk) -> list[list[Any]]:
    """Return the cells of each column."""
    return [column.to_pylist() for column in layout.batch(chunk).columns]


def _by_row(layout: ResponseTable) -> dict[int, list[dict[str, Any]]]:
    """Return the warnings about each row that has some."""
    found: dict[int, list[dict[str, Any]]] = {}
    for warning in () if layout.warnings is None else layout.warnings.listed():
        found.setdefault(warning["row"], []).append(warning)
    return found
