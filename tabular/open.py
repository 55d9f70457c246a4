"""Opening of tables of any format."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.formats import ParseOptions, TableFormat
from tabular.readers.arrow import open_arrow, open_parquet
from tabular.readers.csv import open_csv
from tabular.readers.excel import open_excel
from tabular.readers.json import open_json, open_ndjson
from tabular.readers.npy import open_npy
from tabular.source import Source, check_content, check_rows

_READERS = {
    TableFormat.JSON: open_json,
    TableFormat.NDJSON: open_ndjson,
    TableFormat.CSV: open_csv,
    TableFormat.NPY: open_npy,
    TableFormat.ARROW: open_arrow,
    TableFormat.PARQUET: open_parquet,
    TableFormat.EXCEL: open_excel,
}


def open_source(
    content: Path | bytes,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
) -> Source:
    """Open a file of columns of any type; missing and infinite values are in its rows as they come.

    Args:
        content: File to read; of Arrow and Parquet, its bytes may be given instead.
        format: Format that its sender declared.
        options: Options of reading, and bounds of the size.

    Raises:
        TableError: The file cannot be read; its batches raise the same.
    """
    check_content(content, format)
    source = _READERS[format](content, options)  # type: ignore[arg-type] # bytes are of binary formats

    def batches() -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in source.batches():
            rows += batch.num_rows
            check_rows(rows, row_bytes=8 * len(source.names), options=options)
            yield batch

    return dataclasses.replace(source, batches=batches)
