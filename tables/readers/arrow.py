"""Reading Arrow IPC streams message by message, from memory or a file that is mapped, not loaded.

A record batch may be as large as its writer likes: what is not compressed is read in slices from
the disk, what is compressed must announce how much it unpacks to, and is bounded before it is.
Parquet and CSV share the handling of schemas and batches of real columns.
"""

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tables.errors import TableError
from tables.formats import ParseOptions, TableFormat
from tables.source import (
    CellSource,
    Columns,
    TableSource,
    check_columns,
    check_content,
    check_rows,
    clean_names,
    gather,
    mend_names,
    rows_per_chunk,
)

MAX_SCHEMA_BYTES = 16 << 20
"""The largest schema that is parsed."""

MAX_UNPACKED_BYTES = 256 << 20
"""What one compressed record batch may unpack to."""

REMEMBERED_BYTES = 16 << 20
"""How much of a file that has been read may stay in the memory of the process."""

_DAMAGED = "The Arrow stream is damaged or cut off"
_EXTENSION_KEY = b"ARROW:extension:name"
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
_HEADER_SLOT = 2  # of a message (format/Message.fbs)
_DATA_SLOT = 1  # of a dictionary batch
_LENGTH_SLOT, _BUFFERS_SLOT, _COMPRESSION_SLOT = 0, 2, 3  # of a record batch
_BUFFER_BYTES = 16
_NOT_PACKED = -1


@dataclass(frozen=True)
class StreamCheck:
    """Result of checking a stream.

    Attributes:
        unpacked: Bytes that the largest compressed batch says it unpacks to; 0 without any.
        rows: Number of rows; None where batches may prove damaged later, as compressed ones may.
    """

    unpacked: int
    rows: int | None


def open_arrow(source: Path | bytes, options: ParseOptions) -> TableSource:
    """Open an Arrow IPC stream.

    Args:
        source: File, or all of its bytes.
        options: Bounds of the table's size.

    Raises:
        TableError: The stream is damaged, too large, or holds anything but plain real columns.
    """
    with _decoding():
        messages = _Messages(source)
        schema = messages.schema()
        check_columns(len(schema), options=options)
        names, dtypes = real_columns(schema)
    chunks = gather(_chunks(messages, schema, row_bytes=row_bytes(dtypes), options=options))
    return TableSource(names=names, dtypes=dtypes, named=True, chunks=chunks, warnings=[])


def open_arrow_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open an Arrow IPC stream of numbers, text, booleans, dates or dictionaries.

    Raises:
        TableError: The stream is damaged or too large, or a column holds no single values.
    """
    with _decoding():
        schema = _Messages(path).schema()
        check_columns(len(schema), options=options)

    def read(_: frozenset[int]) -> Iterator[pa.RecordBatch]:
        return _cell_batches(path, schema, options)

    return cell_source(schema, read, options=options)


def cell_source(
    schema: pa.Schema,
    read: Callable[[frozenset[int]], Iterator[pa.RecordBatch]],
    *,
    options: ParseOptions,
) -> CellSource:
    """Return the source of a file whose schema says what its columns hold.

    Args:
        schema: Schema of the file.
        read: Function that yields its batches.
        options: Names of the columns that may be of any type, since they are ignored.

    Raises:
        TableError: ``dataset-dtype``, naming all columns that hold no single values.
    """
    names, nameless, warnings = mend_names(list(schema.names))
    kinds = [field.type for field in schema]
    bad = [name for name, kind in zip(names, kinds, strict=True) if not _has_cells(kind)]
    if bad:
        raise TableError(
            "dataset-dtype",
            f"Column {bad[0]!r} holds lists, structures or bytes, not single values. Leave such"
            " columns out of the file.",
            column=bad[0],
            errors=[
                (name, "It holds lists, structures or bytes, not single values.") for name in bad
            ],
        )
    check_columns(len(names), options=options)
    return CellSource(
        names=names,
        dtypes=[_FLOATS.get(str(kind), str(kind)[:64]) for kind in kinds],
        named=True,
        nameless=nameless,
        text=frozenset(place for place, kind in enumerate(kinds) if not holds_numbers(kind)),
        read=read,
        warnings=warnings,
    )


def holds_numbers(kind: pa.DataType) -> bool:
    """Return whether cells of a type are numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose columns have placeholders for names, and types that are computed with."""
    columns = [_plain(column) for column in batch.columns]
    return pa.record_batch(columns, names=[str(place) for place in range(len(columns))])


def _plain(cells: pa.Array) -> pa.Array:
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    kind = cells.type
    if pa.types.is_decimal(kind):
        return cells.cast(pa.float64())
    if pa.types.is_large_string(kind) or kind in {pa.string_view(), pa.null()}:
        return cells.cast(pa.string())
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(cells.indices, _plain(cells.dictionary))
    return cells


def _has_cells(kind: pa.DataType) -> bool:
    """Return whether values of a type are single cells."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_cells(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_cells(kind.value_type)
    bytes_ = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    fixed = pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind)
    odd = pa.types.is_run_end_encoded(kind) or pa.types.is_interval(kind)
    return not (pa.types.is_nested(kind) or bytes_ or fixed or odd or kind == pa.binary_view())


