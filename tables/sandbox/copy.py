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
    """Do `open_table` with all the reading done by a process of its own. Blocks.

    Args:
        source: the file as it came.
        destination: an npy file to write, from which the rows come; it stays.
        format: the format that the sender declared.
        options: how to read it, and how large it may be.
        timeout_s: the longest time it may take, by the clock and of the processor.
        memory_bytes: the most private memory that the process may have.

    Raises:
        TableError, OSError, RuntimeError: as `tables.ingest.parse.parse_table_isolated`.
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
