"""Routes that give a version as a file: its weights, an export with its record, an ONNX graph."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse

from app.auth.callers import caller_of
from app.dependencies import ProjectDep, StateDep
from app.http.downloads import file_download, unless_deleted, verified_headers
from app.limits import FairRoute, in_thread
from app.models.routes import ModelName, VersionNumber
from app.plots.curves import exported_curve
from app.problems.problem import problem_responses
from app.state import state_of
from models_store.exports.exported_files import exported_file
from models_store.exports.onnx_files import write_onnx_file

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_FILE = {"schema": {"type": "string", "format": "binary"}}
_MEDIA_TYPE = "application/octet-stream"
_PIECE_BYTES = 256 * 1024
_EXPORT_S = 60.0  # the largest graphs take some seconds


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
    request: Request, name: ModelName, version: VersionNumber, state: StateDep, project: ProjectDep
) -> Response:
    """Return the weights and the spec of a version as a safetensors file, verified by its hash."""
    look = partial(state.registry.version_summary, project, name, version)
    found = look()
    with unless_deleted(look):
        return file_download(
            request,
            state.blobs.verify(found.checkpoint_key, found.checkpoint_sha256),
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
def export_version(
    name: ModelName, version: VersionNumber, state: StateDep, project: ProjectDep
) -> Response:
    """Return a version as a file that an import restores.

    The weights and the spec are those of `checkpoint`, to the last bit; beside them are metrics,
    calibration, lineage, learning curve and labels.
    """
    look = partial(state.registry.version, project, name, version)
    found = look()
    with unless_deleted(look):
        path = state.blobs.verify(found.checkpoint_key, found.checkpoint_sha256)
        file = exported_file(path, found, exported_curve(found, state.jobs, state.blobs))
        stored = file.path.open("rb")  # it may be deleted while it is sent
    filename = f"{found.name}-{found.version}.safetensors"
    headers = {
        "Content-Length": str(file.size),
        "Content-Disposition": f'attachment; filename="{filename}"',
    }
    pieces = _pieces(file.head, stored, file.start)
    return StreamingResponse(pieces, media_type=_MEDIA_TYPE, headers=headers)


def _pieces(head: bytes, stored: BinaryIO, start: int) -> Iterator[bytes]:
    with stored:
        yield head
        stored.seek(start)
        while piece := stored.read(_PIECE_BYTES):
            yield piece


async def _onnx_file(request: Request, state: StateDep) -> AsyncIterator[Path]:
    """Give a file to write, which goes when the response has been sent."""
    with (
        state_of(request).open_exports.hold(caller_of(request)),
        state.blobs.staged(".onnx") as file,
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
            "onnx-not-installed",
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
async def export_onnx(
    request: Request,
    name: ModelName,
    version: VersionNumber,
    state: StateDep,
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
    look = partial(state.registry.version, project, name, version)
    found = await in_thread(look)
    filename = f"{found.name}-{found.version}.onnx"

    def write() -> Response:
        with unless_deleted(look):
            write_onnx_file(
                state.blobs.verify(found.checkpoint_key, found.checkpoint_sha256),
                found,
                file,
                memory_bytes=settings.import_memory_bytes,
                timeout_s=min(_EXPORT_S, settings.parse_timeout_s),
            )
        return file_download(request, file, media_type=_MEDIA_TYPE, filename=filename)

    # Not the thread of imports: a key that may only read must not delay them.
    return await state.exports.run(project, write)
