"""Import of a version that was trained elsewhere: its file is checked and stored before its row."""

from functools import partial
from importlib.metadata import version as code_version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response, status

from app.auth.callers import caller_of
from app.dependencies import REPLAYED, IdempotencyKey, ProjectDep, StateDep
from app.http.exchange import exchange_of
from app.http.json_body import body_chunks, declared_bytes, media_type_of, write_to_disk
from app.http.upload_room import check_room, unless_refused, within_room
from app.jobs.submission import training_limits
from app.limits import FairRoute, in_thread
from app.models.routes import ModelName
from app.models.views import VersionView
from app.problems.problem import Problem, problem_responses
from app.resources.etags import respond
from app.root_path import rooted
from app.settings import ApiSettings
from app.state import AppState
from models_store.exports.exported_files import VersionRecord, read_record
from models_store.files.blobs import imported_key
from models_store.files.model_files import (
    MAX_HEADER_BYTES,
    check_model_file,
    looks_like_safetensors,
)
from models_store.job_states import Idempotency
from models_store.records import NewVersion

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_FILE = {
    "schema": {"type": "string", "format": "binary"},
    "example": "the bytes of people-2.safetensors",
}
_MEDIA_TYPES = ("application/octet-stream", "application/vnd.safetensors")
_BYTES_A_PARAMETER = 8  # float32, and the mask that a masked one may have beside it


@router.post(
    "/{name}/versions",
    operation_id="import_version",
    summary="Import a version",
    status_code=status.HTTP_201_CREATED,
    response_model=VersionView,
    responses={
        201: {
            "description": "Registered version.",
            "headers": {
                "Location": {"description": "URL of the version.", "schema": {"type": "string"}},
                "Idempotent-Replayed": REPLAYED,
            },
        },
        **problem_responses(
            "not-found",
            "checkpoint-invalid",
            "media-type",
            "limit-body",
            "limit-columns",
            "limit-parameters",
            "limit-memory",
            "overloaded",
            "quota-storage",
            "storage-full",
            "storage-unavailable",
            "idempotency-key-reused",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "Safetensors file as `GET .../export` or `GET .../checkpoint` returns it.",
            "content": dict.fromkeys(_MEDIA_TYPES, _FILE),
        }
    },
)
async def import_version(
    request: Request,
    name: ModelName,
    project: ProjectDep,
    state: StateDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Register a version that this or another service exported, as the next one of the model.

    The file is stored unchanged, so the log densities equal those of the exported version to the
    last bit. A file of `export` brings its metrics, its calibration and its labels; one of
    `checkpoint` has none. Pickles and archives are refused.
    """
    exchange = exchange_of(request)
    if media_type_of(exchange) not in _MEDIA_TYPES:
        raise _wrong_type(
            "The Content-Type of a model is application/octet-stream; the file is what an export gave."
        )
    settings = state.settings
    most = _BYTES_A_PARAMETER * settings.max_parameters + MAX_HEADER_BYTES
    room = partial(state.registry.room, project, max_bytes=settings.max_project_bytes)
    with (
        state.open_uploads.hold(caller_of(request)),
        state.blobs.staged(".import") as file,
    ):
        left = await in_thread(room)
        check_room(min(declared_bytes(exchange), most), left)
        await write_to_disk(within_room(body_chunks(exchange, limit=most), left), file)
        if not looks_like_safetensors(file):
            raise _wrong_type("The body is no safetensors file. No other kind is read.")
        new = await state.imports.run(project, _checked, file, settings)
        response = await in_thread(_register, state, project, name, new, file, idempotency_key)
    state.models.forget(project)
    return response


def _checked(file: Path, settings: ApiSettings) -> dict[str, Any]:
    """Return what a file says of its version; it is checked in a process of its own.

    Raises:
        StoreError: The file is not a model that can be served.
    """
    record = read_record(file)
    model = check_model_file(
        file,
        limits=training_limits(settings),
        max_columns=settings.max_columns,
        memory_bytes=settings.import_memory_bytes,
        timeout_s=settings.parse_timeout_s,
    )
    return model | _recorded(record)


def _register(
    state: AppState,
    project: str,
    name: str,
    described: dict[str, Any],
    file: Path,
    key: str | None,
) -> Response:
    """Store a checked file unchanged and register it, unless an earlier request with its key did.

    Raises:
        DatabaseUnavailableError: The file is stored, and perhaps the row.
        StoreError: Neither file nor row is stored.
    """
    blob = state.blobs.commit(file, imported_key())
    new = NewVersion(
        **described,
        checkpoint_key=blob.key,
        checkpoint_sha256=blob.sha256,
        checkpoint_bytes=blob.bytes,
    )
    # Equal for equal bytes under the same name.
    idempotency = None if key is None else Idempotency.of(key, "version", name, blob.sha256)
    with unless_refused(state.blobs, blob.key):
        version = state.registry.add_version(
            project,
            name,
            new,
            idempotency=idempotency,
            max_bytes=state.settings.max_project_bytes,
        )
    headers = {"Location": rooted(f"/v1/models/{name}/versions/{version.version}")}
    if version.checkpoint_key != blob.key:
        state.blobs.delete(blob.key)
        headers["Idempotent-Replayed"] = "true"
    view = VersionView.of(version)
    return respond(view, status_code=status.HTTP_201_CREATED, headers=headers)


def _recorded(record: VersionRecord | None) -> dict[str, Any]:
    """Return the fields of a version that its file has a record of."""
    if record is None:
        return {
            "metrics": {},
            "dataset_sha256": None,
            "seed": None,
            "code_version": code_version("densityd"),
        }
    return record.model_dump(exclude={"format", "learning_curve"})


def _wrong_type(detail: str) -> Problem:
    return Problem("media-type", detail, members={"supported": list(_MEDIA_TYPES)})