def _cell_batches(path: Path, schema: pa.Schema, options: ParseOptions) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream in slices, after a look at all of its headers."""
    step = rows_per_chunk(len(schema))
    row_bytes = 8 * len(schema)
    rows = remembered = 0
    with _decoding():
        messages = _Messages(path, dictionaries=True)
        messages.schema()
        for message in messages.batches():
            header = _BatchHeader(message)
            header.check_size()
            if message.type == "record batch":
                rows += header.rows
                check_rows(rows, row_bytes=row_bytes, options=options)
            messages.forget()
        with messages.stream() as reader:
            for batch in reader:
                batch.validate(full=True)  # otherwise its lengths may lie about its buffers
                for start in range(0, batch.num_rows, step):
                    yield plain_batch(batch.slice(start, step))
                    remembered += step * row_bytes
                    if remembered > REMEMBERED_BYTES:
                        messages.forget()
                        remembered = 0


def unpacked_bytes(source: Path) -> int:
    """Return the bytes that the largest compressed batch of a stream says it unpacks to; 0 without any.

    Raises:
        TableError: The stream is damaged.
    """
    check_content(source, TableFormat.ARROW)
    most = 0
    with _decoding():
        messages = _Messages(source, dictionaries=True)
        messages.schema()
        for message in messages.batches():
            most = max(most, _BatchHeader(message).unpacked)
            messages.forget()  # the kernel maps more than is looked at
    return most


def check_stream(
    source: Path | bytes, options: ParseOptions, *, validate: bool = True
) -> StreamCheck:
    """Check all of a stream without unpacking anything or reading its numbers.

    Args:
        source: File, or all of its bytes.
        options: Bounds of the table's size.
        validate: True to validate the batches; else the number of rows stays unknown.

    Raises:
        TableError: As `open_arrow` and its chunks.
    """
    check_content(source, TableFormat.ARROW)
    unpacked = rows = 0
    certain = validate
    with _decoding():
        messages = _Messages(source)
        schema = messages.schema()
        check_columns(len(schema), options=options)
        _, dtypes = real_columns(schema)
        for message in messages.batches():
            header = _BatchHeader(message)
            rows += header.rows
            check_rows(rows, row_bytes=row_bytes(dtypes), options=options)
            if header.compressed:
                certain = False
                unpacked = max(unpacked, header.unpacked)
            elif validate:
                pa.ipc.read_record_batch(message, schema).validate(full=True)
            messages.forget()  # the kernel maps more than is looked at
    return StreamCheck(unpacked, rows if certain else None)


def real_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return the names and the types of columns that must all be plain real numbers.

    Raises:
        TableError: ``dataset-dtype``, naming the first that is not; or a name is bad.
    """
    names = clean_names(list(schema.names))
    for name, field in zip(names, schema, strict=True):
        if not _is_real(field):
            raise TableError(
                "dataset-dtype",
                f"Column {name!r} is of type {str(field.type)[:64]}; only plain integers and"
                " floats are accepted.",
                column=name,
            )
    return names, [_FLOATS.get(str(field.type), str(field.type)) for field in schema]


def row_bytes(dtypes: list[str]) -> int:
    """Return the bytes of a row of the stored table."""
    return len(dtypes) * (4 if set(dtypes) <= {"float16", "float32"} else 8)


