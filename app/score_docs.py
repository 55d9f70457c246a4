"""The OpenAPI description of the routes that take and give rows, which FastAPI cannot infer."""

from collections.abc import Mapping
from typing import Any

from app.negotiation import RowFormat
from app.problems import problem_responses

_JSON = RowFormat.JSON.value
_NPY = RowFormat.NPY.value
_BINARY = {"type": "string", "format": "binary"}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_VALUES = {"type": "array", "items": _NUMBER_OR_NULL}
_MODEL = {"type": "string", "description": "The version that answered, as `name:version`."}

# Two rows of the table that the quickstart's model `shuttle` is trained on.
EXAMPLE_ROWS = [
    [50.0, 21.0, 77.0, 0.0, 28.0, 0.0, 27.0, 48.0, 22.0],
    [55.0, 0.0, 92.0, 0.0, 0.0, 26.0, 36.0, 92.0, 56.0],
]
EXAMPLE_NOISE = [
    [0.1, -0.4, 0.7, 0.0, 1.2, -0.9, 0.3, 0.5, -1.1],
    [1.5, 0.2, -0.3, 0.8, 0.0, 0.6, -0.7, 0.4, 0.1],
]

_ROW_ERRORS = {
    "type": "array",
    "description": "Why rows have null in the answer.",
    "items": {
        "type": "object",
        "required": ["row", "code", "detail"],
        "properties": {
            "row": {"type": "integer", "minimum": 0},
            "code": {"type": "string", "enum": ["non_finite", "non_finite_input"]},
            "detail": {"type": "string"},
        },
    },
}
_X_MODEL = {"X-Model": {"description": _MODEL["description"], "schema": {"type": "string"}}}
_X_SEED = {"X-Seed": {"description": "What the rows follow from.", "schema": {"type": "integer"}}}
_ROW_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
}
_NAMED_ROW_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "additionalProperties": {"type": "number"}},
}
_FAILURES = (
    "not-found",
    "not-acceptable",
    "overloaded",
    "artifact-missing",
    "artifact-corrupt",
    "artifact-mismatch",
)
_ROW_FAILURES = (
    *_FAILURES,
    "batch-empty",
    "batch-shape",
    "batch-value",
    "dimension-mismatch",
    "columns-mismatch",
    "limit-rows",
    "array-parse",
    "array-dtype",
)


def rows_body(example: list[list[float]], *, named: bool) -> dict[str, Any]:
    """The `openapi_extra=` of a route that reads rows.

    Args:
        example: what Swagger UI sends.
        named: whether rows may be objects keyed by column.
    """
    rows = {"anyOf": [_ROW_LIST, _NAMED_ROW_LIST]} if named else _ROW_LIST
    schema = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": rows},
        "additionalProperties": False,
    }
    examples = {"lists": {"summary": "Rows as lists", "value": {"rows": example}}}
    if named:
        columns = [f"x{number}" for number in range(1, len(example[0]) + 1)]
        examples["objects"] = {
            "summary": "Rows as objects keyed by column",
            "value": {"rows": [dict(zip(columns, row, strict=True)) for row in example]},
        }
    return {
        "requestBody": {
            "required": True,
            "content": {
                _JSON: {"schema": schema, "examples": examples},
                _NPY: {"schema": _BINARY},
            },
        },
    }


def log_prob_responses() -> dict[int | str, dict[str, Any]]:
    """The `responses=` of `log_prob`."""
    properties = {
        "log_prob": {**_VALUES, "description": "Nats, one a row; null: see `row_errors`."},
        "row_errors": _ROW_ERRORS,
    }
    example = {"model": "shuttle:1", "log_prob": [-18.2, -21.7], "row_errors": []}
    return {
        200: _answer(properties, example, "The log densities. npy: a 1-D float64 array."),
        **problem_responses(*_ROW_FAILURES),
    }


def transform_responses(side: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of `inverse` and `forward`.

    Args:
        side: what the rows of the answer are.
    """
    properties = {
        "rows": {"type": "array", "items": _VALUES, "description": side},
        "log_det": {**_VALUES, "description": "Log absolute determinants, one a row."},
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "shuttle:1",
        "rows": EXAMPLE_NOISE,
        "log_det": [-3.1, -2.8],
        "row_errors": [],
    }
    text = (
        f"{side} npy: a 2-D float64 array with one column more than the model has; the last one"
        " is `log_det`."
    )
    failures = problem_responses(*_ROW_FAILURES, "model-without-noise")
    return {200: _answer(properties, example, text), **failures}


def sample_responses() -> dict[int | str, dict[str, Any]]:
    """The `responses=` of `sample`."""
    properties = {
        "seed": {"type": "integer", "description": "What the rows follow from."},
        "columns": {"type": "array", "items": {"type": "string"}},
        "rows": {"type": "array", "items": _VALUES},
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "shuttle:1",
        "seed": 7,
        "columns": [f"x{number}" for number in range(1, 10)],
        "rows": EXAMPLE_ROWS,
        "row_errors": [],
    }
    answer = _answer(properties, example, "The rows, streamed when large. npy: a 2-D array.")
    answer["headers"] |= _X_SEED
    return {200: answer, **problem_responses(*_FAILURES, "limit-samples", "context-mismatch")}


def _answer(
    properties: Mapping[str, Any], example: Mapping[str, Any], description: str
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["model", *properties],
        "properties": {"model": _MODEL, **properties},
    }
    return {
        "description": description,
        "headers": dict(_X_MODEL),
        "content": {_JSON: {"schema": schema, "example": example}, _NPY: {"schema": _BINARY}},
    }
