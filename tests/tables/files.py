"""Files of tables, what the fixtures that parse them look like, and columns of cells that are read from CSV."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.errors import TableError
from tabular.formats import ColumnSummary, ParseOptions, TableFormat, TableSummary
from tabular.ingest.storing import parse_table

Accept = Callable[..., TableSummary]
Refuse = Callable[..., TableError]


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def parquet(table: pa.Table, **settings: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **settings)
    return buffer.getvalue()


def arrow(table: pa.Table, *, compression: str | None = None, rows: int | None = None) -> bytes:
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return buffer.getvalue()


def read(data: bytes, **options: Any) -> tuple[TableSummary, np.ndarray[Any, Any]]:
    """Return what is said of a CSV file, and its numbers."""
    with TemporaryDirectory() as folder:
        upload, table = Path(folder) / "upload", Path(folder) / "table.npy"
        upload.write_bytes(data)
        chosen = ParseOptions(**options)
        summary = parse_table(upload, table, format=TableFormat.CSV, options=chosen)
        return summary, np.load(table)


def column_of(cells: list[str], **options: Any) -> ColumnSummary:
    """Return the type of a column beside another, so that the file has a separator."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["column", "beside"])
    writer.writerows([cell, f"{i * i}.25"] for i, cell in enumerate(cells))
    return read(buffer.getvalue().encode(), **options)[0].columns[0]
