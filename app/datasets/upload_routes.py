"""Upload of a table, which becomes a dataset."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.auth.callers import caller_of
from app.datasets.options import UploadOptions
from app.datasets.storing import staged_table, stored_table
from app.datasets.uploads import MULTIPART_MEDIA_TYPE, Upload, receive_upload
from app.datasets.views import DatasetView, PreviewView
from app.dependencies import REPLAYED, IdempotencyKey, ProjectDep, StateDep
from app.http.examples import COLUMNS, TABLE
from app.http.upload_room import unless_refused
from app.limits import FairRoute, in_thread
from app.problems.problem import problem_responses
from app.resources.etags import respond
from app.root_path import rooted
from app.rows.docs import upload_content
from app.state import AppState
from models_store.database.ids import new_id
from models_store.files.blobs import table_key
from models_store.job_states import Idempotency
from models_store.records import NewDataset
from tabular import processes
from tabular.formats import TableSummary
from tabular.ingest.preview import TablePreview, preview_table
from tabular.ingest.storing import parse_table
from tabular.slugs import Slug

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=FairRoute)

_UNREADABLE: tuple[Slug, ...] = (
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
)
_DATASET_PROBLEMS = (*_UNREADABLE, "storage-unavailable", "idempotency-key-reused")
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
    project: ProjectDep,
    state: StateDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Upload a table as CSV, Excel, JSON, NDJSON, npy, Arrow IPC stream or Parquet.

    The file is streamed to disk and parsed in bounded memory. It is registered completely or not
    at all. Each column gets a type, which its values suggest or the caller states: numbers, whole
    numbers, truth values, categories, dates, or none, of columns that are kept but not modelled.
    """
    settings = state.settings
    room = partial(state.registry.room, project, max_bytes=settings.max_project_bytes)
    with (
        state.open_uploads.hold(caller_of(request)),
        state.blobs.staged(".upload") as source,
    ):
        left = await in_thread(room)
        upload = await receive_upload(
            request, source, max_bytes=settings.max_upload_bytes, room=left
        )
        options = _with_form(options, upload)
        register = partial(
            _registered, state, project, source, upload, options, room=left, key=idempotency_key
        )
        # The file is here: a caller who sends slowly holds no parser.
        return await state.parsers.run(project, register)


@router.post(
    "/preview",
    operation_id="preview_dataset",
    summary="Preview an upload",
    response_description="Table as an upload would store it.",
    responses=problem_responses(*_UNREADABLE),
    openapi_extra=_UPLOAD_BODY,
)
async def preview_dataset(
    request: Request,
    options: Annotated[UploadOptions, Query()],
    project: ProjectDep,
    state: StateDep,
) -> PreviewView:
    """Return what an upload of the same body with the same options would make of it, and store nothing.

    Each warning names the options that mend it. Of a large file of text its first lines do: the types of the
    columns follow from the rows that are sent.
    """
    settings = state.settings
    most = settings.max_upload_bytes
    with (
        state.open_uploads.hold(caller_of(request)),
        state.blobs.staged(".upload") as source,
    ):
        upload = await receive_upload(request, source, max_bytes=most, room=most)
        options = _with_form(options, upload)
        return await state.parsers.run(
            project, partial(_previewed, state, source, upload, options, room=most)
        )


def _previewed(
    state: AppState, source: Path, upload: Upload, options: UploadOptions, *, room: int
) -> PreviewView:
    settings = state.settings
    with staged_table(state.blobs) as table:
        found: TablePreview = processes.run(
            preview_table,
            source,
            table,
            upload.format,
            options.parsing(settings, room=room),
            **settings.parser_limits,
            alone=True,
        )
    summary = found.summary
    return PreviewView.model_validate(
        {
            "format": upload.format,
            "rows": summary.rows,
            "columns": [column.to_dict() for column in summary.columns],
            "warnings": summary.warnings,
            "found": found.found,
            "sheets": found.sheets,
            "options": options.kept(),
            "first_rows": found.first,
            "last_rows": found.last,
        }
    )


def _with_form(options: UploadOptions, upload: Upload) -> UploadOptions:
    """Return options with those of a form, and of the Content-Type."""
    if upload.fields:
        options = options.with_fields(upload.fields)
    return options.model_copy(update={"header": False}) if upload.headerless else options


def _registered(  # noqa: PLR0913 - file, options and key of one request
    state: AppState,
    project: str,
    source: Path,
    upload: Upload,
    options: UploadOptions,
    *,
    room: int,
    key: str | None,
) -> Response:
    """Parse a file, and store its table with a row or return the dataset of an earlier request.

    It runs as a whole in one thread, so that a request that is cut off does not stop it.

    Raises:
        DatabaseUnavailableError: The table is stored, and perhaps the row.
        StoreError: Neither is stored.
    """
    settings, blobs, dataset_id = state.settings, state.blobs, new_id("ds")
    folder = table_key(dataset_id).rpartition("/")[0]
    with staged_table(blobs) as table:
        summary: TableSummary = processes.run(
            parse_table,
            source,
            table,
            upload.format,
            options.parsing(settings, room=room),
            **settings.parser_limits,
            alone=True,
        )
        with (
            unless_refused(blobs, folder),
            stored_table(blobs, table, summary, table_key(dataset_id)) as fields,
        ):
            dataset = state.registry.add_dataset(
                NewDataset(
                    **fields,
                    id=dataset_id,
                    project=project,
                    name=options.name or upload.file_name,
                    rows=summary.rows,
                    source_format=upload.format.value,
                    source_sha256=summary.source_sha256,
                    options=options.kept(),
                    description=options.description,
                    tags=options.labels(),
                ),
                idempotency=_idempotency(key, options, upload, summary),
                max_bytes=settings.max_project_bytes,
            )
    headers = {"Location": rooted(f"/v1/datasets/{dataset.id}")}
    if dataset.id != dataset_id:
        blobs.delete(folder)
        headers["Idempotent-Replayed"] = "true"
    return respond(DatasetView.whole(dataset), status_code=201, headers=headers)


def _idempotency(
    key: str | None, options: UploadOptions, upload: Upload, summary: TableSummary
) -> Idempotency | None:
    """Return the key and a fingerprint, equal for equal bytes that are read with equal options."""
    if key is None:
        return None
    request = ("dataset", upload.format, options.model_dump_json(), summary.source_sha256)
    return Idempotency.of(key, *request)
