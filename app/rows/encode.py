"""Encoders of responses, a chunk of rows at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from app.rows.response_table import Chunk, Codes, ResponseTable, row_errors
from app.rows.shape import Floats
from tabular.writers import Encoded, NpyTable, TableHead, TableWriter, json_numbers

_ERRORS_AT_ONCE = 1000


class Encoder(ABC):
    """Encoder of one response: `start`, then every chunk of rows, then `end`.

    With more than one `passes`, all rows come again after each `turn`.
    """

    passes = 1

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        self.layout = layout

    @property
    def size(self) -> int | None:
        """Bytes of the whole, where they are known before the rows are."""
        return None

    @property
    def row_bytes(self) -> int:
        """Most bytes of a row beside its numbers: names that each row repeats, and texts of cells."""
        return self.layout.cell_bytes

    @property
    def makes_objects(self) -> bool:
        """True if a row becomes objects, of names or cells, for which the interpreter's lock is kept."""
        return self.row_bytes > 0 or self.layout.cell_schema is not None

    @property
    def kept_bytes(self) -> int:
        """Most bytes that it keeps before they become a part of the response, if they may be many."""
        return 0

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return b""

    @abstractmethod
    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""

    def written(self, values: Floats) -> bytes:
        """Return values as between the brackets of a JSON list; null for what is not finite."""
        return json_numbers(values, drops_zeros=self.layout.drops_zeros)

    def turn(self) -> bytes:
        """Return what comes between two passes."""
        return b""

    def end(self) -> Iterator[Encoded]:
        """Yield what comes after the rows."""
        yield from ()


class JsonEncoder(Encoder):
    """JSON: one object of members, the parts as lists, and the reasons of rows with null."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self.passes = len(layout.parts)
        self._template: bytes | None = None
        self._pass = 0
        self._done = 0
        self._codes: list[tuple[int, Codes]] = []

    @property
    def row_bytes(self) -> int:
        """Most bytes of a row beside its numbers."""
        return super().row_bytes + max(_key_bytes(part.keys or ()) for part in self.layout.parts)

    def start(self) -> bytes:
        """Return the members that are not rows."""
        head = orjson.dumps(dict(self.layout.members))[:-1]
        comma = b"," if self.layout.members else b""
        return head + comma + self._opening()

    def rows(self, chunk: Chunk) -> bytes:
        """Encode rows between the brackets of the part's list."""
        if self._pass == 0 and chunk.codes is not None and self.layout.explains:
            self._codes.append((self._done, chunk.codes))
        comma = b"," if self._done else b""
        self._done += len(chunk.values)
        return comma + self._encoded(chunk)

    def turn(self) -> bytes:
        """Return the end of one list and the start of the next."""
        self._pass += 1
        self._done = 0
        self._template = None
        return b"]," + self._opening()

    def _encoded(self, chunk: Chunk) -> bytes:
        if self.layout.cell_schema is not None:
            rows = zip(*_cells_of(self.layout, chunk), strict=True)
            return orjson.dumps(list(rows))[1:-1]
        part = self.layout.parts[self._pass]
        values = part.of(chunk.values)
        if part.keys is None:
            return self.written(values)
        if self._template is None:
            self._template = _object_template(part.keys)
        numbers = self.written(values.reshape(-1)).split(b",")
        return b",".join([self._template] * len(values)) % tuple(numbers)

    def end(self) -> Iterator[bytes]:
        """Yield the end of the last list, and the explanations."""
        if not self.layout.explains:
            yield b"]}"
            return
        yield b'],"row_errors":['
        comma = b""
        for start, codes in self._codes:
            for first in range(0, len(codes), _ERRORS_AT_ONCE):
                part = codes[first : first + _ERRORS_AT_ONCE]
                errors = list(row_errors(part, start=start + first, inputs=self.layout.inputs))
                if errors:
                    yield comma + orjson.dumps(errors)[1:-1]
                    comma = b","
        yield b"]"
        if (warnings := self.layout.warnings) is not None:
            yield b',"row_warnings":' + orjson.dumps(warnings.listed())
            yield b',"row_warning_count":%d' % warnings.count
        yield b"}"

    def _opening(self) -> bytes:
        return orjson.dumps(self.layout.parts[self._pass].name) + b":["


class NdjsonEncoder(Encoder):
    """NDJSON: one object a row, keyed by column."""

    def __init__(self, layout: ResponseTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(layout)
        self._template = b""  # made with the first rows: of thousands of names it takes long
        self._warnings = _by_row(layout)
        self._done = 0

    @property
    def row_bytes(self) -> int:
        """Most bytes of a row beside its numbers."""
        return super().row_bytes + _key_bytes(self.layout.columns)

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
        if self.layout.cell_schema is not None:
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
        schema = None if writer is NpyTable else layout.cell_schema
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

    @property
    def size(self) -> int | None:
        """Bytes of the whole, where they are known before the rows are."""
        return self._writer.size

    @property
    def kept_bytes(self) -> int:
        """Most bytes of the row group that it gathers."""
        return self._writer.kept_bytes(self.layout.cell_bytes)

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

    def end(self) -> Iterator[Encoded]:
        """Yield what comes after the rows."""
        yield self._writer.end()


def _object_template(keys: Sequence[str]) -> bytes:
    """Return an object of JSON with a place for each value."""
    names = [orjson.dumps(key).replace(b"%", b"%%") for key in keys]
    return b"{" + b",".join(name + b":%b" for name in names) + b"}"


def _key_bytes(keys: Sequence[str]) -> int:
    """Return the bytes of an object of JSON beside its values, about."""
    return sum(len(key.encode()) + 4 for key in keys)


def _cells_of(layout: ResponseTable, chunk: Chunk) -> list[list[Any]]:
    """Return the cells of each column."""
    return [column.to_pylist() for column in layout.batch(chunk).columns]


def _by_row(layout: ResponseTable) -> dict[int, list[dict[str, Any]]]:
    """Return the warnings about each row that has some."""
    found: dict[int, list[dict[str, Any]]] = {}
    for warning in () if layout.warnings is None else layout.warnings.listed():
        found.setdefault(warning["row"], []).append(warning)
    return found
