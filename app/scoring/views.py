"""Responses of the routes that score and sample, as OpenAPI describes them: they are written by encoders."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.http.examples import COLUMNS, MODEL, NOISE, ROWS
from app.problems.problem import problem_responses
from app.rows.docs import rows_content, rows_response_content
from tabular.slugs import Slug

Numbers = list[float | None]
ByColumn = list[dict[str, float | None]]

_DETAIL = "Explanation of this occurrence."
_ROW = "Index of the row, from 0."


_EFFECTIVE = "Effective number of draws behind each row; null where the answer is exact."
_UNCERTAIN = (
    "1 for each row whose draws did not reach the quality that is aimed at, else 0: its numbers are"
    " rough."
)


class RowError(BaseModel):
    """Reason why a row has null."""

    row: int = Field(ge=0, description=_ROW)
    code: Literal["non_finite", "non_finite_input"] = Field(
        description="Stable name of the reason."
    )
    column: str | None = Field(
        default=None, description="Column that lacks a value, where the model has types."
    )
    detail: str = Field(description=_DETAIL)


class RowWarning(BaseModel):
    """Cell that the model has not seen the like of."""

    row: int = Field(ge=0, description=_ROW)
    column: str = Field(description="Column of the cell.")
    code: Literal["unseen_level", "infinite"] = Field(description="Stable name of the warning.")
    detail: str = Field(description=_DETAIL)


class BodyWarningView(BaseModel):
    """Part of a body that is no row, or a guess about how to read it."""

    code: Literal["encoding", "numeric_header", "skipped", "uneven"] = Field(
        description="Stable name of the warning."
    )
    detail: str = Field(description=_DETAIL)


class Computed(BaseModel):
    """Numbers that a version made of rows."""

    model: str = Field(description="Version that computed the response, as `name:version`.")
    row_errors: list[RowError] = Field(description="Reasons why rows have null.")


class ComputedOfCells(Computed):
    """Numbers that a version made of rows that may have cells with types."""

    row_warnings: list[RowWarning] | None = Field(
        default=None,
        description="Cells with a level that was not in the training data, and infinite ones that"
        " count as missing, for a model with column types; the first 1000.",
    )
    row_warning_count: int | None = Field(
        default=None, ge=0, description="Number of all such cells."
    )
    body_warnings: list[BodyWarningView] | None = Field(
        default=None,
        description="Parts of the body that are not rows and have no score, such as a total at"
        " the end of a CSV file, and guesses about how to read it; absent if there are none.",
    )


class LogProbs(ComputedOfCells):
    """Log densities."""

    log_prob: Numbers = Field(
        description="Log density of each row in nats; null if there is an entry in `row_errors`."
    )
    discrete: Numbers | None = Field(
        default=None,
        description="Part of the categories, missing values and spikes of each row.",
    )
    continuous: Numbers | None = Field(
        default=None, description="Part of the other values, given the discrete ones."
    )
    columns: list[str] | None = Field(default=None, description="Columns that were asked for.")
    given: list[str] | None = Field(default=None, description="Columns that were known.")
    standard_error: Numbers | None = Field(
        default=None,
        description="Standard error of each log density, in nats, where some columns were asked for; 0"
        " where it is exact.",
    )
    effective_samples: Numbers | None = Field(default=None, description=_EFFECTIVE)
    pareto_k: Numbers | None = Field(
        default=None,
        description="Shape of the tail of the weights of the draws; null where the answer is exact."
        " Below 0.7 the standard error can be trusted.",
    )
    uncertain: Numbers | None = Field(default=None, description=_UNCERTAIN)
    order: list[str] | None = Field(
        default=None,
        description="Columns in the order in which each is given those before it.",
    )
    conditional: ByColumn | None = Field(
        default=None,
        description="Log density of the value of each column given those before it in `order`."
        " Those of a row sum to its log density.",
    )
    mean: ByColumn | None = Field(
        default=None,
        description="Mean of each column given those before it; null where the model has no"
        " closed form of it, and for levels.",
    )


class Expectations(ComputedOfCells):
    """What to expect of a column."""

    column: str = Field(description="Column that was asked for.")
    given: list[str] = Field(description="Columns that were known, where a row has them.")
    mean: Numbers | None = Field(default=None, description="Mean of a column of numbers.")
    quantiles: ByColumn | None = Field(
        default=None, description="Quantiles of a column of numbers, by their shares."
    )
    probabilities: ByColumn | None = Field(
        default=None, description="Probability of each level of a column of levels."
    )
    probability: Numbers | None = Field(
        default=None, description="Probability that the condition of the query holds."
    )
    effective_samples: Numbers = Field(description=_EFFECTIVE)
    uncertain: Numbers = Field(description=_UNCERTAIN)


class ImputedRows(BaseModel):
    """Rows whose gaps are filled."""

    model: str = Field(description="Version that computed the response, as `name:version`.")
    seed: int = Field(description="Seed of the draws.")
    columns: list[str] = Field(
        description="Names of the columns; with `level` those of the ends of intervals follow."
    )
    uncertain_rows: int = Field(
        description="Number of rows whose draws did not reach the quality that is aimed at."
    )
    rows: list[list[float | str | bool | None]] = Field(description="Rows as in the table.")
    body_warnings: list[BodyWarningView] | None = Field(
        default=None, description="Parts of the body that are no rows; absent if there are none."
    )


class HeldOut(BaseModel):
    """Held-out rows."""

    rows: int = Field(description="Number of the rows.")
    part: Literal["test", "validation"] = Field(description="Part of the split that they are.")


class Scores(ComputedOfCells):
    """Calibrated scores."""

    log_prob: Numbers = Field(
        description="Log density of each row in nats; null if there is an entry in `row_errors`."
    )
    quantile: list[float | None] = Field(
        description="Rank of each row's log density among those of held-out rows: (k + 1) / (n + 1),"
        " where k of n are at most as likely; 0 for a density of 0."
    )
    held_out: HeldOut = Field(
        description="The held-out rows: their number `rows`, and their `part` of the split. Ranks"
        " among those of `validation`, which chose the epoch, may be a little low."
    )
    explained: dict[str, Literal["exact", "learnt", "unavailable"]] | None = Field(
        default=None,
        description="`exact`, `learnt` or `unavailable` for each column: how its explanation is known.",
    )
    explanation: ByColumn | None = Field(
        default=None,
        description="Log density of the value of each column given the others of its row; null where"
        " the model does not know it.",
    )
    usual: dict[str, float | None] | None = Field(
        default=None,
        description="Usual explanation of each column: the median over rows of the dataset, or over"
        " samples where there is none; null if neither is known.",
    )
    difference: ByColumn | None = Field(
        default=None,
        description="Each explanation minus the usual one of its column, in nats. Those"
        " furthest below 0 are of the values that make the row unlikely.",
    )


class Evidence(Computed):
    """Bounds of the evidence of rows."""

    seed: int = Field(description="Seed of the samples.")
    elbo: Numbers = Field(description="Evidence lower bound of each row in nats.")
    log_evidence: Numbers = Field(
        description="Importance-weighted bound of the log evidence of each row in nats."
    )


class Transformed(Computed):
    """Rows between data and noise."""

    rows: list[Numbers] = Field(description="Rows on the other side of the map.")
    log_det: Numbers = Field(description="Log absolute determinant of each row.")


class Samples(Computed):
    """Samples."""

    seed: int = Field(description="Seed of the random numbers.")
    columns: list[str] = Field(description="Names of the columns.")
    rows: list[list[float | str | bool | None]] = Field(
        description="Rows as they are in the table: numbers, strings, true, false, null."
    )


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


_X_MODEL = {"X-Model": _header("Version that computed the response, as `name:version`.")}
_X_SEED = {"X-Seed": _header("Seed of the random numbers.", "integer")}
_X_WARNINGS = {
    "X-Row-Warnings": _header(
        "Number of cells with a level that was not in the training data, and the first rows with one,"
        " for a model with column types."
    ),
    "X-Body-Warnings": _header(
        "JSON list of `body_warnings`, in every format; absent if there are none."
    ),
}
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


Responses = dict[int | str, dict[str, Any]]


def _responses(
    model: type[BaseModel],
    example: Mapping[str, Any],
    *failures: Slug,
    columns: list[str],
    description: str,
    headers: Mapping[str, Any] | None = None,
) -> Responses:
    """Return the `responses=` of a route.

    Args:
        model: Model of the JSON.
        example: Members of an example besides those of every response.
        *failures: Problems of this route alone.
        columns: Names of the columns in formats other than JSON.
        headers: Headers besides those of every response.
    """
    whole = {"model": f"{MODEL}:1", **example, "row_errors": []}
    found = {
        "model": model,
        "description": description,
        "headers": {**_X_MODEL, **(headers or {})},
        "content": rows_response_content(None, example=whole, columns=columns),
    }
    problems = _FAILURES if model is Samples else _ROW_FAILURES
    return {200: found, **problem_responses(*problems, *failures)}


LOG_PROB_RESPONSES: Responses = _responses(
    LogProbs,
    {"log_prob": [-6.4, -19.3]},
    "conditionals-unavailable",
    "question-unavailable",
    columns=["log_prob"],
    headers=_X_WARNINGS,
    description="Log densities, as a column `log_prob`; in npy a 1-D float64 array. With"
    " `parts`, their parts as columns `discrete` and `continuous`; with `conditionals`,"
    " columns `conditional.NAME`, then `mean.NAME`, for each column of the model.",
)
SCORE_RESPONSES: Responses = _responses(
    Scores,
    {
        "log_prob": [-6.4, -19.3],
        "quantile": [0.37, 0.0012],
        "held_out": {"rows": 4900, "part": "test"},
    },
    "score-unavailable",
    "explanation-unavailable",
    columns=["log_prob", "quantile"],
    headers=_X_WARNINGS,
    description="Columns `log_prob` and `quantile`; in npy a 2-D float64 array. With `explain`,"
    " columns `explanation.NAME`, then `difference.NAME`, for each column of the model.",
)
EVIDENCE_RESPONSES: Responses = _responses(
    Evidence,
    {"seed": 0, "elbo": [-92.1, -88.4], "log_evidence": [-90.3, -87.0]},
    "evidence-unavailable",
    columns=["elbo", "log_evidence"],
    description="Columns `elbo` and `log_evidence`; in npy a 2-D float64 array.",
)
SAMPLE_RESPONSES: Responses = _responses(
    Samples,
    {"seed": 7, "columns": COLUMNS, "rows": ROWS},
    "limit-samples",
    "context-mismatch",
    "question-unavailable",
    columns=COLUMNS,
    headers=_X_SEED,
    description="Samples, streamed when there are many; in npy a 2-D float64 array.",
)


EXPECT_RESPONSES: Responses = _responses(
    Expectations,
    {
        "column": COLUMNS[-1],
        "given": COLUMNS[:-1],
        "mean": [0.4, 1.7],
        "effective_samples": [61.2, 44.0],
        "uncertain": [0, 0],
    },
    "question-unavailable",
    columns=["mean", "effective_samples", "uncertain"],
    headers=_X_WARNINGS,
    description="Columns `mean` and `quantiles.SHARE` of a column of numbers, `probabilities.LEVEL` of a column of"
    " levels, `probability` of the condition, `effective_samples` and `uncertain`.",
)
IMPUTE_RESPONSES: Responses = _responses(
    ImputedRows,
    {"seed": 0, "columns": COLUMNS, "uncertain_rows": 0, "rows": ROWS},
    "question-unavailable",
    columns=COLUMNS,
    headers=_X_SEED
    | {"X-Uncertain-Rows": _header("Number of rows whose filled cells are rough.", "integer")},
    description="The rows, whole; with `level`, columns `low.NAME` and `high.NAME` for each column, which"
    " are null but where a number was filled.",
)


def transform_responses(side: str) -> Responses:
    """Return the `responses=` of `inverse` and `forward`.

    Args:
        side: Description of the rows of the response.
    """
    return _responses(
        Transformed,
        {"rows": NOISE, "log_det": [-3.1, -2.8]},
        "model-without-noise",
        columns=[*COLUMNS, "log_det"],
        description=f"{side} Formats other than JSON have `log_det` as a column after those of the"
        " model; npy is a 2-D float64 array.",
    )
