"""Copying the rows of an untrusted file to an npy file as they are, in a process of its own."""

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabular.columns import Column
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_table, stored_dtype
from tabular.readers.npy import RowWriter, open_npy
from tabular.sandbox.child import do_task, run_child
from tabular.sandbox.reader_threads import start_threads
from tabular.source import TableSource, check_content
from tabular.typed_table import TypedTable, open_typed


def open_table_isolated(  # noqa: PLR0913  limits of its process
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
    timeout_s: float = 300.0,
    processor_s: float | None = None,
    memory_bytes: int = 1 << 30,
) -> TableSource:
    """Open a table as `open_table` does, read by a process of its own; call it in a thread.

    Args:
        source: File as uploaded.
        destination: npy file to write, which the rows are then read from; it stays.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        processor_s: Most seconds of the processor, if they are fewer.
        memory_bytes: Most private memory of the process.

    Raises:
        TableError, OSError, RuntimeError: As `tabular.ingest.parse.parse_table_isolated`.
    """
    check_content(source, format)  # costs no process
    task = {
        "source": os.fspath(source.absolute()),
        "destination": os.fspath(destination.absolute()),
        "format": format.value,
        "options": dataclasses.asdict(options),
        "timeout_s": processor_s or timeout_s,
        "memory_bytes": memory_bytes,
    }
    copied = run_child("tabular.sandbox.copy", task, timeout_s=timeout_s)
    rows = open_npy(destination, options) if copied["rows"] else None
    return TableSource(
        names=copied["names"],
        dtypes=copied["dtypes"],
        named=copied["named"],
        chunks=iter(()) if rows is None else rows.chunks,
        warnings=copied["warnings"],
        rows=copied["rows"],
    )


def open_typed_isolated(  # noqa: PLR0913  as `open_table_isolated`, and the types
    source: Path,
    destination: Path,
    *,
    format: TableFormat,  # noqa: A002 - as above
    options: ParseOptions,
    columns: Sequence[Column],
    timeout_s: float = 300.0,
    processor_s: float | None = None,
    memory_bytes: int = 1 << 30,
) -> TypedTable:
    """Open a file whose columns have known types, read by a process of its own; call it in a thread.

    It has no rows where it lacks one of the columns.

    Args:
        source: File as uploaded.
        destination: npy file to write, which the rows are then read from; it stays.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.
        columns: Types of the wanted columns, in order.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        processor_s: Most seconds of the processor, if they are fewer.
        memory_bytes: Most private memory of the process.

    Raises:
        TableError, OSError, RuntimeError: As `open_table_isolated`.
    """
    check_content(source, format)  # costs no process
    task = {
        "source": os.fspath(source.absolute()),
        "destination": os.fspath(destination.absolute()),
        "format": format.value,
        "options": dataclasses.asdict(options),
        "columns": [column.to_dict() for column in columns],
        "timeout_s": processor_s or timeout_s,
        "memory_bytes": memory_bytes,
    }
    copied = run_child("tabular.sandbox.copy", task, timeout_s=timeout_s)
    chunks = open_npy(destination, options).chunks if copied["rows"] else iter(())
    rows = (chunk.T for chunk in chunks)
    return TypedTable(copied["names"], copied["named"], rows, copied["warnings"])


def _do_typed(task: dict[str, Any]) -> dict[str, object]:
    columns = [Column.from_dict(fields) for fields in task["columns"]]
    found: dict[str, object] = {}

    def choose(names: Sequence[str], named: bool) -> list[int]:  # noqa: FBT001  as `Choose`
        found.update(names=list(names), named=named)
        places = {name: place for place, name in enumerate(names)}
        return [places[column.name] for column in columns]

    options = ParseOptions(**task["options"])
    try:
        table = open_typed(
            Path(task["source"]),
            format=TableFormat(task["format"]),
            options=options,
            columns=columns,
            choose=choose,
        )
    except KeyError:  # the parent names what is missing
        return {**found, "rows": 0, "warnings": []}
    with RowWriter(Path(task["destination"]), len(columns), dtype="float64") as writer:
        for chunk in filter(len, table.chunks):
            writer.write(chunk.T)
            _check_room(Path(task["destination"]), options)
        writer.finish()
    return {**found, "rows": writer.rows, "warnings": table.warnings}


def _do(task: dict[str, Any]) -> dict[str, object]:
    if "columns" in task:
        return _do_typed(task)
    options = ParseOptions(**task["options"])
    table = open_table(Path(task["source"]), format=TableFormat(task["format"]), options=options)
    destination = Path(task["destination"])
    with RowWriter(destination, len(table.names), dtype=stored_dtype(table)) as writer:
        for chunk in table.chunks:
            writer.write(chunk)
            _check_room(destination, options)
        writer.finish()
    return {
        "names": table.names,
        "dtypes": table.dtypes,
        "named": table.named,
        "rows": writer.rows,
        "warnings": table.warnings,
    }


def _check_room(file: Path, options: ParseOptions) -> None:
    """Refuse a copy that takes more of the disk than it leaves, as a full disk would.

    Raises:
        OSError: It does.
    """
    if not options.reserve:
        return
    disk = os.statvfs(file.parent)
    if disk.f_bavail * disk.f_frsize < file.stat().st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


if __name__ == "__main__":
    do_task(_do, prepare=start_threads)
