"""From arrays to Arrow IPC streams and Parquet files, a chunk at a time."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from app.rows.answer_table import AnswerTable, Chunk
from app.rows.encode import Encoder
from app.rows.shape import Floats

_GROUP_VALUES = 1_000_000  # of a row group of Parquet: large ones are read fast
_GROUP_ROWS = 131_072


class ArrowEncoder(Encoder):
    """A schema, a record batch a chunk, and the end marker."""

    def __init__(self, answer: AnswerTable) -> None:
        """Prepare to write `answer`."""
        super().__init__(answer)
        self._schema = _schema(answer)
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def rows(self, chunk: Chunk) -> bytes:
        """A record batch."""
        self._writer.write_batch(_batch(chunk.values, self._schema))
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        """The end marker."""
        self._writer.close()
        yield self._sink.take()


class ParquetEncoder(Encoder):
    """Row groups, each of many chunks, and the footer."""

    def __init__(self, answer: AnswerTable) -> None:
        """Prepare to write `answer`."""
        super().__init__(answer)
        self._schema = _schema(answer)
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", use_dictionary=False
        )
        self._group_rows = max(1, min(_GROUP_ROWS, _GROUP_VALUES // len(answer.columns)))
        self._waiting: list[Floats] = []
        self._rows = 0

    def rows(self, chunk: Chunk) -> bytes:
        """A row group, when enough rows have come."""
        self._waiting.append(chunk.values)
        self._rows += len(chunk.values)
        if self._rows >= self._group_rows:
            self._write_group()
        return self._sink.take()

    def end(self) -> Iterator[bytes]:
        """The last row group and the footer."""
        if self._rows:
            self._write_group()
        self._writer.close()
        yield self._sink.take()

    def _write_group(self) -> None:
        self._writer.write_batch(_batch(np.concatenate(self._waiting), self._schema))
        self._waiting, self._rows = [], 0


class _Sink(io.RawIOBase):
    """A file that hands over what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Keep the data until they are taken."""
        piece = bytes(memoryview(data))  # type: ignore[arg-type]  # whatever Arrow writes
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        """The place in the whole, which Parquet's footer refers to."""
        return self._size

    def take(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _schema(answer: AnswerTable) -> pa.Schema:
    kind = pa.from_numpy_dtype(answer.dtype)
    return pa.schema([pa.field(name, kind, nullable=False) for name in answer.columns])


def _batch(values: NDArray[Any], schema: pa.Schema) -> pa.RecordBatch:
    columns = np.ascontiguousarray(values.T)
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=schema)
