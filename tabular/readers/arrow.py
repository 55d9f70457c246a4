"""Arrow streams and Parquet files as columns of the types that they state.

Both trust the lengths that a file states about itself: they are read in a process of the pool alone.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.numbers import MAX_DECIMALS, round_to
from tabular.source import NESTED, Source, check_columns, mend_names, rows_per_chunk

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}
_MOST_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}  # of decimals of so many bits
_LONGEST_TYPE = 64
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"

Opened = Path | bytes


def open_arrow(source: Opened, options: ParseOptions) -> Source:
    """Open an Arrow IPC stream.

    Raises:
        TableError: The stream is damaged or too large.
    """

    def read() -> Iterator[pa.RecordBatch]:
        with _decoding("Arrow stream"), _opened(source) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                batch.validate(full=True)  # otherwise its lengths may lie about its buffers
                yield batch
            file.seek(max(0, file.size() - len(_STREAM_END)))
            if file.read() != _STREAM_END:  # between two batches a cut would not be noticed
                raise pa.ArrowInvalid("there is no end")

    with _decoding("Arrow stream"), _opened(source) as file, pa.ipc.open_stream(file) as stream:
        return _source(stream.schema, read, options)


def open_parquet(source: Opened, options: ParseOptions) -> Source:
    """Open a Parquet file.

    Raises:
        TableError: The file is damaged or too large.
    """

    def opened() -> pq.ParquetFile:
        return pq.ParquetFile(_opened(source), pre_buffer=False, page_checksum_verification=True)

    def read() -> Iterator[pa.RecordBatch]:
        rows = 0
        with _decoding("Parquet file"), opened() as file:
            step = rows_per_chunk(max(1, len(file.schema_arrow)))
            for batch in file.iter_batches(batch_size=step, use_threads=False):
                rows += batch.num_rows
                batch.validate(full=True)  # texts, which Parquet does not check, are UTF-8
                yield batch
            if rows != file.metadata.num_rows:
                raise TableError("dataset-parse", "The Parquet file has fewer rows than it says.")

    with _decoding("Parquet file"), opened() as file:
        return _source(file.schema_arrow, read, options)


def _opened(source: Opened) -> pa.NativeFile:
    return pa.BufferReader(source) if isinstance(source, bytes) else pa.OSFile(os.fspath(source))


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Tell a damaged file, which Arrow reports in several ways, from a disk that fails."""
    try:
        yield
    except (MemoryError, TableError):
        raise
    except UnicodeDecodeError:
        raise TableError("dataset-encoding", "A name in the file is not UTF-8.") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = f"The {what} is damaged or cut off: a part of it cannot be decoded."
        raise TableError("dataset-parse", text) from None


def _source(
    schema: pa.Schema, read: Callable[[], Iterator[pa.RecordBatch]], options: ParseOptions
) -> Source:
    check_columns(len(schema), options=options)
    names, nameless, warnings = mend_names(list(schema.names))
    kinds = [field.type for field in schema]
    for name, kind in zip(names, kinds, strict=True):
        if not _is_known(kind):
            text = f"Column {name!r} is of type {type_name(kind)}, which is not read."
            raise TableError("dataset-dtype", text, column=name)
    unread = {place: NESTED for place, kind in enumerate(kinds) if not _has_cells(kind)}
    plain = [_plain_type(kind) for kind in kinds]

    def batches() -> Iterator[pa.RecordBatch]:
        step = rows_per_chunk(len(kinds))
        for batch in read():
            for start in range(0, batch.num_rows, step):
                some = batch.slice(start, step)
                columns = [
                    _plain(cells, kind) for cells, kind in zip(some.columns, plain, strict=True)
                ]
                yield pa.record_batch(columns, names=[str(place) for place in range(len(kinds))])

    return Source(
        names=names,
        dtypes=[_FLOATS.get(name, name) for name in map(type_name, kinds)],
        types=plain,
        named=True,
        nameless=nameless,
        batches=batches,
        warnings=warnings,
        unread=unread,
    )


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type, without what is nested in it."""
    return str(kind).partition("<")[0].partition("(")[0].partition("[")[0][:_LONGEST_TYPE]


def _is_known(kind: pa.DataType) -> bool:
    """Return whether values of a type can be cast: Arrow looks the powers of decimals up without a bound."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_known(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_known(kind.value_type)
    if pa.types.is_decimal(kind):
        return bool(abs(kind.scale) <= _MOST_DIGITS[kind.bit_width])
    return not pa.types.is_interval(kind)


def _has_cells(kind: pa.DataType) -> bool:
    """Return whether values of a type are single cells."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_cells(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _has_cells(kind.value_type)
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
        or pa.types.is_null(kind)
        or _is_text(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type as which cells are read: that of the file, or text or floats that stand for it."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_decimal(kind):
        return pa.float64()
    if not _has_cells(kind) or _is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")  # a zone may be any text
    return kind


def _plain(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    if not _has_cells(cells.type):
        return pa.nulls(len(cells), kind)
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pa.types.is_decimal(cells.type):
        # The cast multiplies by an inexact power of ten.
        numbers = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
        rounded = round_to(numbers, min(max(cells.type.scale, 0), MAX_DECIMALS))
        return pa.array(rounded, mask=np.isnan(numbers))
    return cells if cells.type == kind else cells.cast(kind)
