"""Reading Arrow IPC streams message by message, from memory or a file that is mapped, not loaded.

A record batch may be as large as its writer likes: what is not compressed is read in slices from
the disk, what is compressed must announce how much it unpacks to, and is bounded before it is.
Parquet and CSV share the handling of schemas and batches of real columns.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.arrow.messages import (
    MAX_UNPACKED_BYTES,
    DeltaCheck,
    Messages,
    decoding,
)
from tabular.arrow.type_names import type_name
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat
from tabular.numbers import MAX_DECIMALS, round_to
from tabular.source import (
    NESTED,
    CellSource,
    Choose,
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

REMEMBERED_BYTES = 16 << 20
"""How much of a file that has been read may stay in the memory of the process."""

_DICTIONARY_BYTES = (
    4 << 20
)  # of all that are read in this process, where to join them takes a tenth of a second
_EXTENSION_KEY = b"ARROW:extension:name"
_UNKNOWN = {"month_interval", "day_time_interval"}  # PyArrow has no arrays of them
_MOST_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}  # of decimals of so many bits
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


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
    with decoding():
        messages = Messages(source, max_columns=options.max_columns)
        schema = messages.schema()
        check_columns(len(schema), options=options)
        names, dtypes = real_columns(schema)
    chunks = gather(_chunks(messages, schema, row_bytes=row_bytes(dtypes), options=options))
    return TableSource(names=names, dtypes=dtypes, named=True, chunks=chunks, warnings=[])


def open_arrow_cells(
    path: Path, options: ParseOptions, *, choose: Choose | None = None
) -> CellSource:
    """Open an Arrow IPC stream of numbers, text, booleans, dates or dictionaries.

    Args:
        path: File to read.
        options: Bounds of the table's size.
        choose: Function that finds the columns that are wanted; None: all are. The values of the others
            are never looked at: their cells are null.

    Raises:
        TableError: The stream is damaged or too large, or a column holds no single values.
    """
    with decoding():
        schema = Messages(path, max_columns=options.max_columns).schema()
        check_columns(len(schema), options=options)

        def read(_: frozenset[int]) -> Iterator[pa.RecordBatch]:
            return _cell_batches(path, schema, options, wanted)

        source = cell_source(schema, read, options=options)
        every = range(len(source.names))
        wanted = frozenset(every if choose is None else choose(source.names, source.named))
        return source


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
        options: Bounds of the table's size.

    Raises:
        TableError: ``limit-columns``.
    """
    names, nameless, warnings = mend_names(list(schema.names))
    kinds = [field.type for field in schema]
    for name, kind in zip(names, kinds, strict=True):
        if type_name(kind) in _UNKNOWN or not _has_known_scale(kind):
            raise TableError(
                "dataset-dtype",
                f"Column {name!r} is of type {type_name(kind)}, which is not read.",
                column=name,
            )
    check_columns(len(names), options=options)
    return CellSource(
        names=names,
        dtypes=[_FLOATS.get(name, name) for name in map(type_name, kinds)],
        named=True,
        nameless=nameless,
        text=frozenset(place for place, kind in enumerate(kinds) if not holds_numbers(kind)),
        read=read,
        warnings=warnings,
        unread={place: NESTED for place, kind in enumerate(kinds) if not _has_cells(kind)},
    )


def holds_numbers(kind: pa.DataType) -> bool:
    """Return whether cells of a type are numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _has_known_scale(kind: pa.DataType) -> bool:
    """Return whether values of a type can be cast: Arrow looks the powers of decimals up without a bound."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_known_scale(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_known_scale(kind.value_type)
    return not pa.types.is_decimal(kind) or abs(kind.scale) <= _MOST_DIGITS[kind.bit_width]


def _plain(cells: pa.Array) -> pa.Array:
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    kind = cells.type
    if pa.types.is_decimal(kind):
        # The cast multiplies by an inexact power of ten.
        numbers = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
        rounded = round_to(numbers, min(kind.scale, MAX_DECIMALS))
        return pa.array(rounded, mask=np.isnan(numbers))
    if not _has_cells(kind):
        return pa.nulls(len(cells), pa.string())
    if pa.types.is_large_string(kind) or kind in {pa.string_view(), pa.null()}:
        return cells.cast(pa.string())
    if pa.types.is_timestamp(kind) and not _has_known_zone(kind):
        return cells.cast(pa.timestamp(kind.unit, "UTC"))
    return cells


def _has_known_zone(kind: pa.TimestampType) -> bool:
    """Return whether timestamps of a type can be written as text; a zone may be any text."""
    try:
        pa.scalar(0, kind).cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


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


