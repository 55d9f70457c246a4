"""Files of tables, what the fixtures that parse them look like, and columns of cells that are read from CSV."""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
import pytest
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import ColumnSummary, ParseOptions, TableFormat, TableSummary
from tabular.ingest.statistics import DISTINCT_CAP
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


EXACT = np.random.default_rng(7).integers(-4096, 4096, (11, 3)) / 64
PERMISSIVE = ParseOptions(missing="drop", constant="keep")


def write(kind: TableFormat, table: NDArray[np.floating]) -> bytes:
    buffer = io.BytesIO()
    match kind:
        case TableFormat.NPY:
            np.save(buffer, table)
        case TableFormat.PARQUET:
            columns = {f"x{i + 1}": table[:, i] for i in range(table.shape[1])}
            pq.write_table(pa.table(columns), buffer, write_page_checksum=True)
        case TableFormat.ARROW:
            columns = {f"x{i + 1}": table[:, i] for i in range(table.shape[1])}
            batches = pa.table(columns)
            with pa.ipc.new_stream(buffer, batches.schema) as writer:
                writer.write_table(batches, max_chunksize=8)
        case TableFormat.JSON:
            buffer.write(json.dumps({"rows": table.astype(float).tolist()}).encode())
        case TableFormat.NDJSON:
            for row in table.astype(float).tolist():
                named = {f"x{i + 1}": value for i, value in enumerate(row)}
                buffer.write(json.dumps(named).encode() + b"\n")
        case TableFormat.CSV:
            names = ",".join(f"x{i + 1}" for i in range(table.shape[1]))
            lines = [",".join(repr(float(v)) for v in row) for row in table]
            buffer.write("\n".join([names, *lines, ""]).encode())
        case _:  # Excel, which is not written
            raise NotImplementedError
    return buffer.getvalue()


KINDS = [kind for kind in TableFormat if kind is not TableFormat.EXCEL]
WHOLE = {kind: write(kind, EXACT) for kind in KINDS}


def parse(
    data: bytes, kind: TableFormat, options: ParseOptions = PERMISSIVE
) -> tuple[TableSummary, NDArray[np.floating]] | None:
    """Parse, and check that the outcome is one of the two that are allowed."""
    with TemporaryDirectory() as folder:
        source, destination = Path(folder, "upload"), Path(folder, "table.npy")
        source.write_bytes(data)
        try:
            summary = parse_table(source, destination, format=kind, options=options)
        except TableError:
            assert not destination.exists()
            return None
        stored = np.load(destination)
        assert summary.sha256 == hashlib.sha256(destination.read_bytes()).hexdigest()
        assert summary.source_sha256 == hashlib.sha256(data).hexdigest()
        assert (summary.bytes, summary.source_bytes) == (destination.stat().st_size, len(data))
        check_summary(summary, stored)
        return summary, stored


def check_summary(summary: TableSummary, stored: NDArray[np.floating]) -> None:
    assert stored.dtype == summary.dtype
    assert stored.flags.c_contiguous
    modelled = [column for column in summary.columns if column.column.type != "ignored"]
    assert stored.shape == (summary.rows, len(modelled))
    assert not np.isinf(stored).any()
    json.dumps(summary.warnings, allow_nan=False)
    for column in summary.columns:
        written = json.dumps(column.to_dict(), allow_nan=False)
        assert ColumnSummary.from_dict(json.loads(written)).to_dict() == json.loads(written)
    for i, column in enumerate(modelled):
        x = stored[:, i].astype(np.float64)
        x = x[~np.isnan(x)]
        values, counts = np.unique(x, return_counts=True)
        rows_of = dict(zip(values.tolist(), counts.tolist(), strict=True))
        assert column.missing_count == summary.rows - x.size
        numbers = column.column.level_numbers
        assert x.size
        assert not numbers or set(rows_of) <= set(numbers)
        assert list(column.level_counts) == [rows_of.get(number, 0) for number in numbers]
        if column.column.holds_values:
            check_values(column, x, rows_of)


def check_values(column: ColumnSummary, x: NDArray[np.float64], rows_of: dict[float, int]) -> None:
    """Check the statistics of values, exactly where they are centred before they are added."""
    assert column.min is not None
    assert column.max is not None
    assert column.mean is not None
    assert (column.min, column.max) == (float(x.min()), float(x.max()))
    assert column.min <= column.mean <= column.max
    size, spread = float(np.abs(x).max()), float(np.ptp(x))
    centred = (x - x[0]).astype(np.longdouble)
    mean = float(centred.mean())
    assert column.mean - x[0] == pytest.approx(mean, rel=1e-12, abs=1e-14 * size)
    assert column.std == pytest.approx(float(centred.std()), rel=1e-9, abs=1e-9 * spread + 1e-160)
    assert column.distinct == (len(rows_of) if len(rows_of) <= DISTINCT_CAP else None)
    if column.column.levels:
        return
    shares = list(column.quantiles.values())
    assert shares == sorted(shares)
    assert set(shares) <= set(rows_of)
    spikes = column.column.spikes
    assert list(spikes) == sorted(set(spikes))
    assert list(column.spike_counts) == [rows_of[spike] for spike in spikes]
    rest = x[~np.isin(x, spikes)]
    low = column.column.low
    assert low is None or not rest.size or low <= rest.min()
    assert column.column.transform != "log" or rest.min() > 0
    assert column.column.type != "integer" or np.array_equal(x, np.rint(x))
