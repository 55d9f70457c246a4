"""Reading Parquet page by page, with nothing in its footer believed before it is checked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.readers.arrow import (
    BatchCheck,
    cell_source,
    columns_of,
    real_columns,
    row_bytes,
)
from tabular.source import (
    CellSource,
    Columns,
    TableSource,
    check_columns,
    check_rows,
    rows_per_chunk,
)

MAX_FOOTER_BYTES = 16 << 20
"""The largest footer that is parsed."""

MAX_ROW_GROUPS = 10_000
"""The most row groups that a file may have."""

MAX_ROW_GROUP_BYTES = 2 << 30
"""The largest row group, as its metadata gives the size before compression."""

_MAGIC = b"PAR1"
_BUFFERS_BYTES = 16 << 20
_MIN_BUFFER_BYTES = 4 << 10
_MAX_BUFFER_BYTES = 64 << 10
_DAMAGED = "The Parquet file is damaged or cut off: "


def open_parquet(path: Path, options: ParseOptions) -> TableSource:
    """Open a Parquet file.

    Raises:
        TableError: The file is damaged, too large, or holds anything but plain real columns.
    """
    _check_footer(path)
    with _decoding():
        file = _open(path)
        # Of the file's own schema: Arrow's may have fewer columns, each of several.
        check_columns(file.metadata.num_columns, options=options)
        names, dtypes = real_columns(file.schema_arrow)
        _check_metadata(file.metadata, row_bytes=row_bytes(dtypes), options=options)
    return TableSource(names=names, dtypes=dtypes, named=True, chunks=_chunks(file), warnings=[])


def open_parquet_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open a Parquet file of numbers, text, booleans or dates.

    Raises:
        TableError: The file is damaged or too large, or a column holds no single values.
    """
    _check_footer(path)
    with _decoding():
        file = _open(path)
        check_columns(file.metadata.num_columns, options=options)
        schema = file.schema_arrow
        source = cell_source(schema, lambda _: _cell_batches(path), options=options)
        _check_metadata(file.metadata, row_bytes=8 * len(schema), options=options)
    return source


def _cell_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file; texts, which Parquet does not check, are UTF-8."""
    with _decoding():
        file = _open(path)
        check = BatchCheck(frozenset(range(len(file.schema_arrow))))
        for batch in _batches(file):
            yield check.plain(check.checked(batch))


@contextmanager
def _decoding() -> Iterator[None]:
    """Tell a damaged file, which Arrow reports in several ways, from a disk that fails."""
    try:
        yield
    except MemoryError:
        raise
    except UnicodeDecodeError:
        raise TableError("dataset-encoding", "A name in the file is not UTF-8.") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TableError("dataset-parse", f"{_DAMAGED}a part of it cannot be decoded.") from None


def _check_footer(path: Path) -> None:
    """Bound the parsing of the footer, which has no bound of its own."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < 12:
            raise TableError("dataset-parse", f"{_DAMAGED}it is shorter than any can be.")
        file.seek(size - 8)
        end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC:
        raise TableError("dataset-parse", f"{_DAMAGED}it does not end as such a file does.")
    if length > size - 12:
        raise TableError("dataset-parse", f"{_DAMAGED}its footer is longer than the file.")
    if length > MAX_FOOTER_BYTES:
        raise TableError(
            "limit-metadata",
            f"The footer of the Parquet file has {length} bytes; at most {MAX_FOOTER_BYTES} are"
            " allowed. Write fewer row groups or less metadata.",
        )


def _open(path: Path) -> pq.ParquetFile:
    name = os.fspath(path)
    metadata = pq.read_metadata(pa.OSFile(name))
    return pq.ParquetFile(
        pa.OSFile(name),
        metadata=metadata,
        # Read pages as they are needed: otherwise whole column chunks are, and the uploader sets
        # their size.
        buffer_size=_buffer_bytes(metadata.num_columns),
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _buffer_bytes(columns: int) -> int:
    """Share the memory for reading among the columns, which are all read at once."""
    return max(_MIN_BUFFER_BYTES, min(_MAX_BUFFER_BYTES, _BUFFERS_BYTES // max(1, columns)))


def _check_metadata(metadata: pq.FileMetaData, *, row_bytes: int, options: ParseOptions) -> None:
    if metadata.num_row_groups > MAX_ROW_GROUPS:
        raise TableError(
            "limit-metadata",
            f"The Parquet file has {metadata.num_row_groups} row groups; at most"
            f" {MAX_ROW_GROUPS} are allowed.",
        )
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if any(g.num_rows < 0 for g in groups) or metadata.num_rows != sum(g.num_rows for g in groups):
        raise TableError("dataset-parse", f"{_DAMAGED}its numbers of rows do not agree.")
    check_rows(metadata.num_rows, row_bytes=row_bytes, options=options)
    if any(group.total_byte_size > MAX_ROW_GROUP_BYTES for group in groups):
        raise TableError(
            "dataset-too-large",
            f"A row group of the Parquet file has more than {MAX_ROW_GROUP_BYTES} bytes. Write"
            " smaller row groups.",
        )


def _chunks(file: pq.ParquetFile) -> Iterator[Columns]:
    return map(columns_of, _batches(file))


def _batches(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata
    rows = 0
    with file, _decoding():
        for batch in file.iter_batches(
            batch_size=rows_per_chunk(metadata.num_columns), use_threads=False
        ):
            rows += batch.num_rows
            yield batch
    if rows != metadata.num_rows:
        raise TableError("dataset-parse", f"{_DAMAGED}it has fewer rows than its footer says.")