def _cell_batches(
    path: Path, schema: pa.Schema, options: ParseOptions, wanted: frozenset[int]
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream in slices, after a look at all of its headers."""
    step = rows_per_chunk(len(schema))
    row_bytes = 8 * len(schema)
    rows = remembered = 0
    deltas, check = DeltaCheck(), BatchCheck(wanted)
    with decoding():
        messages = Messages(path, max_columns=options.max_columns, dictionaries=True)
        messages.schema()
        for message, header in messages.batches():
            header.check_size()
            header.check_overlaps()
            if message.type == "record batch":
                rows += header.rows
                check_rows(rows, row_bytes=row_bytes, options=options)
            else:
                deltas.add(header)
            messages.forget()
        with messages.stream() as reader:
            for batch in reader:
                batch = check.checked(batch)  # noqa: PLW2901 - the same, with other dictionaries
                for start in range(0, batch.num_rows, step):
                    yield check.plain(batch.slice(start, step))
                    remembered += step * row_bytes
                    if remembered > REMEMBERED_BYTES:
                        messages.forget()
                        remembered = 0


class BatchCheck:
    """Check of the batches of a file, whose lengths may lie about their buffers.

    A dictionary is looked at, and made plain, once, not with each of its batches, and its indices some rows
    at a time. Columns whose values are not read are not looked at.

    Args:
        wanted: Places of the columns whose values are read, as far as these are single cells.
    """

    def __init__(self, wanted: frozenset[int]) -> None:
        self._wanted = wanted
        self._dictionaries: dict[int, tuple[pa.Array, pa.Array, pa.Array | None]] = {}

    def checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch without what is not read; refuse it if it is damaged, or its texts are too long."""
        batch.validate()
        columns = [
            column.storage if isinstance(column, pa.ExtensionArray) else column
            for column in batch.columns
        ]
        read = {place for place in self._wanted if _has_cells(columns[place].type)}
        _check_views(columns[place] for place in read)
        for place, cells in enumerate(columns):
            if place not in read:
                columns[place] = pa.nulls(batch.num_rows)
            elif pa.types.is_dictionary(cells.type):
                self._check_dictionary(place, cells)
            else:
                cells.validate(full=True)
        return pa.record_batch(columns, names=[str(place) for place in range(len(columns))])

    def plain(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return some rows of the batch that was checked last, of types that are computed with."""
        columns = [
            self._plain_cells(place, cells) if pa.types.is_dictionary(cells.type) else _plain(cells)
            for place, cells in enumerate(rows.columns)
        ]
        return pa.record_batch(columns, names=rows.schema.names)

    def _check_dictionary(self, place: int, cells: pa.Array) -> None:
        values = cells.dictionary
        known, _, _ = self._dictionaries.get(place, (None, None, None))
        if known is None or _buffers(known) != _buffers(values):
            _check_views([values])
            values.validate(full=True)
            # The buffers of the values stay where they are.
            self._dictionaries[place] = values, *_without_nulls(_plain(values))
        cells.indices.validate(full=True)

    def _plain_cells(self, place: int, cells: pa.Array) -> pa.Array:
        _, plain, places = self._dictionaries[place]
        # Of 32 bits: batches with other dictionaries may be joined, whose values are more together.
        indices = cells.indices.cast(pa.int32())
        indices = indices if places is None else places.take(indices)
        return pa.DictionaryArray.from_arrays(indices, plain)


def _without_nulls(values: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Return the values of a dictionary but nulls, with which none can be joined, and the new index of each.

    Args:
        values: Values of one dictionary.

    Returns:
        The values, and None where no index changes.
    """
    if not values.null_count:
        return values, None
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    places = pa.array(np.cumsum(valid, dtype=np.int32) - 1, pa.int32(), mask=~valid)
    return values.drop_null(), places


def _buffers(cells: pa.Array) -> list[object]:
    """Return where the values of cells lie."""
    places = [b and (b.address, b.size) for b in cells.buffers()]
    return [len(cells), cells.offset, *places]


def _check_views(columns: Iterable[pa.Array]) -> None:
    """Refuse texts of which many lie in the same few bytes: each is looked at, and copied."""
    size = 0
    for column in columns:
        cells = column
        while pa.types.is_dictionary(cells.type):
            cells = cells.dictionary
        if cells.type == pa.string_view():
            cells.validate()
            lengths = np.frombuffer(cells.buffers()[1], np.int32)[::4]
            lengths = lengths[cells.offset : cells.offset + len(cells)]
            present = cells.is_valid().to_numpy(zero_copy_only=False)
            size += int(lengths[present].astype(np.int64).clip(0).sum())
    if size > MAX_UNPACKED_BYTES:
        raise TableError(
            "dataset-too-large",
            f"The texts of a record batch have more than {MAX_UNPACKED_BYTES} bytes. Write smaller"
            " batches.",
        )


def is_packed(source: Path | bytes, options: ParseOptions) -> bool:
    """Return whether reading the cells of a stream may take more memory than its bytes.

    Args:
        source: File, or all of its bytes.
        options: Bounds of the table's size.

    Raises:
        TableError: The stream is damaged, or has too many rows or batches.
    """
    check_content(source, TableFormat.ARROW)
    rows = dictionaries = 0
    with decoding():
        messages = Messages(source, max_columns=options.max_columns, dictionaries=True)
        kinds = messages.schema().types
        packed = any(map(_holds_views, kinds))
        for message, header in messages.batches():
            packed = packed or header.unpacked > 0 or header.is_delta
            if message.type == "dictionary":
                # Values are copied as a whole where a few rows have them all, or batches are joined.
                dictionaries += header.size
                packed = packed or dictionaries > _DICTIONARY_BYTES
            else:
                rows += header.rows
                check_rows(rows, row_bytes=8 * len(kinds), options=options)
            messages.forget()  # the kernel maps more than is looked at
    return packed


def _holds_views(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_views(kind.storage_type)
    return kind == pa.string_view() or (
        pa.types.is_dictionary(kind) and _holds_views(kind.value_type)
    )


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
    with decoding():
        messages = Messages(source, max_columns=options.max_columns)
        schema = messages.schema()
        check_columns(len(schema), options=options)
        _, dtypes = real_columns(schema)
        for message, header in messages.batches():
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
                f"Column {name!r} is of type {type_name(field.type)}; only plain integers and"
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
    messages: Messages, schema: pa.Schema, *, row_bytes: int, options: ParseOptions
) -> Iterator[Columns]:
    step = rows_per_chunk(len(schema))
    rows = remembered = 0
    with decoding():
        for message, header in messages.batches():
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
