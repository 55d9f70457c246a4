"""OpenAPI descriptions of the routes that score and sample."""

from collections.abc import Mapping
from typing import Any

from app.problems.problem import problem_responses
from app.rows.docs import rows_answer_content, rows_content
from tables.slugs import Slug

_NUMBER_OR_NULL = {"type": ["number", "null"]}
_CELL = {"type": ["number", "string", "boolean", "null"]}
_VALUES = {"type": "array", "items": _NUMBER_OR_NULL}
_MODEL = {"type": "string", "description": "Version that computed the response, as `name:version`."}

EXAMPLE_COLUMNS = [f"x{number}" for number in range(1, 10)]
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
    "description": "Reasons of the rows that have null.",
    "items": {
        "type": "object",
        "required": ["row", "code", "detail"],
        "properties": {
            "row": {"type": "integer", "minimum": 0},
            "code": {"type": "string", "enum": ["non_finite", "non_finite_input"]},
            "column": {
                "type": "string",
                "description": "Column that lacks a value, where the model has types.",
            },
            "detail": {"type": "string"},
        },
    },
}
_ROW_WARNINGS = {
    "row_warnings": {
        "type": "array",
        "description": "Cells whose levels training never saw, of a model with types: the first 1000.",
        "items": {
            "type": "object",
            "required": ["row", "column", "code", "detail"],
            "properties": {
                "row": {"type": "integer", "minimum": 0},
                "column": {"type": "string"},
                "code": {"type": "string", "enum": ["unseen_level"]},
                "detail": {"type": "string"},
            },
        },
    },
    "row_warning_count": {
        "type": "integer",
        "minimum": 0,
        "description": "Number of all such cells.",
    },
}
_X_ROW_WARNINGS = {
    "X-Row-Warnings": {
        "description": "Number of cells whose levels training never saw, and the first rows that have one,"
        " of a model with types.",
        "schema": {"type": "string"},
    }
}
_X_MODEL = {"X-Model": {"description": _MODEL["description"], "schema": {"type": "string"}}}
_X_SEED = {"X-Seed": {"description": "Seed of the random numbers.", "schema": {"type": "integer"}}}
_FAILURES: tuple[Slug, ...] = (
    "not-found",
    "not-acceptable",
    "overloaded",
    "limit-memory",
    "limit-parameters",
    "artifact-missing",
    "artifact-corrupt",
    "artifact-mismatch",
)
_ROW_FAILURES: tuple[Slug, ...] = (
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


TIMEOUT_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "X-Request-Timeout",
            "in": "header",
            "required": False,
            "description": "Seconds that the request may wait for its computation to begin; after them the response is 503.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        }
    ]
}


_EARLY_PARAMETER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`early-answer` to begin the response to a large npy body before the whole body has come. Not"
    " for use behind a proxy that stops sending a body once its response has begun, as nginx does.",
    "schema": {"type": "string"},
    "examples": {
        "none": {"summary": "Begin the response after the body", "value": ""},
        "early": {"summary": "Begin the response with the first rows", "value": "early-answer"},
    },
}


def rows_body(example: list[list[float]]) -> dict[str, Any]:
    """Return the `openapi_extra=` of a route that reads rows.

    Args:
        example: Rows that Swagger UI sends.
    """
    content = rows_content(EXAMPLE_COLUMNS, example)
    parameters = [*TIMEOUT_PARAMETER["parameters"], _EARLY_PARAMETER]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