def columns_of(batch: pa.RecordBatch) -> Columns:
    """Copy a batch of numeric columns; nulls become not-a-number."""
    values = np.empty((batch.num_columns, batch.num_rows))
    with np.errstate(invalid="ignore"):  # a signalling not-a-number is missing like any other
        for position, column in enumerate(batch.columns):
            values[position] = column.to_numpy(zero_copy_only=False)
    return values


def _is_real(field: pa.Field) -> bool:
    extended = field.metadata is not None and _EXTENSION_KEY in field.metadata
    return not extended and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))


def _chunks(
    messages: "_Messages", schema: pa.Schema, *, row_bytes: int, options: ParseOptions
) -> Iterator[Columns]:
    step = rows_per_chunk(len(schema))
    rows = remembered = 0
    with _decoding():
        for message in messages.batches():
            header = _BatchHeader(message)
            rows += header.rows
            check_rows(rows, row_bytes=row_bytes, options=options)
            header.check_unpacked(columns=len(schema))
            batch = pa.ipc.read_record_batch(message, schema)
            batch.validate(full=True)  # otherwise its lengths may lie about its buffers
            for start in range(0, batch.num_rows, step):
                values = columns_of(batch.slice(start, step))
                remembered += values.nbytes
                if remembered > REMEMBERED_BYTES:
                    messages.forget()
                    remembered = 0
                yield values


class _Messages:
    """Messages of a stream, which must end with its end marker and nothing after it."""

    def __init__(self, source: Path | bytes, *, dictionaries: bool = False) -> None:
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
        message = self._reader.read_next_message()
        if message.type != "schema":
            raise _damaged("it does not begin with a schema")
        if message.metadata.size > MAX_SCHEMA_BYTES:
            raise TableError(
                "limit-metadata", f"The schema has more than {MAX_SCHEMA_BYTES} bytes."
            )
        return pa.ipc.read_schema(message)

    def batches(self) -> Iterator[pa.Message]:
        """Read the others."""
        while True:
            position = self._file.tell()
            try:
                message = self._reader.read_next_message()
            except StopIteration:
                break
            if message.type not in self._kinds:
                raise _damaged(f"it holds a message of an unexpected kind ({message.type})")
            yield message
        if self._file.tell() != len(self._bytes):
            raise _damaged("bytes follow its end marker")
        if position == len(self._bytes):
            raise _damaged("its end marker is missing")


class _BatchHeader:
    """Header of a record batch, whose flatbuffer has been verified by Arrow."""

    def __init__(self, message: pa.Message) -> None:
        self._body = memoryview(message.body)
        self._bytes = memoryview(message.metadata)
        root = self._int("I", 0)
        place = self._field(root, _HEADER_SLOT)
        if place is None:
            raise _damaged("a record batch has no header")
        self._batch = place + self._int("I", place)
        if message.type == "dictionary":
            data = self._field(self._batch, _DATA_SLOT)
            if data is None:
                raise _damaged("a dictionary has no values")
            self._batch = data + self._int("I", data)
        length = self._field(self._batch, _LENGTH_SLOT)
        self.rows = 0 if length is None else self._int("q", length)
        if self.rows < 0:
            raise _damaged("a record batch has a negative number of rows")

    @property
    def compressed(self) -> bool:
        """True where the buffers are compressed."""
        return self._field(self._batch, _COMPRESSION_SLOT) is not None

    @property
    def unpacked(self) -> int:
        """Bytes that its buffers say they unpack to; 0 where they are not compressed."""
        return sum(self._unpacked_sizes()) if self.compressed else 0

    def check_unpacked(self, *, columns: int) -> None:
        """Refuse a compressed batch that unpacks to too much, or to more than its rows need."""
        self.check_size()
        # Eight bytes and one bit a value, and some padding of each buffer.
        if self.unpacked > columns * (9 * self.rows + 256):
            raise _damaged("a record batch unpacks to more than its rows can have")

    def check_size(self) -> None:
        """Refuse a compressed batch that unpacks to too much."""
        if self.unpacked > MAX_UNPACKED_BYTES:
            raise TableError(
                "dataset-too-large",
                f"A compressed record batch unpacks to more than {MAX_UNPACKED_BYTES} bytes. Write"
                " smaller batches.",
            )

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
        """Return the place of a field of a flatbuffer table, or None where it has none."""
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
