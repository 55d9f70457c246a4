"""Change of the types of a dataset's columns: a new table takes the place of the old one."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import Request
from pydantic import Field

from app.auth.callers import caller_of
from app.datasets.options import UploadOptions
from app.datasets.storing import staged_table, stored_table
from app.resources.labels import LabelsRequest
from app.state import AppState, state_of
from models_store.errors import BlobMissingError
from models_store.files.blobs import Blobs, next_table_key
from models_store.labels import LabelChange
from models_store.records import Dataset
from models_store.rows.datasets import changed_meanwhile
from tabular import processes
from tabular.columns import ColumnType
from tabular.formats import TableSummary
from tabular.ingest.retype import StoredFiles, retype_table


class DatasetChange(LabelsRequest):
    """Change of a dataset; fields that are left out stay unchanged."""

    types: Annotated[
        Annotated[dict[str, ColumnType], Field(min_length=1, max_length=4096)] | None,
        Field(description="New types of columns by name."),
    ] = None


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
        old: Dataset as it is now.
        types: New types of columns by name.
        labels: Change of its labels.
        as_labelled: True if nothing is changed where it has other labels than `old` by then.

    Raises:
        DatabaseUnavailableError: The connection was lost, perhaps after the row was committed: both
            tables stay, and doctor finds the one that no row names.
        StoreError: The dataset is as it was.
    """
    state = state_of(request)
    retype = partial(_retyped, state, old, types, labels, as_labelled=as_labelled)
    with state.open_uploads.hold(caller_of(request)):
        return await state.parsers.run(old.project, retype)


def _retyped(
    state: AppState,
    old: Dataset,
    types: dict[str, ColumnType],
    labels: LabelChange,
    *,
    as_labelled: bool,
) -> Dataset:
    registry, blobs, most = state.registry, state.blobs, state.settings.max_project_bytes
    files = [old.key] if old.cells is None else [old.key, old.cells["key"]]
    # The old files go once the new ones are there.
    freed = old.bytes + (0 if old.cells is None else int(old.cells["bytes"]))
    room = registry.room(old.project, max_bytes=most + freed)
    limits = UploadOptions().parsing(state.settings, room=room)
    options = dict(old.options or {})
    with staged_table(blobs) as table:
        try:
            summary: TableSummary = processes.run(
                retype_table,
                _stored_files(old, blobs),
                table,
                types,
                replace(limits, **options),  # as the file was read
                **state.settings.parser_limits,
                alone=True,
            )
        except (BlobMissingError, FileNotFoundError):
            if registry.dataset(old.project, old.id).key != old.key:
                raise changed_meanwhile(old.id) from None
            raise
        options |= {"types": {**options.get("types", {}), **types}}
        with stored_table(blobs, table, summary, next_table_key(old.id)) as fields:
            dataset = registry.retype_dataset(
                old,
                replace(old, **fields, options=options),
                labels=labels,
                as_labelled=as_labelled,
                max_bytes=most,
            )
    for key in files:
        blobs.delete(key)
    return dataset


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
