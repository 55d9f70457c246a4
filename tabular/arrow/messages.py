"""Messages of an Arrow IPC stream, and the headers of its record batches."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.arrow.flatbuffers import HEADER_SLOT, Flatbuffer, check_message
from tabular.errors import TableError

MAX_SCHEMA_BYTES = 16 << 20
"""The largest schema that is parsed."""

MAX_UNPACKED_BYTES = 256 << 20
"""Most bytes that one compressed record batch may unpack to."""

FREE_MESSAGES = 10_000
"""Record batches and dictionaries that a stream may have in any case: each takes a moment, whatever it
holds."""

FREE_ROWS = 1_000_000
"""Rows that a stream may have in any case; further ones need a bit each, which columns of nulls do not."""

# Further ones must bring so many rows for each batch, and for each dictionary: one a column and batch is usual.
_BATCH_ROWS, _DICTIONARY_ROWS = 64, 8

MAX_DELTA_BYTES = 2 << 30
"""Most bytes that are copied to extend dictionaries, each time the whole of one."""

_DAMAGED = "The Arrow stream is damaged or cut off"
_CONTINUES = b"\xff\xff\xff\xff"  # before the length of a message, but in old streams
_ID_SLOT, _DATA_SLOT, _DELTA_SLOT = 0, 1, 2  # of a dictionary batch
_LENGTH_SLOT, _BUFFERS_SLOT, _COMPRESSION_SLOT = 0, 2, 3  # of a record batch
_BUFFER_BYTES = 16
_NOT_PACKED = -1


class Messages:
    """Messages of a stream, which must end with its end marker and nothing after it.

    Args:
        source: File, or all of its bytes.
        max_columns: Most columns of a table.
        dictionaries: True if dictionaries may be among them.
    """

    def __init__(
        self, source: Path | bytes, *, max_columns: int, dictionaries: bool = False
    ) -> None:
        self._max_columns = max_columns
        self._kinds = {"record batch", "dictionary"} if dictionaries else {"record batch"}
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise TableError("dataset-empty", "The file is empty.")
        self._bytes: mmap.mmap | bytes
        if isinstance(source, bytes):
            self._bytes = source
        else:
            with source.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file = pa.BufferReader(pa.py_buffer(self._bytes))
        self._reader = pa.MessageReader.open_stream(self._file)

    def forget(self) -> None:
        """Give the memory back that a file takes in this process; it can be read again."""
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.madvise(mmap.MADV_DONTNEED)

    def stream(self) -> pa.RecordBatchStreamReader:
        """Return a reader of all of the stream, dictionaries included."""
        return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(self._bytes)))

    def schema(self) -> pa.Schema:
        """Read the first message."""
        message = self._next_message()
        if message.type != "schema":
            raise damaged("it does not begin with a schema")
        if message.metadata.size > MAX_SCHEMA_BYTES:
            raise TableError(
                "limit-metadata", f"The schema has more than {MAX_SCHEMA_BYTES} bytes."
            )
        return pa.ipc.read_schema(message)

    def batches(self) -> Iterator[tuple[pa.Message, "BatchHeader"]]:
        """Read the others, whose rows the caller checks against its limit."""
        tally = _Tally()
        while True:
            position = self._file.tell()
            try:
                message = self._next_message()
            except StopIteration:
                break
            if message.type not in self._kinds:
                raise damaged(f"it holds a message of an unexpected kind ({message.type})")
            header = BatchHeader(message)
            tally.add(header, is_batch=message.type == "record batch")
            yield message, header
        if self._file.tell() != len(self._bytes):
            raise damaged("bytes follow its end marker")
        if position == len(self._bytes):
            raise damaged("its end marker is missing")

    def _next_message(self) -> pa.Message:
        at = self._file.tell()
        start = at + 8 if self._bytes[at : at + 4] == _CONTINUES else at + 4
        size = int.from_bytes(self._bytes[start - 4 : start], "little")
        if 0 < size <= len(self._bytes) - start:  # else Arrow says what is wrong
            metadata = memoryview(self._bytes)[start : start + size]
            check_message(metadata, max_columns=self._max_columns)
        return self._reader.read_next_message()


class BatchHeader:
    """Header of a record batch, whose flatbuffer has been verified by Arrow."""

    def __init__(self, message: pa.Message) -> None:
        self._body = memoryview(message.body)
        self._buffer = buffer = Flatbuffer(memoryview(message.metadata))
        batch = buffer.target(buffer.root, HEADER_SLOT)
        if batch is None:
            raise damaged("a record batch has no header")
        self._batch = batch
        self.dictionary, self.is_delta = 0, False
        if message.type == "dictionary":
            self._read_dictionary(self._batch)
        length = buffer.field(self._batch, _LENGTH_SLOT)
        self.rows = 0 if length is None else buffer.number("q", length)
        if self.rows < 0:
            raise damaged("a record batch has a negative number of rows")

    def _read_dictionary(self, table: int) -> None:
        buffer, data = self._buffer, self._buffer.target(table, _DATA_SLOT)
        number, delta = (buffer.field(table, slot) for slot in (_ID_SLOT, _DELTA_SLOT))
        if data is None:
            raise damaged("a dictionary has no values")
        self._batch = data
        self.dictionary = 0 if number is None else buffer.number("q", number)
        self.is_delta = delta is not None and buffer.number("?", delta) != 0

    @property
    def size(self) -> int:
        """Bytes of its buffers, unpacked."""
        return self.unpacked if self.compressed else len(self._body)

    @property
    def compressed(self) -> bool:
        """True where the buffers are compressed."""
        return self._buffer.field(self._batch, _COMPRESSION_SLOT) is not None

    @property
    def unpacked(self) -> int:
        """Bytes that its buffers say they unpack to; 0 where they are not compressed."""
        return sum(self._unpacked_sizes()) if self.compressed else 0

    def check_unpacked(self, *, columns: int) -> None:
        """Refuse a compressed batch that unpacks to too much, or to more than its rows need."""
        self.check_size()
        # Eight bytes and one bit a value, and some padding of each buffer.
        if self.unpacked > columns * (9 * self.rows + 256):
            raise damaged("a record batch unpacks to more than its rows can have")

    def check_size(self) -> None:
        """Refuse a compressed batch that unpacks to too much."""
        if self.unpacked > MAX_UNPACKED_BYTES:
            raise TableError(
                "dataset-too-large",
                f"A compressed record batch unpacks to more than {MAX_UNPACKED_BYTES} bytes. Write"
                " smaller batches.",
            )

    def check_overlaps(self) -> None:
        """Refuse buffers that lie in the same bytes: each is looked at."""
        vector = self._buffer.target(self._batch, _BUFFERS_SLOT)
        if vector is None:
            return
        count, data = self._buffer.number("I", vector), self._buffer.data
        lengths = np.frombuffer(data, "<i8", count=2 * count, offset=vector + 4)[1::2]
        if float(lengths.clip(0).sum(dtype=np.float64)) > len(self._body):
            raise damaged("buffers of a record batch lie in the same bytes")

    def _unpacked_sizes(self) -> Iterator[int]:
        vector = self._buffer.target(self._batch, _BUFFERS_SLOT)
        if vector is None:
            return
        for index in range(self._buffer.number("I", vector)):
            at = vector + 4 + _BUFFER_BYTES * index
            offset, length = self._buffer.number("q", at), self._buffer.number("q", at + 8)
            if length == 0:
                continue
            if offset < 0:
                raise damaged("a buffer lies outside of its record batch")
            (size,) = struct.unpack_from("<q", self._body, offset)
            if size < _NOT_PACKED:
                raise damaged("a buffer has a negative size")
            yield length if size == _NOT_PACKED else size


class _Tally:
    """Messages of a stream so far, which must not be many with little in them."""

    def __init__(self) -> None:
        self._messages = self._rows = self._least_rows = self._size = 0

    def add(self, header: BatchHeader, *, is_batch: bool) -> None:
        """Count a message, and refuse one that makes it too many."""
        self._messages += 1
        self._least_rows += _BATCH_ROWS if is_batch else _DICTIONARY_ROWS
        if is_batch:
            self._rows += header.rows
            self._size += header.size
        if self._messages > FREE_MESSAGES and self._rows < self._least_rows:
            raise TableError(
                "limit-metadata",
                f"The stream has {self._rows} rows in {self._messages} record batches and dictionaries."
                " Write larger batches.",
            )
        if self._rows > FREE_ROWS + 8 * self._size:
            raise TableError(
                "limit-rows",
                f"The stream has {self._rows} rows in {self._size} bytes. Leave out columns of nulls"
                " alone.",
            )


class DeltaCheck:
    """Bound on the work of dictionaries that are extended again and again, each time as a whole."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._copied = 0

    def add(self, header: BatchHeader) -> None:
        """Count a dictionary, and refuse one that makes it too much."""
        before = self._sizes.get(header.dictionary, 0) if header.is_delta else 0
        self._sizes[header.dictionary] = before + header.size
        self._copied += before
        if self._copied > MAX_DELTA_BYTES:
            raise TableError(
                "dataset-too-large",
                "The dictionaries of the stream are extended too often. Write each of them whole.",
            )


@contextmanager
def decoding() -> Iterator[None]:
    """Tell a damaged stream, which Arrow reports in several ways, from a disk that fails."""
    try:
        yield
    except MemoryError:
        raise
    except UnicodeDecodeError:
        raise TableError("dataset-encoding", "A name in the stream is not UTF-8.") from None
    except StopIteration:
        raise damaged("it has no schema") from None
    except (pa.ArrowException, OSError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged("a part of it cannot be decoded") from None


def damaged(what: str) -> TableError:
    """Return the error of a stream that cannot be read."""
    return TableError("dataset-parse", f"{_DAMAGED}: {what}.")
