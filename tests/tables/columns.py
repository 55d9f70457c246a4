"""Columns of cells as text, read from a CSV file."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tabular.formats import ColumnSummary, ParseOptions, TableFormat, TableSummary
from tabular.ingest.storing import parse_table


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
