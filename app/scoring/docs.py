"""OpenAPI descriptions of the routes that score and sample."""

from collections.abc import Mapping
from typing import Any

from app.http.examples import COLUMNS, MODEL, NOISE, ROWS
from app.problems.problem import problem_responses
from app.rows.docs import rows_content, rows_response_content
from tabular.slugs import Slug

_NUMBER_OR_NULL = {"type": ["number", "null"]}
_CELL = {"type": ["number", "string", "boolean", "null"]}
_BY_COLUMN = {
    "type": "array",
    "items": {"type": "object", "additionalProperties": _NUMBER_OR_NULL},
}
_VALUES = {"type": "array", "items": _NUMBER_OR_NULL}
_MODEL = {"type": "string", "description": "Version that computed the response, as `name:version`."}

_ROW = {"type": "integer", "minimum": 0, "description": "Index of the row, from 0."}
_DETAIL = {"type": "string", "description": "Explanation of this occurrence."}
_ROW_ERRORS = {
    "type": "array",
    "description": "Reasons why rows have null.",
    "items": {
        "type": "object",
        "required": ["row", "code", "detail"],
        "properties": {
            "row": _ROW,
            "code": {
                "type": "string",
                "enum": ["non_finite", "non_finite_input"],
                "description": "Stable name of the reason.",
            },
            "column": {
                "type": "string",
                "description": "Column that lacks a value, where the model has types.",
            },
            "detail": _DETAIL,
        },
    },
}
_ROW_WARNINGS = {
    "row_warnings": {
        "type": "array",
        "description": "Cells with a level that was not in the training data, and infinite ones that"
        " count as missing, for a model with column types; the first 1000.",
        "items": {
            "type": "object",
            "required": ["row", "column", "code", "detail"],
            "properties": {
                "row": _ROW,
                "column": {"type": "string", "description": "Column of the cell."},
                "code": {
                    "type": "string",
                    "enum": ["unseen_level", "infinite"],
                    "description": "Stable name of the warning.",
                },
                "detail": _DETAIL,
            },
        },
    },
    "row_warning_count": {
        "type": "integer",
        "minimum": 0,
        "description": "Number of all such cells.",
    },
    "body_warnings": {
        "type": "array",
        "description": "Parts of the body that are not rows and have no score, such as a total at"
        " the end of a CSV file, and guesses about how to read it; absent if there are none.",
        "items": {
            "type": "object",
            "required": ["code", "detail"],
            "properties": {
                "code": {
                    "type": "string",
                    "enum": ["encoding", "numeric_header", "skipped", "uneven"],
                    "description": "Stable name of the warning.",
                },
                "detail": _DETAIL,
            },
        },
    },
}
_X_ROW_WARNINGS = {
    "X-Row-Warnings": {
        "description": "Number of cells with a level that was not in the training data, and the"
        " first rows with one, for a model with column types.",
        "schema": {"type": "string"},
    },
    "X-Body-Warnings": {
        "description": "JSON list of `body_warnings`, in every format; absent if there are none.",
        "schema": {"type": "string"},
    },
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
            "description": "Maximum number of seconds to wait for the computation to begin; after"
            " that the response is 503.",
            "schema": {"type": "number", "exclusiveMinimum": 0},
        }
    ]
}


