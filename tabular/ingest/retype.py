"""Change of the types of a stored table: it is read again from its numbers and its kept cells."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabular.columns import ColumnType
from tabular.formats import ColumnSummary, ParseOptions, TableSummary, TableWarning
from tabular.ingest.parse import cells_path, delete_table, sha256_of, summary_of
from tabular.readers.npy import open_npy
from tabular.sandbox.child import do_task, run_child
from tabular.source import CellSource, default_names

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_OF_THE_FILE = {
    *("encoding", "missing", "nonfinite", "numeric_header", "renamed", "skipped", "uneven"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFiles:
    """Stored table: its files, and what is known of its columns.

    Attributes:
        table: npy file of the numbers.
        cells: Parquet file of the cells that were kept unchanged, if there is one.
        columns: JSON objects of all columns.
        warnings: Warnings about the file.
    """

    table: Path
    cells: Path | None
    columns: Sequence[Mapping[str, Any]]
    warnings: Sequence[TableWarning]


def retype_table_isolated(  # noqa: PLR0913  limits of its process
    stored: StoredFiles,
    destination: Path,
    *,
    types: Mapping[str, ColumnType],
    options: ParseOptions,
    timeout_s: float = 300.0,
    processor_s: float | None = None,
    memory_bytes: int = 1 << 30,
) -> TableSummary:
    """Store a table again with other types of some columns, in a process of its own; call it in a thread.

    Args:
        stored: Table as it is stored.
        destination: npy file to write; it is deleted after an error.
        types: New types by name.
        options: Options that the file was read with.
        timeout_s: Most seconds that it may take, by the clock and of the processor.
        processor_s: Most seconds of the processor, if they are fewer.
        memory_bytes: Most private memory of the process.

    Raises:
        TableError, OSError, RuntimeError: As `tabular.ingest.parse.parse_table_isolated`.
    """
    task = {
        "table": os.fspath(stored.table.absolute()),
        "cells": None if stored.cells is None else os.fspath(stored.cells.absolute()),
        "columns": list(stored.columns),
        "warnings": list(stored.warnings),
        "destination": os.fspath(destination.absolute()),
        "types": dict(types),
        "options": dataclasses.asdict(options),
        "timeout_s": processor_s or timeout_s,
        "memory_bytes": memory_bytes,
    }
    try:
        return summary_of(run_child("tabular.ingest.retype", task, timeout_s=timeout_s))
    except BaseException:
        delete_table(destination)
        raise


def retype_table(
    stored: StoredFiles,
    destination: Path,
    *,
    types: Mapping[str, ColumnType],
    options: ParseOptions,
) -> TableSummary:
    """Store a table again with other types of some columns.

    Args:
        stored: Table as it is stored.
        destination: npy file to write.
        types: New types by name.
        options: Options that the file was read with.

    Raises:
        TableError: ``dataset-dtype``: a column cannot have its type; ``unknown-column``.
    """
    from tabular.ingest.storing import store_table  # noqa: PLC0415 - slow to import

    old = {column["name"]: column for column in stored.columns}
    kept: dict[str, ColumnType] = {
        name: "ignored" for name, column in old.items() if column.get("type") == "ignored"
    }
    chosen = dataclasses.replace(
        options,
        types={**{n: t for n, t in options.types.items() if n in old}, **kept, **types},
        columns=None,
        exclude=(),
        missing="keep",
        constant="keep",
    )
    again = store_table(_source(stored), destination, cells_path(destination), options=chosen)
    columns = [
        column if column.name in types else _with_old_reason(column, old[column.name])
        for column in again.columns
    ]
    beside = [one for one in stored.warnings if one["code"] in _OF_THE_FILE]
    ignored = [
        one for one in stored.warnings if one["code"] == "ignored" and one["column"] not in types
    ]
    return TableSummary(
        **vars(again) | {"columns": columns, "warnings": [*beside, *ignored, *again.warnings]},
        source_sha256="",
        source_bytes=0,
        sha256=sha256_of(destination),
        bytes=destination.stat().st_size,
    )


def _with_old_reason(column: ColumnSummary, old: Mapping[str, Any]) -> ColumnSummary:
    """Return a column whose type was not changed, with what the file told of it."""
    if column.column.type == "ignored":
        return ColumnSummary.from_dict(old)
    return dataclasses.replace(
        column,
        reason=old.get("reason") or column.reason,
        dtype=old.get("dtype", column.dtype),
    )


def _source(stored: StoredFiles) -> CellSource:
    """Return a stored table as its file had it: kept cells as text, the others as numbers."""
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    names = [column["name"] for column in stored.columns]
    kept = {} if stored.cells is None else _kept_types(stored.cells)
    modelled = [at for at, column in enumerate(stored.columns) if column.get("type") != "ignored"]
    places = {at: place for place, at in enumerate(modelled)}

    def read(_: frozenset[int]) -> Iterator["pa.RecordBatch"]:
        rows = 0
        beside = None if stored.cells is None else _Cells(stored.cells)
        for chunk in open_npy(stored.table, ParseOptions()).chunks:
            size = chunk.shape[1]
            cells = None if beside is None else beside.take(size)
            rows += size
            columns = [
                cells.column(str(at)).combine_chunks()
                if cells is not None and at in kept
                else pa.array(chunk[places[at]])
                if at in places
                else pa.nulls(size, pa.string())
                for at in range(len(names))
            ]
            yield pa.record_batch(columns, names=[str(at) for at in range(len(names))])

    lost = {at for at in range(len(names)) if at not in kept and at not in places}
    return CellSource(
        names=names,
        dtypes=[column.get("dtype", "float64") for column in stored.columns],
        named=names != default_names(len(names)),
        nameless=frozenset(),
        text=frozenset(lost | {at for at, kind in kept.items() if kind == pa.string()}),
        read=read,
        warnings=[],
    )


def _kept_types(path: Path) -> dict[int, Any]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - slow to import

    return {int(field.name): field.type for field in pq.read_schema(path)}


class _Cells:
    """Rows of a file of kept cells, any number at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - slow to import

        self._batches = pq.ParquetFile(path).iter_batches(use_threads=False)
        self._waiting: pa.Table | None = None

    def take(self, rows: int) -> "pa.Table":
        """Return the next rows."""
        import pyarrow as pa  # noqa: PLC0415 - slow to import

        while self._waiting is None or self._waiting.num_rows < rows:
            batch = pa.Table.from_batches([next(self._batches)])
            parts = [batch] if self._waiting is None else [self._waiting, batch]
            self._waiting = pa.concat_tables(parts)
        taken = self._waiting.slice(0, rows)
        self._waiting = self._waiting.slice(rows)
        return taken


def _do(task: dict[str, Any]) -> dict[str, object]:
    stored = StoredFiles(
        table=Path(task["table"]),
        cells=None if task["cells"] is None else Path(task["cells"]),
        columns=task["columns"],
        warnings=task["warnings"],
    )
    summary = retype_table(
        stored,
        Path(task["destination"]),
        types=task["types"],
        options=ParseOptions(**task["options"]),
    )
    return {"summary": vars(summary) | {"columns": [c.to_dict() for c in summary.columns]}}


if __name__ == "__main__":
    do_task(_do)
