"""Encoders of responses, a chunk of rows at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import orjson

from app.rows.answer_table import AnswerTable, Chunk, Codes, row_errors
from app.rows.shape import Floats
from tables.writers import Encoded, TableHead, TableWriter, csv_header

_ERRORS_AT_ONCE = 1000


class Encoder(ABC):
    """Encoder of one response: `start`, then every chunk of rows, then `end`.

    With more than one `passes`, all rows come again after each `turn`.
    """

    passes = 1

    def __init__(self, answer: AnswerTable) -> None:
        """Prepare to encode the response of a head."""
        self.answer = answer

    @property
    def size(self) -> int | None:
        """Bytes of the whole, where they are known before the rows are."""
        return None

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return b""

    @abstractmethod
    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""

    def turn(self) -> bytes:
        """Return what comes between two passes."""
        return b""

    def end(self) -> Iterator[Encoded]:
        """Yield what comes after the rows."""
        yield from ()


class JsonEncoder(Encoder):
    """JSON: one object of members, the parts as lists, and the reasons of rows with null."""

    def __init__(self, answer: AnswerTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(answer)
        self.passes = len(answer.parts)
        self._pass = 0
        self._done = 0
        self._codes: list[tuple[int, Codes]] = []

    def start(self) -> bytes:
        """Return the members that are not rows."""
        head = orjson.dumps(dict(self.answer.members))[:-1]
        comma = b"," if self.answer.members else b""
        return head + comma + self._opening()

    def rows(self, chunk: Chunk) -> bytes:
        """Encode rows between the brackets of the part's list."""
        if self._pass == 0 and chunk.codes is not None and self.answer.explains:
            self._codes.append((self._done, chunk.codes))
        comma = b"," if self._done else b""
        self._done += len(chunk.values)
        return comma + _json_values(self.answer.parts[self._pass].of(chunk.values))

    def turn(self) -> bytes:
        """Return the end of one list and the start of the next."""
        self._pass += 1
        self._done = 0
        return b"]," + self._opening()

    def end(self) -> Iterator[bytes]:
        """Yield the end of the last list, and the explanations."""
        if not self.answer.explains:
            yield b"]}"
            return
        yield b'],"row_errors":['
        comma = b""
        for start, codes in self._codes:
            for first in range(0, len(codes), _ERRORS_AT_ONCE):
                part = codes[first : first + _ERRORS_AT_ONCE]
                errors = list(row_errors(part, start=start + first))
                if errors:
                    yield comma + orjson.dumps(errors)[1:-1]
                    comma = b","
        yield b"]}"

    def _opening(self) -> bytes:
        return orjson.dumps(self.answer.parts[self._pass].name) + b":["


class NdjsonEncoder(Encoder):
    """NDJSON: one object a row, keyed by column."""

    def __init__(self, answer: AnswerTable) -> None:
        """Prepare to encode the response of a head."""
        super().__init__(answer)
        keys = [orjson.dumps(name).replace(b"%", b"%%") for name in answer.columns]
        self._template = b"{" + b",".join(key + b":%b" for key in keys) + b"}\n"
        self._done = 0

    def rows(self, chunk: Chunk) -> bytes:
        """Encode a line a row; one that is not finite says why."""
        numbers = _json_values(chunk.values.reshape(-1)).split(b",")
        text = (self._template * len(chunk.values)) % tuple(numbers)
        if chunk.codes is not None and self.answer.explains:
            lines = text.split(b"\n")
            for error in row_errors(chunk.codes, start=0):
                index = error["row"]
                explained = orjson.dumps({**error, "row": self._done + index})
                lines[index] = lines[index][:-1] + b',"row_error":' + explained + b"}"
            text = b"\n".join(lines)
        self._done += len(chunk.values)
        return text


class CsvEncoder(Encoder):
    """CSV: a header and one line a row; what is not finite is `nan`, `inf` or `-inf`.

    All columns are of one type, which is faster to write than `tables.writers.CsvTable` can.
    """

    def start(self) -> bytes:
        """Return the header, whose names no spreadsheet runs as formulas."""
        return csv_header(self.answer.columns)

    def rows(self, chunk: Chunk) -> bytes:
        """Encode a line a row."""
        if chunk.codes is None:
            rows = _json_values(chunk.values)
            return rows[1:-1].replace(b"],[", b"\r\n") + b"\r\n"
        lines = [",".join(map(str, row)) for row in chunk.values]
        return "\r\n".join([*lines, ""]).encode()


class TableEncoder(Encoder):
    """Any format of which a response is as a file."""

    def __init__(self, writer: type[TableWriter], answer: AnswerTable) -> None:
        """Prepare to encode the response of a head by a writer of files."""
        super().__init__(answer)
        dtypes = [answer.dtype] * len(answer.columns)
        self._writer = writer(TableHead(answer.columns, dtypes, answer.rows, flat=answer.flat))

    @property
    def size(self) -> int | None:
        """Bytes of the whole, where they are known before the rows are."""
        return self._writer.size

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return self._writer.start()

    def rows(self, chunk: Chunk) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""
        return self._writer.rows(chunk.values)

    def end(self) -> Iterator[Encoded]:
        """Yield what comes after the rows."""
        yield self._writer.end()


def _json_values(values: Floats) -> bytes:
    """Return values as between the brackets of a JSON list; null for what is not finite."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
