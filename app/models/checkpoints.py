"""Routes that export a version as a file of weights and spec, and import one."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Request, Response, status
from starlette.responses import StreamingResponse

from app.auth.callers import caller_of
from app.dependencies import (
    REPLAYED,
    BlobsDep,
    IdempotencyKey,
    JobsDep,
    ModelsDep,
    ProjectDep,
    RegistryDep,
)
from app.http.downloads import file_download, unless_deleted, verified_headers
from app.http.json_body import body_chunks, declared_bytes, media_type_of, write_to_disk
from app.http.upload_room import check_room, within_room
from app.jobs.submission import training_limits
from app.limits import FairRoute, in_thread
from app.models.registration import Import, Registered, check_import, register_import
from app.models.routes import ModelName, VersionNumber
from app.models.views import VersionView
from app.plots.curves import exported_curve
from app.problems.problem import Problem, problem_responses
from app.resources.etags import respond
from app.root_path import rooted
from app.state import state_of
from models_store.exports.exported_files import exported_file
from models_store.exports.onnx_files import write_onnx_file
from models_store.files.model_files import MAX_HEADER_BYTES, looks_like_safetensors

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_FILE = {"schema": {"type": "string", "format": "binary"}}
_EXAMPLE = {"example": "the bytes of people-2.safetensors"}
_MEDIA_TYPE = "application/octet-stream"
_MEDIA_TYPES = (_MEDIA_TYPE, "application/vnd.safetensors")
_PIECE_BYTES = 256 * 1024
_EXPORT_S = 60.0  # the largest graphs take some seconds
_BYTES_A_PARAMETER = 8  # float32, and the mask that a masked one may have beside it


@router.get(
    "/{name}/versions/{version}/checkpoint",
    operation_id="download_checkpoint",
    summary="Download the weights of a version",
    response_class=Response,
    responses={
        200: {
            "description": "Safetensors file whose metadata describe the flow in JSON.",
            "content": {_MEDIA_TYPE: _FILE},
        },
        206: {
            "description": "Bytes of the file that `Range` asks for.",
            "content": {_MEDIA_TYPE: _FILE},
        },
        **problem_responses(
            "not-found", "bad-request", "range", "artifact-missing", "artifact-corrupt"
        ),
    },
)
def download_checkpoint(
    request: Request,
    name: ModelName,
    version: VersionNumber,
    registry: RegistryDep,
    blobs: BlobsDep,
    project: ProjectDep,
) -> Response:
    """Return the weights and the spec of a version as a safetensors file, verified by its hash."""
    look = partial(registry.version_summary, project, name, version)
    found = look()
    with unless_deleted(look):
        return file_download(
            request,
            blobs.verify(found.checkpoint_key, found.checkpoint_sha256),
            media_type=_MEDIA_TYPE,
            filename=f"{found.name}-{found.version}.safetensors",
            headers=verified_headers(found.checkpoint_sha256),
        )


@router.get(
    "/{name}/versions/{version}/export",
    operation_id="export_version",
    summary="Export a version",
    response_class=Response,
    responses={
        200: {
            "description": "Safetensors file whose metadata describe the flow and the version in JSON.",
            "content": {_MEDIA_TYPE: _FILE},
        },
        **problem_responses("not-found", "artifact-missing", "artifact-corrupt"),
    },
)
async def export_version(
    name: ModelName,
    version: VersionNumber,
    registry: RegistryDep,
    blobs: BlobsDep,
    jobs: JobsDep,
    project: ProjectDep,
) -> Response:
    """Return a version as a file that an import restores.

    The weights and the spec are those of `checkpoint`, to the last bit; beside them are metrics,
    calibration, lineage, learning curve and labels.
    """
    look = partial(registry.version, project, name, version)
    found = await in_thread(look)

    def made() -> Response:
        with unless_deleted(look):
            path = blobs.verify(found.checkpoint_key, found.checkpoint_sha256)
            curve = exported_curve(found, jobs, blobs)
            file = exported_file(path, found, curve)
            stored = file.path.open("rb")  # it may be deleted while it is sent
        filename = f"{found.name}-{found.version}.safetensors"
        headers = {
            "Content-Length": str(file.size),
            "Content-Disposition": f'attachment; filename="{filename}"',
        }
        pieces = _pieces(file.head, stored, file.start)
        return StreamingResponse(pieces, media_type=_MEDIA_TYPE, headers=headers)

    return await in_thread(made)


def _pieces(head: bytes, stored: BinaryIO, start: int) -> Iterator[bytes]:
    with stored:
        yield head
        stored.seek(start)
        while piece := stored.read(_PIECE_BYTES):
            yield piece


async def _onnx_file(request: Request, blobs: BlobsDep) -> AsyncIterator[Path]:
    """Give a file to write, which goes when the response has been sent."""
    with (
        state_of(request).open_exports.hold(caller_of(request)),
        blobs.staged(".onnx") as file,
    ):
        yield file


@router.get(
    "/{name}/versions/{version}/onnx",
    operation_id="export_onnx",
    summary="Export the log density of a version as ONNX",
    response_class=Response,
    responses={
        200: {
            "description": "ONNX model, whose inputs are rows and whose output is their log density.",
            "content": {_MEDIA_TYPE: _FILE},
        },
        **problem_responses(
            "not-found",
            "onnx-unsupported",
            "limit-memory",
            "limit-open-requests",
            "overloaded",
            "bad-request",
            "range",
            "storage-full",
            "artifact-missing",
            "artifact-corrupt",
        ),
    },
)
async def export_onnx(  # noqa: PLR0913 - FastAPI gives each
    request: Request,
    name: ModelName,
    version: VersionNumber,
    registry: RegistryDep,
    blobs: BlobsDep,
    project: ProjectDep,
    file: Annotated[Path, Depends(_onnx_file)],
) -> Response:
    """Return a graph that computes the log density of raw rows, without this service.

    Its input `rows` has the type float64 and the shape (batch, columns), in the data's own units;
    `context` the columns of the context, if there is one. Its output `log_prob` is in nats, float64.
    Preprocessing is part of it. A density that takes more than one pass is refused.
    """
    state = state_of(request)
    settings = state.settings
    look = partial(registry.version, project, name, version)
    found = await in_thread(look)
    filename = f"{found.name}-{found.version}.onnx"

    def write() -> Response:
        with unless_deleted(look):
            write_onnx_file(
                blobs.verify(found.checkpoint_key, found.checkpoint_sha256),
                found,
                file,
                memory_bytes=settings.import_memory_bytes,
                timeout_s=min(_EXPORT_S, settings.parse_timeout_s),
            )
        return file_download(request, file, media_type=_MEDIA_TYPE, filename=filename)

    # Not the thread of imports: a key that may only read must not delay them.
    return await state.exports.run(project, write)


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
            "column-name",
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
            "content": dict.fromkeys(_MEDIA_TYPES, _FILE | _EXAMPLE),
        }
    },
)
async def import_version(  # noqa: PLR0913 - FastAPI gives each
    request: Request,
    name: ModelName,
    project: ProjectDep,
    registry: RegistryDep,
    blobs: BlobsDep,
    models: ModelsDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Register a version that this or another service exported, as the next one of the model.

    The file is stored unchanged, so the log densities equal those of the exported version to the
    last bit. A file of `export` brings its metrics, its calibration and its labels; one of
    `checkpoint` has none. Pickles and archives are refused.
    """
    state = state_of(request)
    settings = state.settings
    if media_type_of(request) not in _MEDIA_TYPES:
        raise _wrong_type(
            "The Content-Type of a model is application/octet-stream; the file is what an export gave."
        )
    most = _BYTES_A_PARAMETER * settings.max_parameters + MAX_HEADER_BYTES

    def room() -> int:
        return registry.room(project, max_bytes=state.settings.max_project_bytes)

    with (
        state.open_uploads.hold(caller_of(request)),
        blobs.staged(".import") as file,
    ):
        left = await in_thread(room)
        check_room(min(declared_bytes(request), most), left)
        await write_to_disk(within_room(body_chunks(request, limit=most), left), file)
        if not looks_like_safetensors(file):
            raise _wrong_type("The body is no safetensors file. No other kind is read.")
        wanted = Import(
            project,
            name,
            file,
            idempotency_key=idempotency_key,
            max_project_bytes=state.settings.max_project_bytes,
        )
        limits = training_limits(settings)
        check = partial(check_import, file, limits=limits, settings=settings)
        model = await state.imports.run(project, check)
        registered = await in_thread(register_import, wanted, model, blobs, registry)
    models.forget(project)
    return await in_thread(_shown, registered)


def _shown(registered: Registered) -> Response:
    version = registered.version
    headers = {"Location": rooted(f"/v1/models/{version.name}/versions/{version.version}")}
    if registered.replayed:
        headers["Idempotent-Replayed"] = "true"
    view = VersionView.of(version)
    return respond(view, status_code=status.HTTP_201_CREATED, headers=headers)


def _wrong_type(detail: str) -> Problem:
    return Problem("media-type", detail, members={"supported": list(_MEDIA_TYPES)})
