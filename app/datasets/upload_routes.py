"""Upload of a table, which becomes a dataset."""

from functools import partial
from typing import Annotated, Any, Unpack

from fastapi import APIRouter, Depends, Query, Request, Response

from app.auth.callers import caller_of
from app.datasets.options import UploadOptions
from app.datasets.registration import UploadedTable, register_table
from app.datasets.uploads import MULTIPART_MEDIA_TYPE, deleted, receive_upload
from app.datasets.views import DatasetView
from app.dependencies import (
    REPLAYED,
    BlobsDep,
    IdempotencyKey,
    ProjectDep,
    RegistryDep,
    built,
)
from app.http.examples import COLUMNS, TABLE
from app.limits import FairRoute, in_thread
from app.problems.problem import problem_responses
from app.resources.etags import respond
from app.root_path import rooted
from app.rows.docs import upload_content
from app.settings import ParserLimits
from app.state import AppState, state_of
from models_store.database.ids import new_id
from models_store.job_states import Idempotency
from tabular import processes
from tabular.formats import TableFormat, TableSummary
from tabular.ingest.storing import cells_path, parse_table
from tabular.slugs import Slug

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=FairRoute)

_DATASET_PROBLEMS: tuple[Slug, ...] = (
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
        "description": "Table as the raw body, or as the part `file` of a multipart form whose other"
        " parts are options of the query.",
        "content": {
            **upload_content(COLUMNS, TABLE),
            MULTIPART_MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["file"],
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


class Sender:
    """Project that uploads a table, and the idempotency key of the upload."""

    def __init__(self, project: ProjectDep, idempotency_key: IdempotencyKey = None) -> None:
        self.project = project
        self.idempotency_key = idempotency_key

    def room(self, state: AppState) -> int:
        """Return the bytes that the project may store beyond those that it has.

        Raises:
            LimitError: There is no room at all.
        """
        return state.registry.room(self.project, max_bytes=state.settings.max_project_bytes)

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
    sender: Annotated[Sender, Depends(built(Sender))],
    blobs: BlobsDep,
    registry: RegistryDep,
) -> Response:
    """Upload a table as CSV, Excel, JSON, NDJSON, npy, Arrow IPC stream or Parquet.

    The file is streamed to disk and parsed in bounded memory. It is registered completely or not
    at all. Each column gets a type, which its values suggest or the caller states: numbers, whole
    numbers, truth values, categories, dates, or none, of columns that are kept but not modelled.
    """
    state = state_of(request)
    settings = state.settings
    dataset_id = new_id("ds")
    with (
        state.open_uploads.hold(caller_of(request)),
        blobs.staged(".upload") as source,
        blobs.staged(".npy") as table,
        deleted(cells_path(table)) as cells,
    ):
        room = await in_thread(sender.room, state)
        upload = await receive_upload(
            request, source, max_bytes=settings.max_upload_bytes, room=room
        )
        if upload.fields:
            options = options.with_fields(upload.fields)
        if upload.headerless:
            options = options.model_copy(update={"header": False})

        def store(**limits: Unpack[ParserLimits]) -> Response:
            summary = processes.run(
                parse_table,
                source,
                table,
                upload.format,
                options.parsing(settings, room=room),
                timeout_s=limits["timeout_s"],
                memory_bytes=limits["memory_bytes"],
                alone=True,
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
                max_project_bytes=state.settings.max_project_bytes,
                description=options.description,
                tags=options.labels(),
            )
            dataset = register_table(uploaded, blobs, registry)
            headers = {"Location": rooted(f"/v1/datasets/{dataset.id}")}
            if dataset.id != dataset_id:
                headers["Idempotent-Replayed"] = "true"
            view = DatasetView.whole(dataset)
            return respond(view, status_code=201, headers=headers)

        # The file is here: a caller who sends slowly holds no parser.
        return await state.parsers.run(sender.project, partial(store, **settings.parser_limits))
