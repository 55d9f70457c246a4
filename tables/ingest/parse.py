"""Parser of untrusted files to one npy file of floats for memory mapping, in bounded memory.

`parse_table` does the work; `parse_table_isolated` does it in a process of its own
(``python -m tables.ingest.parse``), which is what a server wants: a parser that crashes, hangs
or swells takes down nothing but itself.
"""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tables.errors import TableError
from tables.formats import (
    ColumnSummary,
    ParseOptions,
    TableFormat,
    TableSummary,
    TableWarning,
)
from tables.ingest.screen import RowScreen
from tables.ingest.statistics import RunningStatistics
from tables.ingest.warnings import Warnings, limit_warnings
from tables.open import open_table, stored_dtype
from tables.readers.npy import RowWriter
from tables.sandbox.child import do_task, run_child, too_much_memory
from tables.source import TableSource, check_content

MIN_ROWS = 2
"""The fewest rows of a table: one row has no spread."""

MIN_SPREAD = 1e-37
"""A column whose standard deviation is not above this is constant: float32 cannot scale it."""

_MAX_NAMED = 3


def parse_table(
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions | None = None,
) -> TableSummary:
    """Check a file and store it as a row-major npy file.

    Args:
        source: File as uploaded.
        destination: File to write; it is deleted after an error.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.

    Raises:
        TableError: The file cannot be stored; see ``docs/datasets.md``.
        OSError: The disk is full or failed.
    """
    try:
        return _parse(source, destination, format=format, options=options or ParseOptions())
    except MemoryError:
        destination.unlink(missing_ok=True)
        raise too_much_memory() from None
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def parse_table_isolated(
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions | None = None,
    timeout_s: float = 300.0,
    memory_bytes: int = 1 << 30,
) -> TableSummary:
    """Parse a table as `parse_table` does, in a process of its own, with limits; call it in a thread.

    Args:
        source: File as uploaded.
        destination: File to write; it is deleted after an error.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        memory_bytes: Most private memory of the process.

    Raises:
        TableError: The file cannot be stored, took too long or too much memory
            (``dataset-too-large``), or crashed its parser (``dataset-parse``).
        OSError: The disk is full or failed.
        RuntimeError: The parser failed for a reason of its own.
    """
    task = {
        "source": os.fspath(source.absolute()),
        "destination": os.fspath(destination.absolute()),
        "format": format.value,
        "options": dataclasses.asdict(options or ParseOptions()),
        "timeout_s": timeout_s,
        "memory_bytes": memory_bytes,
    }
    try:
        check_content(source, format)  # costs no process
        return _summary_of(run_child("tables.ingest.parse", task, timeout_s=timeout_s))
    except BaseException:
        # A child that was killed could not clean up.
        destination.unlink(missing_ok=True)
        raise


def _parse(
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
) -> TableSummary:
    table = open_table(source, format=format, options=options)
    dtype = stored_dtype(table)
    with RowWriter(destination, len(table.names), dtype=dtype) as writer:
        screen = RowScreen(table.names, missing=options.missing)
        statistics = RunningStatistics(len(table.names))
        _read_rows(table, writer, screen=screen, statistics=statistics)
        _check_row_count(screen)
        keep, constant = _settle_constants(table.names, statistics, options)
        if not keep.all():
            writer.keep_columns(keep)
        writer.finish()
    about = Warnings(statistics, names=table.names, dtypes=table.dtypes)
    varying = np.flatnonzero(~_is_constant(statistics))
    return TableSummary(
        rows=writer.rows,
        rows_dropped=screen.rows_dropped,
        dtype=dtype,
        columns=_summaries(table, statistics, keep=keep),
        warnings=limit_warnings(
            [*table.warnings, *screen.warnings(), *constant, *about.about(varying)]
        ),
        source_sha256=_sha256(source),
        source_bytes=source.stat().st_size,
        sha256=_sha256(destination),
        bytes=destination.stat().st_size,
    )


def _read_rows(
    table: TableSource,
    writer: RowWriter,
    *,
    screen: RowScreen,
    statistics: RunningStatistics,
) -> None:
    for chunk in table.chunks:
        values, numbers = screen.apply(chunk)
        if numbers.size:
            statistics.update(values, row_numbers=numbers)
            writer.write(values)


def _check_row_count(screen: RowScreen) -> None:
    rows = screen.rows_read - screen.rows_dropped
    if screen.rows_read == 0:
        raise TableError("dataset-empty", "The table has no rows.")
    dropped = " ".join(warning["detail"] for warning in screen.warnings())
    if rows == 0:
        raise TableError("dataset-empty", f"No row is left. {dropped}")
    if rows < MIN_ROWS:
        raise TableError(
            "dataset-too-small", f"The table has 1 row; it needs {MIN_ROWS}. {dropped}".strip()
        )


def _is_constant(statistics: RunningStatistics) -> NDArray[np.bool_]:
    same = statistics.low.value == statistics.high.value
    constant: NDArray[np.bool_] = same | ~(statistics.std > MIN_SPREAD)
    return constant


def _settle_constants(
    names: list[str], statistics: RunningStatistics, options: ParseOptions
) -> tuple[NDArray[np.bool_], list[TableWarning]]:
    """Return which columns stay, and the warnings about constant ones."""
    constant = _is_constant(statistics)
    found = [names[i] for i in np.flatnonzero(constant)]
    if found and (options.constant == "error" or (options.constant == "drop" and constant.all())):
        raise _constant_error(found, columns=len(names))
    word = (
        "left out"
        if options.constant == "drop"
        else "kept: it has no density, and a training must leave it out"
    )
    warnings: list[TableWarning] = [
        {"code": "constant", "column": name, "detail": f"The column is constant and was {word}."}
        for name in found
    ]
    return ~constant | (options.constant == "keep"), warnings


def _constant_error(found: list[str], *, columns: int) -> TableError:
    named = ", ".join(repr(name) for name in found[:_MAX_NAMED])
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    if len(found) == columns:
        text = "Every column is constant: all rows are the same."
    else:
        text = (
            f"Constant, or varying by less than {MIN_SPREAD:g}: {named}{more}. A constant column"
            " has no density. With constant=drop it is left out, with constant=keep it stays."
        )
    return TableError("dataset-constant-column", text, column=found[0])


def _summaries(
    table: TableSource, statistics: RunningStatistics, *, keep: NDArray[np.bool_]
) -> list[ColumnSummary]:
    mean, std, distinct = statistics.mean, statistics.std, statistics.distinct
    return [
        ColumnSummary(
            name=table.names[i],
            dtype=table.dtypes[i],
            mean=float(mean[i]),
            std=float(std[i]),
            min=float(statistics.low.value[i]),
            max=float(statistics.high.value[i]),
            distinct=distinct[i],
        )
        for i in np.flatnonzero(keep)
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _summary_of(outcome: dict[str, Any]) -> TableSummary:
    summary = outcome["summary"]
    columns = [ColumnSummary(**column) for column in summary.pop("columns")]
    return TableSummary(columns=columns, **summary)


def _do(task: dict[str, Any]) -> dict[str, object]:
    summary = parse_table(
        Path(task["source"]),
        Path(task["destination"]),
        format=TableFormat(task["format"]),
        options=ParseOptions(**task["options"]),
    )
    return {"summary": dataclasses.asdict(summary)}


if __name__ == "__main__":
    do_task(_do)
