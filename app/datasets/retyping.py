"""Change of the types of a dataset's columns: a new table takes the place of the old one."""

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Unpack

from fastapi import Request
from pydantic import Field

from app.auth.callers import caller_of
from app.datasets.options import UploadOptions
from app.datasets.uploads import deleted
from app.resources.labels import LabelsRequest
from app.settings import ParserLimits
from app.state import state_of
from models_store.errors import BlobMissingError, DatabaseUnavailableError
from models_store.files.blobs import Blobs, cells_key, next_table_key
from models_store.labels import LabelChange
from models_store.records import Dataset, NewDataset
from models_store.registry import Registry
from models_store.rows.datasets import changed_meanwhile
from tabular import processes
from tabular.columns import ColumnType
from tabular.formats import ParseOptions, TableSummary
from tabular.ingest.retype import StoredFiles, retype_table
from tabular.ingest.storing import cells_path


class DatasetChange(LabelsRequest):
    """Change of a dataset; fields that are left out stay unchanged."""

    types: Annotated[
        Annotated[dict[str, ColumnType], Field(min_length=1, max_length=4096)] | None,
        Field(description="New types of columns by name."),
    ] = None


@dataclass(frozen=True)
class RetypedTable:
    """Table with other types in the staging folder.

    Args:
        old: Dataset as it was read before.
        file: Staged table.
        cells: Staged file of the cells that are no numbers, if there are any.
        summary: Summary of the parser.
        types: Types that the caller stated.
        labels: Change of the dataset's labels.
        as_labelled: True if it must have the labels still that it was read with.
    """

    old: Dataset
    file: Path
    cells: Path | None
    summary: TableSummary
    types: dict[str, ColumnType]
    labels: LabelChange
    as_labelled: bool


async def retype_dataset(
    request: Request,
    old: Dataset,
    types: dict[str, ColumnType],
    labels: LabelChange,
    *,
    as_labelled: bool,
) -> Dataset:
    """Give columns of a dataset other types, and the dataset other labels; return it then.

    Args:
        request: Request of the caller.
        old: Dataset as it is now.
        types: New types of columns by name.
        labels: Change of its labels.
        as_labelled: True if nothing is changed where it has other labels than `old` by then.
    """
    state = state_of(request)
    settings, blobs = state.settings, state.blobs
    with (
        state.open_uploads.hold(caller_of(request)),
        blobs.staged(".npy") as table,
        deleted(cells_path(table)) as cells,
    ):

        def store(**limits: Unpack[ParserLimits]) -> Dataset:
            most = state.settings.max_project_bytes
            # The old files go once the new ones are there.
            room = state.registry.room(old.project, max_bytes=most + _file_bytes(old))
            try:
                summary = processes.run(
                    retype_table,
                    _stored_files(old, blobs),
                    table,
                    types,
                    _kept_options(
                        old,
                        UploadOptions().parsing(settings, room=room),
                    ),
                    timeout_s=limits["timeout_s"],
                    memory_bytes=limits["memory_bytes"],
                    alone=True,
                )
            except (BlobMissingError, FileNotFoundError):
                if state.registry.dataset(old.project, old.id).key != old.key:
                    raise changed_meanwhile(old.id) from None
                raise
            kept = cells if summary.cells else None
            retyped = RetypedTable(old, table, kept, summary, types, labels, as_labelled)
            return replace_table(retyped, blobs, state.registry, max_bytes=most)

        return await state.parsers.run(old.project, partial(store, **settings.parser_limits))


def _stored_files(dataset: Dataset, blobs: Blobs) -> StoredFiles:
    """Return the files of a dataset for reading, after a check of their hashes.

    Raises:
        BlobError: A file is missing or is not the one that was stored.
    """
    cells = dataset.cells
    return StoredFiles(
        table=blobs.verify(dataset.key, dataset.sha256),
        cells=None if cells is None else blobs.verify(cells["key"], cells["sha256"]),
        columns=dataset.columns,
        warnings=dataset.warnings,  # type: ignore[arg-type] # as they were stored
    )


def _file_bytes(dataset: Dataset) -> int:
    return dataset.bytes + (0 if dataset.cells is None else int(dataset.cells["bytes"]))


def _kept_options(dataset: Dataset, limits: ParseOptions) -> ParseOptions:
    """Return the options that the file of a dataset was read with, as far as they are still of use."""
    return replace(limits, **(dataset.options or {}))


def replace_table(
    table: RetypedTable, blobs: Blobs, registry: Registry, *, max_bytes: int
) -> Dataset:
    """Store a table and let the dataset's row name it; the old files are deleted.

    Raises:
        DatabaseUnavailableError: The connection was lost, perhaps after the row was committed: both
            tables stay, and doctor finds the one that no row names.
        StoreError: The dataset is as it was.
    """
    old = table.old
    key = next_table_key(old.id)
    blob = blobs.commit(table.file, key)
    cells = None if table.cells is None else blobs.commit(table.cells, cells_key(key))
    options = dict(old.options or {})
    changed: dict[str, Any] = {
        "dtype": table.summary.dtype,
        "columns": [column.to_dict() for column in table.summary.columns],
        "warnings": [dict(warning) for warning in table.summary.warnings],
        "key": blob.key,
        "sha256": blob.sha256,
        "bytes": blob.bytes,
        "cells": None
        if cells is None
        else asdict(cells) | {"text_bytes": table.summary.text_bytes},
        "options": options | {"types": {**options.get("types", {}), **table.types}},
    }
    same = {field.name: getattr(old, field.name) for field in fields(NewDataset)}
    try:
        dataset = registry.retype_dataset(
            old,
            NewDataset(**same | changed),
            labels=table.labels,
            as_labelled=table.as_labelled,
            max_bytes=max_bytes,
        )
    except DatabaseUnavailableError:
        raise
    except BaseException:
        _delete(blobs, changed)
        raise
    _delete(blobs, asdict(old))
    return dataset


def _delete(blobs: Blobs, dataset: dict[str, Any]) -> None:
    blobs.delete(dataset["key"])
    if dataset["cells"] is not None:
        blobs.delete(dataset["cells"]["key"])
