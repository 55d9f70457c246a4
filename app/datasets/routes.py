"""Datasets: upload, list, inspect, read back, delete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path as PathField, Query, Request, Response
from pydantic import BaseModel, Field

from app.auth.callers import caller_of
from app.datasets.options import UploadOptions
from app.datasets.registration import UploadedTable, register_table
from app.datasets.retyping import (
    DatasetChange,
    RetypedTable,
    kept_options,
    replace_table,
    stored_files,
)
from app.datasets.rows import respond_rows
from app.datasets.uploads import MULTIPART_MEDIA_TYPE, receive_upload
from app.datasets.views import ColumnPage, DatasetPage, DatasetView, RowsView
from app.dependencies import REPLAYED, BlobsDep, IdempotencyKey, ProjectDep, RegistryDep
from app.fairness.fair_routes import FairRoute
from app.fairness.turns import in_thread
from app.http.accept import listed
from app.http.head import end_head, is_head
from app.http.json_body import json_body, json_request
from app.problems.problem import Problem, problem_responses
from app.resources.etags import (
    ETAG,
    NO_CONDITIONS,
    NOT_MODIFIED,
    PreconditionsDep,
    etag_of_view,
)
from app.resources.labels import LABEL_EXAMPLES
from app.resources.large_responses import respond_large
from app.resources.listing import LINKED, NamePrefix, PagingDep, SelectionDep
from app.root_path import rooted
from app.rows.codecs import response_codec
from app.rows.docs import rows_response_content, upload_content
from app.rows.respond import ROWS_VARY
from app.state import state_of
from models_store.database.ids import new_id
from models_store.errors import BlobMissingError, ConflictError
from models_store.job_states import Idempotency
from models_store.labels import any_state
from models_store.records import Dataset
from models_store.registry import Registry
from models_store.requests.training import DatasetId
from tables.columns import ColumnType
from tables.formats import TableFormat, TableSummary
from tables.ingest.parse import cells_path, parse_table_isolated
from tables.ingest.retype import retype_table_isolated
from tables.slugs import Slug

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=FairRoute)

_COLUMNS = ["height", "weight"]
_EXAMPLE_ROWS = [[171.5, 68.2], [180.1, 80.9], [165.0, 55.3], [177.7, 71.0]]
_ROWS_EXAMPLE = {"columns": _COLUMNS, "rows": _EXAMPLE_ROWS[:2], "offset": 0, "total": 4}
_CHANGE_EXAMPLES = {
    "category": {"summary": "A column of codes", "value": {"types": {"height": "category"}}},
    **LABEL_EXAMPLES,
}
_DATASET_PROBLEMS: tuple[Slug, ...] = (
    "limit-headers",
    "dataset-empty",
    "dataset-too-small",
    "dataset-too-large",
    "dataset-parse",
    "dataset-encoding",
    "dataset-dtype",
    "dataset-shape",
    "dataset-truncated",
    "dataset-pickle-forbidden",
    "dataset-nonfinite",
    "dataset-range",
    "dataset-constant-column",
    "dataset-duplicate-columns",
    "column-name",
    "unknown-column",
    "limit-rows",
    "limit-columns",
    "limit-metadata",
    "multipart",
    "unknown-parameter",
    "quota-storage",
    "storage-full",
    "storage-unavailable",
    "idempotency-key-reused",
)
_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Table as the raw body, or as the last part, `file`, of a multipart form whose"
        " other parts are options of the query.",
        "content": {
            **upload_content(_COLUMNS, _EXAMPLE_ROWS),
            MULTIPART_MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    # Parts that stand before the file may be options, too: generated forms order
                    # them as they like, so that those have the query alone.
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "File of the table, whose format its Content-Type or the suffix of"
                            " its name tells.",
                        }
                    },
                }
            },
        },
    }
}

DatasetPath = Annotated[
    DatasetId,
    PathField(description="Id of the dataset.", examples=["ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"]),
]


class ColumnSlice(BaseModel):
    """Range of columns of a dataset."""

    offset: int = Field(default=0, ge=0, le=2**53, description="Index of the first column, from 0.")
    limit: int = Field(default=100, ge=1, le=2**53, description="Largest number of columns.")


class RowSlice(BaseModel):
    """Range of rows of a dataset."""

    offset: int = Field(default=0, ge=0, le=2**53, description="Index of the first row, from 0.")
    limit: int = Field(default=100, ge=1, le=2**53, description="Largest number of rows.")
    step: int = Field(
        default=1,
        ge=1,
        le=2**53,
        description="Step between rows: 10 takes each tenth row. Above 1, cells of columns that are"
        " not modelled are null.",
    )


class Sender:
    """Project that uploads a table, and the idempotency key of the upload."""

    def __init__(self, project: ProjectDep, idempotency_key: IdempotencyKey = None) -> None:
        self.project = project
        self.idempotency_key = idempotency_key

    def room(self, registry: Registry, max_bytes: int) -> int:
        """Return the bytes that the project may store beyond those that it has.

        Raises:
            LimitError: There is no room at all.
        """
        return registry.room(
            self.project, max_bytes=max_bytes, idempotency_key=self.idempotency_key
        )

    def idempotency(
        self, options: UploadOptions, kind: TableFormat, summary: TableSummary
    ) -> Idempotency | None:
        """Return the key and a fingerprint, equal for equal bytes that are read with equal options."""
        if self.idempotency_key is None:
            return None
        request = ("dataset", kind, options.model_dump_json(), summary.source_sha256)
        return Idempotency.of(self.idempotency_key, *request)


@router.post(
    "",
    operation_id="create_dataset",
    summary="Upload a table",
    status_code=201,
    response_model=DatasetView,
    responses={
        201: {
            "description": "Registered dataset.",
            "headers": {
                "Location": {"description": "URL of the dataset.", "schema": {"type": "string"}},
                "Idempotent-Replayed": REPLAYED,
            },
        },
        **problem_responses(*_DATASET_PROBLEMS),
    },
    openapi_extra=_UPLOAD_BODY,
)
async def create_dataset(
    request: Request,
    options: Annotated[UploadOptions, Query()],
    sender: Annotated[Sender, Depends()],
    blobs: BlobsDep,
    registry: RegistryDep,
) -> Response:
    """Upload a table as CSV, JSON, NDJSON, npy, Arrow IPC stream or Parquet.

    The file is streamed to disk and parsed in bounded memory. It is registered completely or not
    at all. Each column gets a type, which its values suggest or the caller states: numbers, whole
    numbers, truth values, categories, dates, or none, of columns that are kept but not modelled.
    """
    state = state_of(request)
    settings = state.settings
    most = settings.max_project_bytes
    dataset_id = new_id("ds")
    with (
        state.open_uploads.hold(caller_of(request)),
        state.upload_room.held(sender.project) as held,
        blobs.staged(".upload") as source,
        blobs.staged(".npy") as table,
        _deleted(cells_path(table)) as cells,
    ):
        held.room = await in_thread(sender.room, registry, most)
        upload = await receive_upload(
            request, source, max_bytes=settings.max_upload_bytes, held=held
        )
        if upload.fields:
            options = options.with_fields(upload.fields)
        if upload.headerless:
            options = options.model_copy(update={"header": False})

        def store() -> Response:
            summary = parse_table_isolated(
                source,
                table,
                format=upload.format,
                options=options.parsing(settings),
                memory_bytes=settings.parse_memory_bytes,
                timeout_s=settings.parse_timeout_s,
            )
            uploaded = UploadedTable(
                id=dataset_id,
                project=sender.project,
                name=options.name or upload.file_name,
                format=upload.format,
                file=table,
                cells=cells if summary.cells else None,
                options=options.kept(),
                summary=summary,
                idempotency=sender.idempotency(options, upload.format, summary),
                max_project_bytes=most,
                description=options.description,
                tags=options.labels(),
            )
            dataset = register_table(uploaded, blobs, registry)
            headers = {"Location": rooted(f"/v1/datasets/{dataset.id}")}
            if dataset.id != dataset_id:
                headers["Idempotent-Replayed"] = "true"
            view = DatasetView.whole(dataset)
            return respond_large(view, blobs, status_code=201, headers=headers)

        # The file is here: a caller who sends slowly holds no parser.
        return await state.parsers.run(sender.project, store)


@contextmanager
def _deleted(file: Path) -> Iterator[Path]:
    """Delete a staged file in the end, if it is still there."""
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@router.get(
    "",
    operation_id="list_datasets",
    summary="List datasets",
    response_description="Page of datasets.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_datasets(
    project: ProjectDep,
    registry: RegistryDep,
    paging: PagingDep,
    selection: SelectionDep,
    name_prefix: NamePrefix = None,
    sha256: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9a-f]{64}$",
            description="SHA-256 of the stored table, or of the uploaded file.",
        ),
    ] = None,
) -> DatasetPage:
    """List datasets, newest first, without their columns."""
    page = registry.datasets(
        project,
        limit=paging.limit,
        cursor=paging.cursor,
        filters=selection.filters(name_prefix=name_prefix),
        sha256=sha256,
    )
    return paging.link(DatasetPage.of(page))


@router.get(
    "/{dataset_id}",
    operation_id="get_dataset",
    summary="Get a dataset",
    response_description="Dataset with its columns and warnings.",
    response_model=DatasetView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition"),
    },
)
def get_dataset(
    request: Request,
    dataset_id: DatasetPath,
    project: ProjectDep,
    registry: RegistryDep,
    blobs: BlobsDep,
    conditions: PreconditionsDep,
) -> Response:
    """Return a dataset with the statistics of its columns and its warnings."""
    if is_head(request):
        registry.dataset_summary(project, dataset_id)
        end_head(request)
    view = DatasetView.whole(registry.dataset(project, dataset_id))
    return respond_large(view, blobs, conditions)


@router.get(
    "/{dataset_id}/columns",
    operation_id="list_columns",
    summary="List the columns of a dataset",
    response_description="Page of columns, in the order of the file.",
    response_model=ColumnPage,
    responses=problem_responses("not-found"),
)
def list_columns(
    dataset_id: DatasetPath,
    project: ProjectDep,
    registry: RegistryDep,
    blobs: BlobsDep,
    wanted: Annotated[ColumnSlice, Query()],
) -> Response:
    """Return a page of columns with their types and statistics, for tables with many columns."""
    columns = registry.dataset(project, dataset_id).columns
    shown = columns[wanted.offset : wanted.offset + wanted.limit]
    page = ColumnPage.model_validate(
        {"items": shown, "offset": wanted.offset, "total": len(columns)}
    )
    return respond_large(page, blobs)


@router.get(
    "/{dataset_id}/rows",
    operation_id="get_dataset_rows",
    summary="Read rows of a dataset",
    response_class=Response,
    responses={
        200: {
            "description": "Rows in the format that `Accept` asks for.",
            "content": rows_response_content(
                RowsView.model_json_schema(), example=_ROWS_EXAMPLE, columns=_COLUMNS
            ),
        },
        **problem_responses("not-found", "not-acceptable", "artifact-missing", "artifact-corrupt"),
    },
)
def get_dataset_rows(
    request: Request,
    dataset_id: DatasetPath,
    project: ProjectDep,
    registry: RegistryDep,
    blobs: BlobsDep,
    wanted: Annotated[RowSlice, Query()],
) -> Response:
    """Return rows of a dataset as its file has them, in any format; many rows are streamed.

    npy holds numbers alone: those of the columns that are modelled, with the codes of levels.
    In CSV, a column name that a spreadsheet would read as a formula begins with `'`.
    """
    codec = response_codec(listed(request.headers, "accept"))
    if is_head(request):
        blobs.size(registry.dataset_summary(project, dataset_id).key)
        end_head(request, media_type=codec.media_type, headers=ROWS_VARY)
    dataset = registry.dataset(project, dataset_id)
    rows = range(wanted.offset, wanted.offset + wanted.limit * wanted.step, wanted.step)
    return respond_rows(request, dataset, blobs, codec=codec, rows=rows)


@router.patch(
    "/{dataset_id}",
    operation_id="update_dataset",
    summary="Change a dataset",
    response_description="Changed dataset.",
    response_model=DatasetView,
    responses=problem_responses(
        *(
            "not-found",
            "precondition",
            "limit-tags",
            "dataset-in-use",
            "conflict",
            "dataset-dtype",
            "dataset-shape",
        ),
        *("dataset-too-large", "unknown-column", "quota-storage", "storage-full"),
        *("storage-unavailable", "artifact-missing", "artifact-corrupt"),
    ),
    openapi_extra=json_request(DatasetChange, examples=_CHANGE_EXAMPLES),
)
async def update_dataset(
    request: Request,
    dataset_id: DatasetPath,
    change: Annotated[DatasetChange, Depends(json_body(DatasetChange))],
    project: ProjectDep,
    conditions: PreconditionsDep,
    blobs: BlobsDep,
) -> Response:
    """Change the description, the tags or the types of columns; other fields stay unchanged.

    Types change without another upload. No job that has not ended may read the dataset then, and
    models that were trained on it keep their types.
    """
    state = state_of(request)

    def holds(dataset: Dataset) -> bool:
        return conditions.hold(etag_of_view(DatasetView.whole(dataset)))

    def unchanged() -> Dataset:
        old = state.registry.dataset(project, dataset_id)
        if not holds(old):
            raise Problem("precondition", "The dataset has another ETag.")
        change.change().merged(old.tags)  # nothing is changed by halves
        return old

    if change.types is not None:
        await _retyped(request, await in_thread(unchanged), change.types)
    condition = holds if change.types is None else any_state

    def label() -> Response:
        dataset = state.labels.dataset(project, dataset_id, change.change(), condition)
        return respond_large(DatasetView.whole(dataset), blobs, NO_CONDITIONS)

    return await in_thread(label)


async def _retyped(request: Request, old: Dataset, types: dict[str, ColumnType]) -> None:
    """Give columns of a dataset other types."""
    state = state_of(request)
    settings, blobs = state.settings, state.blobs
    with (
        state.open_uploads.hold(caller_of(request)),
        blobs.staged(".npy") as table,
        _deleted(cells_path(table)) as cells,
    ):

        def store() -> Dataset:
            try:
                summary = retype_table_isolated(
                    stored_files(old, blobs),
                    table,
                    types=types,
                    options=kept_options(old, UploadOptions().parsing(settings)),
                    memory_bytes=settings.parse_memory_bytes,
                    timeout_s=settings.parse_timeout_s,
                )
            except BlobMissingError:
                if state.registry.dataset(old.project, old.id).key != old.key:
                    raise ConflictError(f"Dataset {old.id} was changed meanwhile.") from None
                raise
            kept = cells if summary.cells else None
            retyped = RetypedTable(old, table, kept, summary, types)
            most = settings.max_project_bytes
            return replace_table(retyped, blobs, state.registry, max_bytes=most)

        await state.parsers.run(old.project, store)


@router.delete(
    "/{dataset_id}",
    operation_id="delete_dataset",
    summary="Delete a dataset",
    status_code=204,
    response_description="The dataset is deleted.",
    responses=problem_responses("not-found", "dataset-in-use", "storage-unavailable"),
)
def delete_dataset(
    dataset_id: DatasetPath, project: ProjectDep, registry: RegistryDep, blobs: BlobsDep
) -> None:
    """Delete a dataset that no unfinished job reads. Models that were trained on it stay."""
    dataset = registry.delete_dataset(project, dataset_id)
    blobs.delete(dataset.key.rpartition("/")[0])
