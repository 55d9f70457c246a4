"""Routes that score rows, map them between data and noise, and draw samples.

They read the body themselves; `app.scoring.views` describes the responses for OpenAPI.
"""

import math
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from app.engine.held_out_rows import HeldOutRows
from app.http.examples import MODEL, NOISE, ROWS
from app.http.exchange import exchange_of
from app.http.json_body import json_request
from app.problems.problem import FieldError, Problem
from app.scoring.functions import (
    Space,
    check_evidence,
    check_explanation,
    conditional_order_of,
    data_of,
    evidence_of,
    log_prob_alone,
    log_prob_conditionals,
    log_prob_parts,
    noise_of,
    score_alone,
    score_explained,
)
from app.scoring.questions import about_columns, expected, log_prob_of, respond_imputed
from app.scoring.request import Extra, ScoreRequest
from app.scoring.samples import SampleRequest, respond_samples
from app.scoring.views import (
    EVIDENCE_RESPONSES,
    EXPECT_RESPONSES,
    IMPUTE_RESPONSES,
    LOG_PROB_RESPONSES,
    SAMPLE_RESPONSES,
    SCORE_RESPONSES,
    TIMEOUT_PARAMETER,
    rows_body,
    transform_responses,
)
from flows.compiled.conditions import Fill, Within
from models_store.requests.bulk import FILL_DESCRIPTION

Ref = Annotated[
    str,
    Path(
        max_length=140,
        description="Reference to a version: `name` for its alias `production` or else its newest"
        " version, `name@alias` or `name:version`.",
        examples=[MODEL],
    ),
]
SpaceQuery = Annotated[
    Space,
    Query(
        description="Space of the rows: `data` for the data's own units, `model` for the flow's, after"
        " preprocessing."
    ),
]
ExtraQuery = Annotated[
    Extra | None,
    Query(
        description="Treatment of named columns that the model does not have: `ignore` leaves them out,"
        " `error` refuses the rows. The default is `error` for models of plain numbers whose dataset"
        " has no other columns, and `ignore` for all others."
    ),
]
PartsQuery = Annotated[
    bool,
    Query(
        description="True to add the two parts of each log density: `discrete` of the categories, missing values and"
        " spikes of the row, `continuous` of its other values given those. The density of a model of plain"
        " numbers is continuous."
    ),
]
ConditionalsQuery = Annotated[
    bool,
    Query(
        description="True to add, for each column, `conditional`, the log density of its value given the"
        " columns before it in `order`, and `mean`, the value to expect there. They are those of"
        " models of one autoregressive layer. Without `parts`."
    ),
]
ExplainQuery = Annotated[
    bool,
    Query(
        description="True to add `explanation`: for each column the log density of its value given the"
        " other values of the row, where the model knows it, and `difference`, that minus the"
        " `usual` one of the column. The columns that differ most below 0 make the row unlikely."
        " `explained` says which are `exact`, which `learnt`, by training with `missing` as `any`, and"
        " which `unavailable`."
    ),
]
SamplesQuery = Annotated[
    int,
    Query(
        ge=1,
        le=1000,
        description="Number of samples of the posterior of each row: more make the bound tighter.",
    ),
]
SeedQuery = Annotated[
    int,
    Query(
        ge=0,
        le=2**63 - 1,
        description="Seed of the samples; the same seed gives the same numbers.",
    ),
]
AskedQuery = Annotated[
    Sequence[str],
    Query(
        max_length=1000,
        description="Columns whose density is asked for, one parameter each; the default is all that are not"
        " in `given`.",
    ),
]
GivenQuery = Annotated[
    Sequence[str],
    Query(max_length=10_000, description="Columns that are known, one parameter each."),
]
FillQuery = Annotated[
    Fill,
    Query(description=FILL_DESCRIPTION),
]
LevelQuery = Annotated[
    float | None,
    Query(
        gt=0,
        lt=1,
        description="Probability of the intervals beside the rows; left out: none.",
        examples=[0.9],
    ),
]
ColumnQuery = Annotated[str, Query(description="Column that is asked for.", examples=["x2"])]
QuantilesQuery = Annotated[
    Sequence[Annotated[float, Field(gt=0, lt=1)]],
    Query(max_length=100, description="Shares of the quantiles, one parameter each."),
]
BoundQuery = Annotated[
    float | None,
    Query(ge=-1e308, le=1e308, description="Bound of the column, which belongs to the interval."),
]
_SAMPLE_EXAMPLES = {
    "reproducible": {"summary": "Samples with a fixed seed", "value": {"n": 5, "seed": 7}}
}