def log_prob_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `log_prob`."""
    properties = {
        "log_prob": {
            **_VALUES,
            "description": "Log density of each row in nats; null if there is an entry in `row_errors`.",
        },
        "row_errors": _ROW_ERRORS,
    }
    optional = {
        "discrete": {
            **_VALUES,
            "description": "Part of the categories, gaps and spikes of each row.",
        },
        "continuous": {**_VALUES, "description": "Part of the other values given those."},
        **_ROW_WARNINGS,
    }
    example = {"model": "shuttle:1", "log_prob": [-18.2, -21.7], "row_errors": []}
    return {
        200: _scores(
            optional,
            properties,
            example,
            columns=["log_prob"],
            description="Log densities, as a column `log_prob`; in npy a 1-D float64 array. With"
            " `parts`, their parts as columns `discrete` and `continuous`.",
        ),
        **problem_responses(*_ROW_FAILURES),
    }


def score_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `score`."""
    properties = {
        "log_prob": {
            **_VALUES,
            "description": "Log density of each row in nats; null if there is an entry in `row_errors`.",
        },
        "quantile": {
            "type": "array",
            "items": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "description": "Quantile of each row's log density among those of held-out rows; 0 for a density of 0.",
        },
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "shuttle:1",
        "log_prob": [-18.2, -41.7],
        "quantile": [0.37, 0.0012],
        "row_errors": [],
    }
    optional = {
        "explained": {
            "type": "object",
            "additionalProperties": {"enum": ["exact", "learnt", "unavailable"]},
            "description": "Kind of the explanation of each column.",
        },
        "explanation": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": _NUMBER_OR_NULL},
            "description": "Log density of the value of each column given the others of its row; null where"
            " the model does not know it.",
        },
        **_ROW_WARNINGS,
    }
    return {
        200: _scores(
            optional,
            properties,
            example,
            columns=["log_prob", "quantile"],
            description="Columns `log_prob` and `quantile`; in npy a 2-D float64 array. With `explain`,"
            " a column `explanation.NAME` for each column of the model.",
        ),
        **problem_responses(*_ROW_FAILURES, "score-unavailable", "explanation-unavailable"),
    }


def transform_responses(side: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `inverse` and `forward`.

    Args:
        side: Description of the rows of the response.
    """
    properties = {
        "rows": {"type": "array", "items": _VALUES, "description": side},
        "log_det": {**_VALUES, "description": "Log absolute determinant of each row."},
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "shuttle:1",
        "rows": EXAMPLE_NOISE,
        "log_det": [-3.1, -2.8],
        "row_errors": [],
    }
    answer = _answer(
        properties,
        example,
        columns=[*EXAMPLE_COLUMNS, "log_det"],
        description=f"{side} Formats other than JSON have `log_det` as a column after those of the"
        " model; npy is a 2-D float64 array.",
    )
    failures = problem_responses(*_ROW_FAILURES, "model-without-noise")
    return {200: answer, **failures}


def sample_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `sample`."""
    properties = {
        "seed": {"type": "integer", "description": "Seed of the random numbers."},
        "columns": {"type": "array", "items": {"type": "string"}},
        "rows": {
            "type": "array",
            "items": {"type": "array", "items": _CELL},
            "description": "Rows as they are in the table: numbers, texts, true, false, null.",
        },
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "shuttle:1",
        "seed": 7,
        "columns": EXAMPLE_COLUMNS,
        "rows": EXAMPLE_ROWS,
        "row_errors": [],
    }
    answer = _answer(
        properties,
        example,
        columns=EXAMPLE_COLUMNS,
        description="Samples, streamed when there are many; in npy a 2-D float64 array.",
    )
    answer["headers"] |= _X_SEED
    return {200: answer, **problem_responses(*_FAILURES, "limit-samples", "context-mismatch")}


def _scores(
    optional: Mapping[str, Any],
    properties: Mapping[str, Any],
    example: Mapping[str, Any],
    *,
    columns: list[str],
    description: str,
) -> dict[str, Any]:
    """Return the description of a response of scores, whose JSON may have further members."""
    answer = _answer(properties, example, columns=columns, description=description)
    answer["headers"] |= _X_ROW_WARNINGS
    answer["content"]["application/json"]["schema"]["properties"] |= optional
    return answer


def _answer(
    properties: Mapping[str, Any],
    example: Mapping[str, Any],
    *,
    columns: list[str],
    description: str,
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["model", *properties],
        "properties": {"model": _MODEL, **properties},
    }
    return {
        "description": description,
        "headers": dict(_X_MODEL),
        "content": rows_answer_content(schema, example=example, columns=columns),
    }
