"""Copying the rows of an untrusted file to an npy file as they are, in a process of its own."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from tables.formats import ParseOptions, TableFormat
from tables.open import open_table, stored_dtype
from tables.readers.npy import RowWriter, open_npy
from tables.sandbox.child import do_task, run_child
from tables.source import TableSource, check_content


def open_table_isolated(
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
    timeout_s: float = 300.0,
    memory_bytes: int = 1 << 30,
) -> TableSource:
    """Open a table as `open_table` does, read by a process of its own; call it in a thread.

    Args:
        source: File as uploaded.
        destination: npy file to write, which the rows are then read from; it stays.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        memory_bytes: Most private memory of the process.

    Raises:
        TableError, OSError, RuntimeError: As `tables.ingest.parse.parse_table_isolated`.
    """
    check_content(source, format)  # costs no process
    task = {
        "source": os.fspath(source.absolute()),
        "destination": os.fspath(destination.absolute()),
        "format": format.value,
        "options": dataclasses.asdict(options),
        "timeout_s": timeout_s,
        "memory_bytes": memory_bytes,
    }
    copied = run_child("tables.sandbox.copy", task, timeout_s=timeout_s)
    rows = open_npy(destination, options) if copied["rows"] else None
    return TableSource(
        names=copied["names"],
        dtypes=copied["dtypes"],
        named=copied["named"],
        chunks=iter(()) if rows is None else rows.chunks,
        warnings=[],
        rows=copied["rows"],
    )


def _do(task: dict[str, Any]) -> dict[str, object]:
    options = ParseOptions(**task["options"])
    table = open_table(Path(task["source"]), format=TableFormat(task["format"]), options=options)
    destination = Path(task["destination"])
    with RowWriter(destination, len(table.names), dtype=stored_dtype(table)) as writer:
        for chunk in table.chunks:
            writer.write(chunk)
        writer.finish()
    return {
        "names": table.names,
        "dtypes": table.dtypes,
        "named": table.named,
        "rows": writer.rows,
    }


if __name__ == "__main__":
    do_task(_do)
