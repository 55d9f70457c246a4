"""Table that a process of the pool has written, on its way into the store: files and row, or neither."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.http.upload_room import unless_refused
from models_store.files.blobs import Blobs, cells_key
from tabular.formats import TableSummary
from tabular.ingest.storing import cells_path


@contextmanager
def staged_table(blobs: Blobs) -> Iterator[Path]:
    """Give a file for a table, with its cells in another one beside it; what is not stored goes."""
    with blobs.staged(".npy") as table:
        try:
            yield table
        finally:
            cells_path(table).unlink(missing_ok=True)


@contextmanager
def stored_table(
    blobs: Blobs, table: Path, summary: TableSummary, key: str
) -> Iterator[dict[str, Any]]:
    """Store a staged table and give the fields of the row that names it, which the body is to write.

    Raises:
        StoreError: Nothing is stored, or what the body raises: the files go again, unless the row may
            have been committed.
    """
    with unless_refused(blobs, key), unless_refused(blobs, cells_key(key)):
        blob = blobs.commit(table, key)
        cells = None
        if summary.cells:
            cells = asdict(blobs.commit(cells_path(table), cells_key(key)))
            cells |= {"text_bytes": summary.text_bytes}
        yield {
            "dtype": summary.dtype,
            "columns": [column.to_dict() for column in summary.columns],
            "warnings": [dict(warning) for warning in summary.warnings],
            "key": blob.key,
            "sha256": blob.sha256,
            "bytes": blob.bytes,
            "cells": cells,
        }