def rows_body(example: list[list[float]]) -> dict[str, Any]:
    """Return the `openapi_extra=` of a route that reads rows.

    Args:
        example: Rows that Swagger UI sends.
    """
    content = rows_content(COLUMNS, example)
    return {"requestBody": {"required": True, "content": content}, **TIMEOUT_PARAMETER}


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
            "description": "Part of the categories, missing values and spikes of each row.",
        },
        "continuous": {
            **_VALUES,
            "description": "Part of the other values, given the discrete ones.",
        },
        "order": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Columns in the order in which each is given those before it.",
        },
        "conditional": {
            **_BY_COLUMN,
            "description": "Log density of the value of each column given those before it in `order`."
            " Those of a row sum to its log density.",
        },
        "mean": {
            **_BY_COLUMN,
            "description": "Mean of each column given those before it; null where the model has no"
            " closed form of it, and for levels.",
        },
        **_ROW_WARNINGS,
    }
    example = {"model": f"{MODEL}:1", "log_prob": [-6.4, -19.3], "row_errors": []}
    return {
        200: _scores(
            optional,
            properties,
            example,
            columns=["log_prob"],
            description="Log densities, as a column `log_prob`; in npy a 1-D float64 array. With"
            " `parts`, their parts as columns `discrete` and `continuous`; with `conditionals`,"
            " columns `conditional.NAME`, then `mean.NAME`, for each column of the model.",
        ),
        **problem_responses(*_ROW_FAILURES, "conditionals-unavailable"),
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
            "description": "Rank of each row's log density among those of held-out rows: (k + 1) / (n + 1),"
            " where k of n are at most as likely; 0 for a density of 0.",
        },
        "held_out": {
            "type": "object",
            "description": "The held-out rows: their number `rows`, and their `part` of the split. Ranks"
            " among those of `validation`, which chose the epoch, may be a little low.",
            "properties": {
                "rows": {"type": "integer", "description": "Number of the rows."},
                "part": {
                    "type": "string",
                    "enum": ["test", "validation"],
                    "description": "Part of the split that they are.",
                },
            },
            "required": ["rows", "part"],
        },
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": f"{MODEL}:1",
        "log_prob": [-6.4, -19.3],
        "quantile": [0.37, 0.0012],
        "held_out": {"rows": 4900, "part": "test"},
        "row_errors": [],
    }
    optional = {
        "explained": {
            "type": "object",
            "additionalProperties": {
                "type": "string",
                "enum": ["exact", "learnt", "unavailable"],
            },
            "description": "`exact`, `learnt` or `unavailable` for each column: how its explanation is known.",
        },
        "explanation": {
            **_BY_COLUMN,
            "description": "Log density of the value of each column given the others of its row; null where"
            " the model does not know it.",
        },
        "usual": {
            "type": "object",
            "additionalProperties": _NUMBER_OR_NULL,
            "description": "Usual explanation of each column: the median over rows of the dataset, or over"
            " samples where there is none; null if neither is known.",
        },
        "difference": {
            **_BY_COLUMN,
            "description": "Each explanation minus the usual one of its column, in nats. Those"
            " furthest below 0 are of the values that make the row unlikely.",
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
            " columns `explanation.NAME`, then `difference.NAME`, for each column of the model.",
        ),
        **problem_responses(*_ROW_FAILURES, "score-unavailable", "explanation-unavailable"),
    }


def evidence_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `evidence`."""
    properties = {
        "seed": {"type": "integer", "description": "Seed of the samples."},
        "elbo": {**_VALUES, "description": "Evidence lower bound of each row in nats."},
        "log_evidence": {
            **_VALUES,
            "description": "Importance-weighted bound of the log evidence of each row in nats.",
        },
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": "digits:1",
        "seed": 0,
        "elbo": [-92.1, -88.4],
        "log_evidence": [-90.3, -87.0],
        "row_errors": [],
    }
    response = _response(
        properties,
        example,
        columns=["elbo", "log_evidence"],
        description="Columns `elbo` and `log_evidence`; in npy a 2-D float64 array.",
    )
    return {200: response, **problem_responses(*_ROW_FAILURES, "evidence-unavailable")}


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
        "model": f"{MODEL}:1",
        "rows": NOISE,
        "log_det": [-3.1, -2.8],
        "row_errors": [],
    }
    response = _response(
        properties,
        example,
        columns=[*COLUMNS, "log_det"],
        description=f"{side} Formats other than JSON have `log_det` as a column after those of the"
        " model; npy is a 2-D float64 array.",
    )
    failures = problem_responses(*_ROW_FAILURES, "model-without-noise")
    return {200: response, **failures}


def sample_responses() -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of `sample`."""
    properties = {
        "seed": {"type": "integer", "description": "Seed of the random numbers."},
        "columns": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Names of the columns.",
        },
        "rows": {
            "type": "array",
            "items": {"type": "array", "items": _CELL},
            "description": "Rows as they are in the table: numbers, strings, true, false, null.",
        },
        "row_errors": _ROW_ERRORS,
    }
    example = {
        "model": f"{MODEL}:1",
        "seed": 7,
        "columns": COLUMNS,
        "rows": ROWS,
        "row_errors": [],
    }
    response = _response(
        properties,
        example,
        columns=COLUMNS,
        description="Samples, streamed when there are many; in npy a 2-D float64 array.",
    )
    response["headers"] |= _X_SEED
    return {200: response, **problem_responses(*_FAILURES, "limit-samples", "context-mismatch")}


def _scores(
    optional: Mapping[str, Any],
    properties: Mapping[str, Any],
    example: Mapping[str, Any],
    *,
    columns: list[str],
    description: str,
) -> dict[str, Any]:
    """Return the description of a response of scores, whose JSON may have further members."""
    response = _response(properties, example, columns=columns, description=description)
    response["headers"] |= _X_ROW_WARNINGS
    response["content"]["application/json"]["schema"]["properties"] |= optional
    return response


def _response(
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
        "content": rows_response_content(schema, example=example, columns=columns),
    }
