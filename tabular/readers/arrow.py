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

from tabular.cells import is_text, timestamps
from tabular.dates import FIRST_S, LAST_S
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
    kinds = [_bare(field.type) for field in schema]
    for name, kind in zip(names, kinds, strict=True):
        if not _is_known(kind):
            text = f"Column {name!r} is of type {_name_of(kind)}, which is not read."
            raise TableError("dataset-dtype", text, column=name)
    unread = {place: NESTED for place, kind in enumerate(kinds) if not _has_cells(kind)}
    plain = [_plain_type(kind) for kind in kinds]
    dtypes = [_name_of(field.type) for field in schema]

    dates = [at for at, kind in enumerate(plain) if _is_date(kind)]

    def batches() -> Iterator[pa.RecordBatch]:
        step, rows = rows_per_chunk(len(kinds)), 0
        for batch in read():
            for start in range(0, batch.num_rows, step):
                columns = list(map(_plain, batch.slice(start, step).columns, plain))
                for at in dates:
                    _check_dates(columns[at], names[at], rows + start)
                yield pa.record_batch(columns, names=[str(at) for at in range(len(plain))])
            rows += batch.num_rows

    return Source(
        names=names,
        dtypes=[_FLOATS.get(name, name) for name in dtypes],
        types=plain,
        named=True,
        nameless=nameless,
        batches=batches,
        warnings=warnings,
        unread=unread,
    )


def _name_of(kind: pa.DataType) -> str:
    """Return the name of a type, without what is nested in it."""
    return str(kind).partition("<")[0].partition("(")[0].partition("[")[0][:_LONGEST_TYPE]


def _bare(kind: pa.DataType) -> pa.DataType:
    """Return the type of values, without the extensions and dictionaries around them."""
    if isinstance(kind, pa.BaseExtensionType):
        return _bare(kind.storage_type)
    return _bare(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _is_known(kind: pa.DataType) -> bool:
    """Return whether values of a type can be cast: Arrow looks the powers of decimals up without a bound."""
    if pa.types.is_decimal(kind):
        return bool(abs(kind.scale) <= _MOST_DIGITS[kind.bit_width])
    return not pa.types.is_interval(kind)


def _has_cells(kind: pa.DataType) -> bool:
    """Return whether values of a type are single cells."""
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_other = pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or pa.types.is_null(kind)
    return bool(is_number or is_other or is_text(kind))


def _is_date(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _check_dates(cells: pa.Array, name: str, before: int) -> None:
    """Refuse dates that no text tells, and some of which Parquet does not store."""
    seconds = timestamps(cells)
    outside = (seconds < FIRST_S) | (seconds >= LAST_S + 1)
    if outside.any():
        row = before + int(outside.argmax()) + 1
        raise TableError(
            "dataset-range",
            f"Column {name!r}, row {row}: the date is not of the years 1 to 9999. Write such cells as missing.",
            column=name,
            row=row,
        )


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type as which cells are read: that of the file, or text or floats that stand for it."""
    if pa.types.is_decimal(kind):
        return pa.float64()
    if not _has_cells(kind) or is_text(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, "UTC")  # a zone may be any text
    return kind


def _plain(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(cells, pa.ExtensionArray):
        return _plain(cells.storage, kind)
    if pa.types.is_dictionary(cells.type):
        return _plain(cells.dictionary_decode(), kind)
    if not _has_cells(cells.type):
        return pa.nulls(len(cells), kind)
    if pa.types.is_decimal(cells.type):
        # The cast multiplies by an inexact power of ten.
        numbers = cells.cast(pa.float64()).to_numpy(zero_copy_only=False)
        rounded = round_to(numbers, min(max(cells.type.scale, 0), MAX_DECIMALS))
        return pa.array(rounded, mask=np.isnan(numbers))
    return cells if cells.type == kind else cells.cast(kind)
