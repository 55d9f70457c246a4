"""Parser of untrusted files to one npy file of floats for memory mapping, in bounded memory.

`parse_table` does the work; `parse_table_isolated` does it in a process of its own
(``python -m tabular.ingest.parse``), which is what a server wants: a parser that crashes, hangs
or swells takes down nothing but itself.
"""

import dataclasses
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

from tabular.formats import ColumnSummary, ParseOptions, TableFormat, TableSummary
from tabular.open import open_cells
from tabular.sandbox.child import do_task, run_child, too_much_memory
from tabular.sandbox.reader_threads import start_threads
from tabular.source import check_content


def cells_path(destination: Path) -> Path:
    """Return the file beside a table that keeps cells unchanged."""
    return destination.with_suffix(".parquet")


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
        delete_table(destination)
        raise too_much_memory() from None
    except BaseException:
        delete_table(destination)
        raise


def parse_table_isolated(  # noqa: PLR0913  limits of its process
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions | None = None,
    timeout_s: float = 300.0,
    processor_s: float | None = None,
    memory_bytes: int = 1 << 30,
) -> TableSummary:
    """Parse a table as `parse_table` does, in a process of its own, with limits; call it in a thread.

    Args:
        source: File as uploaded.
        destination: File to write; it is deleted after an error.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        processor_s: Most seconds of the processor, if they are fewer.
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
        "timeout_s": processor_s or timeout_s,
        "memory_bytes": memory_bytes,
    }
    try:
        check_content(source, format)  # costs no process
        return summary_of(run_child("tabular.ingest.parse", task, timeout_s=timeout_s))
    except BaseException:
        # A child that was killed could not clean up.
        delete_table(destination)
        raise


def _parse(
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
) -> TableSummary:
    from tabular.ingest.storing import store_table  # noqa: PLC0415 - slow to import

    table = open_cells(source, format=format, options=options)
    stored = store_table(table, destination, cells_path(destination), options=options)
    return TableSummary(
        **vars(stored),
        source_sha256=sha256_of(source),
        source_bytes=source.stat().st_size,
        sha256=sha256_of(destination),
        bytes=destination.stat().st_size,
    )


def delete_table(destination: Path) -> None:
    """Delete a table and the cells beside it, as far as they are there."""
    destination.unlink(missing_ok=True)
    cells_path(destination).unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary_of(outcome: dict[str, Any]) -> TableSummary:
    """Return the summary of a child's outcome."""
    summary = outcome["summary"]
    columns = [ColumnSummary.from_dict(column) for column in summary.pop("columns")]
    return TableSummary(columns=columns, **summary)


def _do(task: dict[str, Any]) -> dict[str, object]:
    summary = parse_table(
        Path(task["source"]),
        Path(task["destination"]),
        format=TableFormat(task["format"]),
        options=ParseOptions(**task["options"]),
    )
    columns = [column.to_dict() for column in summary.columns]
    return {"summary": vars(summary) | {"columns": columns}}


def _prepare(task: dict[str, Any]) -> None:
    """Load the code of which no import may run out of memory halfway, and start the threads."""
    importlib.import_module("numpy.random")
    importlib.import_module("tabular.ingest.storing")
    start_threads(task)


if __name__ == "__main__":
    do_task(_do, prepare=_prepare)
