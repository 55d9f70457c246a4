"""Opening of files of any format."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tabular.formats import ParseOptions, TableFormat
from tabular.readers.npy import open_npy
from tabular.source import (
    CellSource,
    Choose,
    Columns,
    TableSource,
    check_content,
    check_rows,
    gather_batches,
)

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information


def open_table(
    path: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
) -> TableSource:
    """Open a file; missing and infinite values are in its rows as they come.

    Raises:
        TableError: The file cannot be read; its chunks raise the same.
    """
    check_content(path, format)
    return _checked(_open(path, format, options), options)


def open_cells(
    path: Path,
    *,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
    gathers: bool = True,
    choose: Choose | None = None,
    whole: object = None,
) -> CellSource:
    """Open a file of columns of any type; missing and infinite values are in its rows as they come.

    Args:
        path: File to read.
        format: Format of the file.
        options: Options of reading, and bounds of the size.
        gathers: True to join batches that are short.
        choose: Function that finds the columns that are wanted; None: all are.
        whole: Row that has the members of all rows of NDJSON; None where it is not known.

    Raises:
        TableError: The file cannot be read; its batches raise the same.
    """
    check_content(path, format)
    source = _open_cells(path, format, options, choose, whole)

    def read(text: frozenset[int]) -> Iterator["pa.RecordBatch"]:
        row_bytes = len(source.names) * np.dtype(stored_dtype(source)).itemsize
        rows = 0
        batches = source.read(text)
        for batch in gather_batches(batches) if gathers else batches:
            rows += batch.num_rows
            check_rows(rows, row_bytes=row_bytes, options=options)
            yield batch

    return dataclasses.replace(source, read=read)


def open_arrow_bytes(body: bytes, options: ParseOptions) -> TableSource:
    """Open an Arrow IPC stream that is in memory, as `open_table` does a file.

    Raises:
        TableError: As `open_table`.
    """
    from tabular.readers.arrow import open_arrow  # noqa: PLC0415 - slow to import

    check_content(body, TableFormat.ARROW)
    return _checked(open_arrow(body, options), options)


def stored_dtype(table: TableSource | CellSource) -> Literal["float32", "float64"]:
    """Return the type that holds every value of a table as it came."""
    return "float32" if set(table.dtypes) <= {"float16", "float32"} else "float64"


def _checked(table: TableSource, options: ParseOptions) -> TableSource:
    """Return the same table, with the number of its rows bounded."""

    def chunks() -> Iterator[Columns]:
        row_bytes = len(table.names) * np.dtype(stored_dtype(table)).itemsize
        rows = 0
        for chunk in table.chunks:
            rows += chunk.shape[1]
            check_rows(rows, row_bytes=row_bytes, options=options)
            yield chunk

    return dataclasses.replace(table, chunks=chunks())


def _open_cells(
    path: Path,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
    choose: Choose | None,
    whole: object,
) -> CellSource:
    match format:
        case TableFormat.JSON:
            from tabular.readers.json import open_json_cells  # noqa: PLC0415 - as below

            return open_json_cells(path, options)
        case TableFormat.NDJSON:
            from tabular.readers.json import open_ndjson_cells  # noqa: PLC0415 - as below

            return open_ndjson_cells(path, options, whole=whole)
        case TableFormat.CSV:
            from tabular.readers.csv import open_csv_cells  # noqa: PLC0415 - as below

            return open_csv_cells(path, options)
        case TableFormat.ARROW:
            from tabular.readers.arrow import open_arrow_cells  # noqa: PLC0415 - as below

            return open_arrow_cells(path, options, choose=choose)
        case TableFormat.PARQUET:
            from tabular.readers.parquet import open_parquet_cells  # noqa: PLC0415 - as below

            return open_parquet_cells(path, options)
        case TableFormat.NPY:
            return _npy_cells(path, options)


def _npy_cells(path: Path, options: ParseOptions) -> CellSource:
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    first = open_npy(path, options)
    names = [str(place) for place in range(len(first.names))]

    def read(_: frozenset[int]) -> Iterator["pa.RecordBatch"]:
        for chunk in open_npy(path, options).chunks:
            yield pa.record_batch([pa.array(column) for column in chunk], names=names)

    return CellSource(
        names=first.names,
        dtypes=first.dtypes,
        named=False,
        nameless=frozenset(),
        text=frozenset(),
        read=read,
        warnings=[],
    )


def _open(
    path: Path,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
) -> TableSource:
    match format:
        case TableFormat.JSON:
            # Each is slow to import and needed for its format alone.
            from tabular.readers.json import open_json  # noqa: PLC0415 - as said

            return open_json(path, options)
        case TableFormat.NDJSON:
            from tabular.readers.json import open_ndjson  # noqa: PLC0415 - as above

            return open_ndjson(path, options)
        case TableFormat.CSV:
            raise AssertionError  # whose cells are text
        case TableFormat.ARROW:
            from tabular.readers.arrow import open_arrow  # noqa: PLC0415 - as above

            return open_arrow(path, options)
        case TableFormat.PARQUET:
            from tabular.readers.parquet import open_parquet  # noqa: PLC0415 - as above

            return open_parquet(path, options)
        case TableFormat.NPY:
            return open_npy(path, options)
