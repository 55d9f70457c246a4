"""Reading Arrow IPC streams message by message, from memory or a file that is mapped, not loaded.

A record batch may be as large as its writer likes: what is not compressed is read in slices from
the disk, what is compressed must announce how much it unpacks to, and is bounded before it is.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tables.errors import TableError
from tables.formats import ParseOptions
from tables.readers.table_arrow import columns_of, real_columns, row_bytes
from tables.source import Columns, TableSource, check_columns, check_rows, gather, rows_per_chunk

MAX_SCHEMA_BYTES = 16 << 20
"""The largest schema that is parsed."""

MAX_UNPACKED_BYTES = 256 << 20
"""What one compressed record batch may unpack to."""

REMEMBERED_BYTES = 16 << 20
"""How much of a file that has been read may stay in the memory of the process."""

_DAMAGED = "The Arrow stream is damaged or cut off"
END_BYTES = 8
"""Of the end marker, and of what comes before the metadata of a message."""

_CONTINUATION = 0xFFFFFFFF
_HEADER_SLOT, _BODY_LENGTH_SLOT = 2, 3  # of a message (format/Message.fbs)
_LENGTH_SLOT, _BUFFERS_SLOT, _COMPRESSION_SLOT = 0, 2, 3  # of a record batch
_BUFFER_BYTES = 16
_NOT_PACKED = -1


def open_arrow(source: Path | bytes, options: ParseOptions) -> TableSource:
    """Open an Arrow IPC stream.

    Args:
        source: a file, or all of its bytes.
        options: bounds.

    Raises:
        TableError: the stream is damaged, too large, or holds anything but plain real columns.
    """
    with _decoding():
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise TableError("dataset-empty", "The file is empty.")
        messages = _Messages(source)
        schema = messages.schema()
        check_columns(len(schema), options=options)
        names, dtypes = real_columns(schema)
    stream = _Stream(messages, schema, row_bytes=row_bytes(dtypes), options=options)
    return TableSource(
        names=names, dtypes=dtypes, named=True, chunks=gather(stream.chunks()), warnings=[]
    )


def checked_rows(path: Path, options: ParseOptions) -> int | None:
    """Check all of an opened stream without reading its numbers, and count its rows.

    Returns:
        None where a batch is compressed: whether it unpacks is seen when it does.

    Raises:
        TableError: the stream is damaged or too large.
    """
    rows = 0
    with _decoding():
        messages = _Messages(path)
        schema = messages.schema()
        _, dtypes = real_columns(schema)
        for message in messages.batches():
            header = _BatchHeader(message)
            if header.compressed:
                return None
            rows += header.rows
            check_rows(rows, row_bytes=row_bytes(dtypes), options=options)
            pa.ipc.read_record_batch(message, schema).validate(full=True)
            messages.forget()  # the kernel maps more than is looked at
    return rows


def largest_unpacked(source: Path | bytes) -> int:
    """Bytes that the largest compressed batch of a stream says it unpacks to.

    What is damaged, and what comes after it, does not count: whoever reads the stream will say so.
    """
    largest = 0
    with suppress(TableError), _decoding():
        messages = _Messages(source)
        messages.schema()
        for message in messages.batches():
            largest = max(largest, _BatchHeader(message).unpacked)
            messages.forget()
    return largest


def unpacked_bytes(data: bytes) -> int:
    """Bytes that a message unpacks to, if it is a compressed batch and not damaged."""
    with suppress(TableError), _decoding():
        message = pa.ipc.read_message(pa.py_buffer(data))
        return _BatchHeader(message).unpacked if message.type == "record batch" else 0
    return 0


class ArrowPieces:
    """Reads an Arrow IPC stream message by message as its bytes come, without a file.

    Args:
        options: how large it may be.

    Attributes:
        names: of the columns; empty until the schema has come.
        schema: the bytes of the schema's message.
    """

    def __init__(self, options: ParseOptions) -> None:
        self.names: list[str] = []
        self.schema = b""
        self._options = options
        self._batches: _Batches | None = None

    def decode(self, messages: list[bytes]) -> Iterator[Columns]:
        """The rows of some whole messages, which must follow one another.

        Raises:
            TableError: they are damaged, too large, or hold anything but plain real columns.
        """
        return gather(self._decode(messages))

    def _decode(self, messages: list[bytes]) -> Iterator[Columns]:
        for data in messages:
            with _decoding():
                message = pa.ipc.read_message(pa.py_buffer(data))
                if self._batches is None:
                    schema = _schema_of(message)
                    check_columns(len(schema), options=self._options)
                    self.names, dtypes = real_columns(schema)
                    self.schema = data
                    self._batches = _Batches(schema, row_bytes(dtypes), self._options)
                    continue
                _check_batch(message)
                yield from self._batches.rows(message)


def message_size(data: bytes | bytearray) -> int | None:
    """Bytes of the message that a stream goes on with; those of the end marker are the smallest.

    Returns:
        None where more must come before it is known.

    Raises:
        TableError: it is no message.
    """
    if len(data) < END_BYTES:
        return None
    mark, length = (int(number) for number in struct.unpack_from("<Ii", data))
    if mark != _CONTINUATION or not 0 <= length <= MAX_SCHEMA_BYTES:
        raise _damaged("a message does not begin as one")
    if length == 0:
        return END_BYTES
    if len(data) < END_BYTES + length:
        return None
    with _decoding():
        size = _body_bytes(memoryview(data)[END_BYTES : END_BYTES + length])
    if size < 0:
        raise _damaged("a message has a negative size")
    return END_BYTES + length + size


def _body_bytes(metadata: memoryview) -> int:
    """What a message says that follows its metadata; Arrow checks both once they are here."""
    (root,) = struct.unpack_from("<I", metadata)
    (back,) = struct.unpack_from("<i", metadata, root)
    vtable = root - back
    entry = vtable + 4 + 2 * _BODY_LENGTH_SLOT
    (vtable_bytes,) = struct.unpack_from("<H", metadata, vtable)
    if entry + 2 > vtable + vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, entry)
    return int(struct.unpack_from("<q", metadata, root + offset)[0]) if offset else 0


def _schema_of(message: pa.Message) -> pa.Schema:
    if message.type != "schema":
        raise _damaged("it does not begin with a schema")
    if message.metadata.size > MAX_SCHEMA_BYTES:
        raise TableError("limit-metadata", f"The schema has more than {MAX_SCHEMA_BYTES} bytes.")
    return pa.ipc.read_schema(message)


def _check_batch(message: pa.Message) -> None:
    if message.type != "record batch":
        raise _damaged(f"it holds a message of an unexpected kind ({message.type})")


class _Messages:
    """The messages of a stream, which must end with its end marker and nothing after it."""

    def __init__(self, source: Path | bytes) -> None:
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

    def schema(self) -> pa.Schema:
        """Read the first message."""
        return _schema_of(self._reader.read_next_message())

    def batches(self) -> Iterator[pa.Message]:
        """Read the others."""
        while True:
            position = self._file.tell()
            try:
                message = self._reader.read_next_message()
            except StopIteration:
                break
            _check_batch(message)
            yield message
        if self._file.tell() != len(self._bytes):
            raise _damaged("bytes follow its end marker")
        if position == len(self._bytes):
            raise _damaged("its end marker is missing")


class _Stream:
    """The rows of a stream."""

    def __init__(
        self, messages: _Messages, schema: pa.Schema, *, row_bytes: int, options: ParseOptions
    ) -> None:
        self._messages = messages
        self._batches = _Batches(schema, row_bytes, options)

    def chunks(self) -> Iterator[Columns]:
        remembered = 0
        with _decoding():
            for message in self._messages.batches():
                for values in self._batches.rows(message):
                    remembered += values.nbytes
                    if remembered > REMEMBERED_BYTES:
                        self._messages.forget()
                        remembered = 0
                    yield values


class _Batches:
    """The rows of record batches, of which there may be so many in all."""

    def __init__(self, schema: pa.Schema, row_bytes: int, options: ParseOptions) -> None:
        self._schema = schema
        self._row_bytes = row_bytes
        self._options = options
        self._step = rows_per_chunk(len(schema))
        self._rows = 0

    def rows(self, message: pa.Message) -> Iterator[Columns]:
        header = _BatchHeader(message)
        self._rows += header.rows
        check_rows(self._rows, row_bytes=self._row_bytes, options=self._options)
        header.check_unpacked(columns=len(self._schema))
        batch = pa.ipc.read_record_batch(message, self._schema)
        batch.validate(full=True)  # otherwise its lengths may lie about its buffers
        for start in range(0, batch.num_rows, self._step):
            yield columns_of(batch.slice(start, self._step))


class _BatchHeader:
    """What a record batch says about itself; its flatbuffer has been verified by Arrow."""

    def __init__(self, message: pa.Message) -> None:
        self._body = memoryview(message.body)
        self._bytes = memoryview(message.metadata)
        root = self._int("I", 0)
        place = self._field(root, _HEADER_SLOT)
        if place is None:
            raise _damaged("a record batch has no header")
        self._batch = place + self._int("I", place)
        length = self._field(self._batch, _LENGTH_SLOT)
        self.rows = 0 if length is None else self._int("q", length)
        if self.rows < 0:
            raise _damaged("a record batch has a negative number of rows")

    @property
    def compressed(self) -> bool:
        """Whether its buffers are to be unpacked."""
        return self._field(self._batch, _COMPRESSION_SLOT) is not None

    @property
    def unpacked(self) -> int:
        """Bytes that its buffers say they unpack to; 0 where they are not compressed."""
        return sum(self._unpacked_sizes()) if self.compressed else 0

    def check_unpacked(self, *, columns: int) -> None:
        """Refuse a compressed batch that unpacks to too much, or to more than its rows need."""
        unpacked = self.unpacked
        if unpacked > MAX_UNPACKED_BYTES:
            raise TableError(
                "dataset-too-large",
                f"A compressed record batch unpacks to more than {MAX_UNPACKED_BYTES} bytes. Write"
                " smaller batches.",
            )
        # Eight bytes and one bit a value, and some padding of each buffer.
        if unpacked > columns * (9 * self.rows + 256):
            raise _damaged("a record batch unpacks to more than its rows can have")

    def _unpacked_sizes(self) -> Iterator[int]:
        place = self._field(self._batch, _BUFFERS_SLOT)
        if place is None:
            return
        vector = place + self._int("I", place)
        for index in range(self._int("I", vector)):
            at = vector + 4 + _BUFFER_BYTES * index
            offset, length = self._int("q", at), self._int("q", at + 8)
            if length == 0:
                continue
            if offset < 0:
                raise _damaged("a buffer lies outside of its record batch")
            (size,) = struct.unpack_from("<q", self._body, offset)
            if size < _NOT_PACKED:
                raise _damaged("a buffer has a negative size")
            yield length if size == _NOT_PACKED else size

    def _field(self, table: int, slot: int) -> int | None:
        """The place of a field of a flatbuffer table, or None where it has none."""
        vtable = table - self._int("i", table)
        entry = 4 + 2 * slot
        if entry >= self._int("H", vtable):
            return None
        offset = self._int("H", vtable + entry)
        return table + offset if offset else None

    def _int(self, code: str, place: int) -> int:
        (number,) = struct.unpack_from(f"<{code}", self._bytes, place)
        return int(number)


@contextmanager
def _decoding() -> Iterator[None]:
    """Tell a damaged stream, which Arrow reports in several ways, from a disk that fails."""
    try:
        yield
    except MemoryError:
        raise
    except UnicodeDecodeError:
        raise TableError("dataset-encoding", "A name in the stream is not UTF-8.") from None
    except StopIteration:
        raise _damaged("it has no schema") from None
    except (pa.ArrowException, OSError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged("a part of it cannot be decoded") from None


def _damaged(what: str) -> TableError:
    return TableError("dataset-parse", f"{_DAMAGED}: {what}.")
