"""Routes of the Open Inference Protocol v2."""

from functools import partial
from importlib.metadata import version as version_of
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from app.dependencies import StateDep
from app.http.downloads import unless_deleted
from app.http.examples import COLUMNS, MODEL, ROWS
from app.http.exchange import exchange_of
from app.http.json_body import JSON_MEDIA_TYPE, json_request
from app.inference.infer import Served, infer, input_tensors, output_tensors, served_of
from app.inference.tensors import BINARY_MEDIA_TYPE, HEADER_LENGTH
from app.inference.views import (
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from app.limits import in_thread
from app.problems.problem import problem_responses
from app.site.health import get_readiness

router = APIRouter(prefix="/v2", tags=["inference"])

Model = Annotated[
    str,
    Path(
        max_length=160,
        description="Reference to a model: `name` for its alias `production` or else its newest version,"
        " or `name@alias`. `:log_prob` (the default), `:score`, `:inverse` or `:sample` behind it names"
        " the function.",
        examples=[MODEL, f"{MODEL}:sample"],
    ),
]
_MAX_VERSIONS = 1000
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_EXAMPLES = {
    "rows": {
        "summary": "Log densities of two rows",
        "value": {
            "inputs": [
                {
                    "name": "rows",
                    "shape": [2, len(COLUMNS)],
                    "datatype": "FP64",
                    "data": [value for row in ROWS for value in row],
                }
            ]
        },
    },
    "samples": {
        "summary": "Samples, of a model name that ends in `:sample`",
        "value": {
            "inputs": [
                {"name": "n", "shape": [1], "datatype": "INT64", "data": [5]},
                {"name": "seed", "shape": [1], "datatype": "INT64", "data": [7]},
            ]
        },
    },
}


def _infer_body() -> dict[str, Any]:
    body = json_request(InferRequest, examples=_EXAMPLES)
    body["requestBody"]["content"][BINARY_MEDIA_TYPE] = _BINARY
    body["requestBody"]["description"] = (
        f"JSON, with `{HEADER_LENGTH}` followed by the bytes of the tensors that have"
        " `binary_data_size`, in their order."
    )
    return body


_INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Outputs of the model; those in binary form follow the JSON.",
        "headers": {
            HEADER_LENGTH: {
                "description": "Number of bytes of the JSON, if binary tensors follow it.",
                "schema": {"type": "integer"},
            }
        },
        "content": {
            JSON_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/InferResponse"}},
            BINARY_MEDIA_TYPE: _BINARY,
        },
        "model": InferResponse,
    },
    **problem_responses(
        "not-found",
        "batch-empty",
        "batch-shape",
        "batch-value",
        "columns-mismatch",
        "context-mismatch",
        "dimension-mismatch",
        "limit-rows",
        "model-without-noise",
        "score-unavailable",
        "overloaded",
        "artifact-missing",
        "artifact-corrupt",
    ),
}
_VERSION_PART: dict[str, Any] = {
    "parameters": [
        {
            "name": "version",
            "in": "path",
            "required": True,
            "description": "Number of the version.",
            "schema": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1, "examples": [1]},
        }
    ]
}


async def _served(request: Request, model: Model) -> Served:
    return await served_of(exchange_of(request), model, request.path_params.get("version"))


@router.get("", operation_id="get_server_metadata", summary="Get the server's metadata")
async def get_server_metadata() -> ServerMetadata:
    """Return the name and the version of the server, and its extensions of the protocol."""
    return ServerMetadata(
        name="densityd", version=version_of("densityd"), extensions=["binary_tensor_data"]
    )


@router.get("/health/live", operation_id="get_server_live", summary="Check that the server is live")
async def get_server_live() -> Live:
    """Respond as long as the process runs, as `/livez` does."""
    return Live(live=True)


@router.get(
    "/health/ready",
    operation_id="get_server_ready",
    summary="Check that the server is ready",
    responses={503: {"model": Ready, "description": "The server cannot serve requests."}},
)
async def get_server_ready(response: Response, state: StateDep) -> Ready:
    """Return whether the server accepts requests, as `/readyz` does."""
    await get_readiness(response, state)
    return Ready(ready=response.status_code != 503)


@router.get(
    "/models/{model}",
    operation_id="get_model_metadata",
    summary="Get a model's metadata",
    responses=problem_responses("not-found"),
)
@router.get(
    "/models/{model}/versions/{version}",
    operation_id="get_model_version_metadata",
    summary="Get a model version's metadata",
    responses=problem_responses("not-found"),
    openapi_extra=_VERSION_PART,
)
async def get_model_metadata(
    served: Annotated[Served, Depends(_served)], state: StateDep
) -> ModelMetadata:
    """Return the tensors that a function of a model takes and returns, and the model's versions."""
    version = served.version
    numbers = await in_thread(
        state.registry.version_numbers, version.project, version.name, limit=_MAX_VERSIONS
    )
    return ModelMetadata(
        name=served.name,
        versions=list(map(str, numbers)),
        platform=f"densityd_{version.family}",
        inputs=input_tensors(version, served.function),
        outputs=output_tensors(version, served.function),
    )


@router.get(
    "/models/{model}/ready",
    operation_id="get_model_ready",
    summary="Check that a model is ready",
    responses=problem_responses("not-found", "artifact-missing"),
)
@router.get(
    "/models/{model}/versions/{version}/ready",
    operation_id="get_model_version_ready",
    summary="Check that a model version is ready",
    responses=problem_responses("not-found", "artifact-missing"),
    openapi_extra=_VERSION_PART,
)
async def get_model_ready(
    served: Annotated[Served, Depends(_served)], state: StateDep
) -> ModelReady:
    """Return whether a model exists and its weights are stored; they are loaded when needed."""
    version = served.version

    def check() -> None:
        look = partial(
            state.registry.version_summary, version.project, version.name, version.version
        )
        with unless_deleted(look):
            state.blobs.size(version.checkpoint_key)

    await in_thread(check)
    return ModelReady(name=served.name, ready=True)


@router.post(
    "/models/{model}/infer",
    operation_id="infer",
    summary="Compute outputs of a model",
    response_class=Response,
    openapi_extra=_infer_body(),
    responses=_INFER_RESPONSES,
)
@router.post(
    "/models/{model}/versions/{version}/infer",
    operation_id="infer_version",
    summary="Compute outputs of a version",
    response_class=Response,
    openapi_extra=_infer_body() | _VERSION_PART,
    responses=_INFER_RESPONSES,
)
async def infer_model(request: Request, served: Annotated[Served, Depends(_served)]) -> Response:
    """Compute log densities, noise or samples of a model.

    The input is a tensor `rows` of shape [rows, columns], or a tensor of shape [rows] for each column
    by its name; the inputs of `:sample` are `n` and, optionally, `seed`. Texts and dates are BYTES,
    written as in a CSV file; an empty text is a missing value.
    """
    return await infer(exchange_of(request), served)