router = APIRouter(prefix="/v1/models", tags=["scores"])


@router.post(
    "/{ref}/log_prob",
    operation_id="log_prob",
    summary="Compute log densities",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=LOG_PROB_RESPONSES,
)
async def log_prob(  # noqa: PLR0913  a query has so many
    request: Request,
    ref: Ref,
    space: SpaceQuery = "data",
    extra: ExtraQuery = None,
    *,
    parts: PartsQuery = False,
    conditionals: ConditionalsQuery = False,
    columns: AskedQuery = (),
    given: GivenQuery = (),
) -> Response:
    """Return the log density of each row, in nats.

    A row whose density is not finite has null and an entry in `row_errors`, or -inf or NaN in npy;
    the other rows are not affected.

    With `columns` or `given` it is that of some columns given others, whatever the rest may be; rows
    need no other columns. It is exact where a sum or a closed form gives it; elsewhere it is an average of
    weighted draws, with its standard error.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, space, extra=extra)
    if columns or given:
        if parts or conditionals:
            error = FieldError("Leave it out beside `columns` and `given`.", parameter="parts")
            raise Problem("validation", errors=[error])
        asked = columns or [name for name in score.version.columns if name not in given]
        some = about_columns(score, [*asked, *given])
        return await some.respond(log_prob_of(score.version, asked, given))
    if not conditionals:
        return await score.respond(log_prob_parts(space) if parts else log_prob_alone(space))
    if parts:
        error = FieldError("Leave out `parts` or `conditionals`.", parameter="conditionals")
        raise Problem("validation", errors=[error])
    async with score.flow() as flow:
        order = conditional_order_of(flow)
    return await score.respond(log_prob_conditionals(space, score.version.columns, order))


@router.post(
    "/{ref}/score",
    operation_id="score",
    summary="Compute calibrated scores",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=SCORE_RESPONSES,
)
async def score(
    request: Request, ref: Ref, extra: ExtraQuery = None, *, explain: ExplainQuery = False
) -> Response:
    """Return the log density of each row, and its quantile among the model's held-out rows.

    The quantile is (k + 1) / (n + 1), where k of n held-out rows are at most as likely; so of rows like
    these at most one in a hundred is at 0.01 or below, however few they are. `held_out` says how many they
    are, and of which part: validation rows chose the epoch, so that ranks among them may be a little low.
    Quantiles can be compared between models, which log densities cannot.
    """
    wanted = await ScoreRequest.of(exchange_of(request), ref, "data", extra=extra)
    version, held_out = wanted.version, HeldOutRows.of(wanted.version)
    if not explain:
        return await wanted.respond(score_alone(held_out))
    async with wanted.flow() as flow:
        check_explanation(flow)
        usual = await wanted.state.usual_terms.of(version)
        explained = score_explained(held_out, version.columns, flow, usual)
    return await wanted.respond(explained)


@router.post(
    "/{ref}/sample",
    operation_id="sample",
    summary="Draw samples",
    response_class=Response,
    openapi_extra=json_request(SampleRequest, examples=_SAMPLE_EXAMPLES) | TIMEOUT_PARAMETER,
    responses=SAMPLE_RESPONSES,
)
async def sample(request: Request, ref: Ref, space: SpaceQuery = "data") -> Response:
    """Draw rows from the model. The same seed gives the same rows from the same version."""
    return await respond_samples(await ScoreRequest.of(exchange_of(request), ref, space))


@router.post(
    "/{ref}/impute",
    operation_id="impute",
    summary="Fill the gaps of rows",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=IMPUTE_RESPONSES,
)
async def impute(
    request: Request,
    ref: Ref,
    given: GivenQuery = (),
    fill: FillQuery = "mean",
    level: LevelQuery = None,
    seed: SeedQuery = 0,
) -> Response:
    """Return rows whose gaps are filled, each given all other cells of its row.

    A column that no row has is left out of `given`. The rows come in the format that `Accept` asks for,
    with cells as in the table.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, "data")
    given = given or score.version.columns
    return await respond_imputed(score, given, fill=fill, level=level, seed=seed)


@router.post(
    "/{ref}/expect",
    operation_id="expect",
    summary="Predict a column from the others",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=EXPECT_RESPONSES,
)
async def expect(  # noqa: PLR0913  a query has so many
    request: Request,
    ref: Ref,
    column: ColumnQuery,
    given: GivenQuery = (),
    quantiles: QuantilesQuery = (),
    low: BoundQuery = None,
    high: BoundQuery = None,
) -> Response:
    """Return the distribution of one column given the others of each row: mean and quantiles, or probabilities.

    Rows need the columns of `given` alone, by default all others; null stands for a cell that is not
    known. `low` and `high` ask for the probability that the column lies between them.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, "data")
    given = given or [name for name in score.version.columns if name != column]
    within = None
    if low is not None or high is not None:
        within = Within(
            low=-math.inf if low is None else low, high=math.inf if high is None else high
        )
    asked = expected(score.version, column, given, quantiles=quantiles, within=within)
    return await about_columns(score, given).respond(asked)


@router.post(
    "/{ref}/evidence",
    operation_id="evidence",
    summary="Compute the evidence of rows under a model with latent variables",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=EVIDENCE_RESPONSES,
)
async def evidence(
    request: Request,
    ref: Ref,
    extra: ExtraQuery = None,
    samples: SamplesQuery = 100,
    seed: SeedQuery = 0,
) -> Response:
    """Return two lower bounds of the log evidence log p(x) of each row, in nats.

    The rows have the model's `context_columns`, the data that its latent variables explain. `elbo` is
    the mean of log p(x, z) - log q(z | x) over samples z of the posterior, and `log_evidence` the log of
    the mean of p(x, z) / q(z | x), which is at least as tight. All rows share the noise of the seed, so
    that the numbers of a row do not depend on the rows beside it.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, "data", extra=extra, given=True)
    async with score.flow() as flow:
        check_evidence(flow, samples)
    return await score.respond(evidence_of(samples, seed))


@router.post(
    "/{ref}/inverse",
    operation_id="inverse",
    summary="Map data to noise",
    response_class=Response,
    openapi_extra=rows_body(ROWS),
    responses=transform_responses("Noise that the flow maps to the rows."),
)
async def inverse(
    request: Request, ref: Ref, space: SpaceQuery = "data", extra: ExtraQuery = None
) -> Response:
    """Map each row to noise of the flow's base distribution.

    Each row comes with the log absolute determinant of the map's Jacobian matrix.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, space, extra=extra)
    return await score.respond(noise_of(score.version.columns, space))


@router.post(
    "/{ref}/forward",
    operation_id="forward",
    summary="Map noise to data",
    response_class=Response,
    openapi_extra=rows_body(NOISE),
    responses=transform_responses("Data that the flow maps the noise to."),
)
async def forward(request: Request, ref: Ref, space: SpaceQuery = "data") -> Response:
    """Map each row of noise to data.

    Each row comes with the log absolute determinant of the map's Jacobian matrix.
    """
    score = await ScoreRequest.of(exchange_of(request), ref, space, noise=True)
    return await score.respond(data_of(score.version.columns, space))
