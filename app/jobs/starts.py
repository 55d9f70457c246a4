"""Routes that start jobs, one for each kind."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response, status

from app.dependencies import built
from app.http.json_body import json_body, json_request
from app.jobs.examples import (
    SAMPLING_EXAMPLES,
    SCORING_EXAMPLES,
    SWEEP_EXAMPLES,
    TRAINING_EXAMPLES,
    VARIATIONAL_EXAMPLES,
)
from app.jobs.submission import (
    FIT_REFUSALS,
    Accepted,
    JobInputs,
    JobRequest,
    JobSubmission,
    start_responses,
)
from app.jobs.views import JobView
from app.limits import FairRoute
from app.rows.context import context_cells, context_rows
from models_store.job_states import JobKind, JobRole
from models_store.jobs.memory import (
    bulk_memory,
    search_memory,
    training_memory,
    variational_memory,
)
from models_store.records import Dataset
from models_store.requests.accept_bulk import (
    accept_sampling,
    accept_scoring,
    estimate_s,
    in_parts,
)
from models_store.requests.accept_search import accept_auto, accept_sweep
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.accept_variational import accept_variational, dataset_of
from models_store.requests.bulk import SamplingRequest, ScoringRequest
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import AutoFlow, TrainingRequest
from models_store.requests.variational import VariationalRequest

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=FairRoute)

_TRAINING_RESPONSES = start_responses(
    *FIT_REFUSALS,
    "dataset-constant-column",
    "split-invalid",
    "split-too-small",
    "preprocessing-unsuitable",
)

_SAMPLING_BODY = json_body(SamplingRequest)


@router.post(
    "/training",
    operation_id="start_training",
    summary="Train a flow on a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(TrainingRequest, examples=TRAINING_EXAMPLES),
    responses=_TRAINING_RESPONSES,
)
async def start_training(
    body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest))],
    submission: Annotated[JobSubmission, Depends(built(JobSubmission))],
    inputs: Annotated[JobInputs, Depends(built(JobInputs))],
) -> Response:
    """Start a training job.

    Only `model_name` and `dataset_id` are required. Options that are absent or null get values that
    suit the data, and `request` in the response shows them. The job is stored durably before the
    response is sent, and it runs even if the queue is not available now.

    With `flow` set to `auto` the job is a search: its children, jobs that any workers run, train several
    families and sizes for a fraction of the epochs, the best of them again for longer, and the best few
    for all epochs. Their probabilities are averaged if that is better than the best one alone. The
    metrics of the job list what was tried.
    """

    def accept(dataset: Dataset, held_out: HeldOut) -> Accepted:
        if isinstance(body.flow, AutoFlow):
            search = accept_auto(body, dataset, limits=inputs.limits, held_out=held_out)
            return _searching(search, dataset, held_out)
        accepted = accept_training(body, dataset, limits=inputs.limits, held_out=held_out)
        return Accepted(
            request=accepted,
            model_name=body.model_name,
            memory_bytes=training_memory(accepted, _tables(dataset, held_out)),
        )

    return await _start_on_table(body, submission, inputs, accept)


@router.post(
    "/sweep",
    operation_id="start_sweep",
    summary="Search over values of training options",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(SweepRequest, examples=SWEEP_EXAMPLES),
    responses=_TRAINING_RESPONSES,
)
async def start_sweep(
    body: Annotated[SweepRequest, Depends(json_body(SweepRequest))],
    submission: Annotated[JobSubmission, Depends(built(JobSubmission))],
    inputs: Annotated[JobInputs, Depends(built(JobInputs))],
) -> Response:
    """Start a sweep: train models at points of some ranges; the best becomes the new version.

    Only `model_name`, `dataset_id` and `ranges` are required; all other fields of a training apply to
    every point. The trainings are children of the job, which any workers run. Successive halving
    trains all points for a part of their epochs and the best again for longer; the robust
    validation likelihood decides. `optimisation.max_seconds` bounds the training time over all
    children. The metrics of the job list what was tried, and with which values.
    """

    def accept(dataset: Dataset, held_out: HeldOut) -> Accepted:
        search = accept_sweep(body, dataset, limits=inputs.limits, held_out=held_out)
        return _searching(search, dataset, held_out)

    return await _start_on_table(body, submission, inputs, accept)


async def _start_on_table(
    body: TrainingRequest | SweepRequest,
    submission: JobSubmission,
    inputs: JobInputs,
    accept: Callable[[Dataset, HeldOut], Accepted],
) -> Response:
    """Start a job that trains on a dataset.

    Args:
        body: Body of the request.
        submission: Submission of the job.
        inputs: Datasets and versions that the job may read.
        accept: Function that accepts the body for a dataset and those that are held out.
    """
    held_out_ids = body.split.validation_dataset_id, body.split.test_dataset_id

    def accept_body() -> Accepted:
        dataset = inputs.dataset(body.dataset_id)
        return accept(dataset, HeldOut(*map(inputs.optional, held_out_ids)))

    return await submission.start(
        JobRequest(
            kind=JobKind.TRAINING,
            body=body,
            accept=accept_body,
            inputs=inputs,
            dataset_id=body.dataset_id,
            held_out_ids=tuple(filter(None, held_out_ids)),
        )
    )


def _tables(dataset: Dataset, held_out: HeldOut) -> list[Dataset]:
    """Return all datasets that a training reads."""
    return [one for one in (dataset, held_out.validation, held_out.test) if one is not None]


def _rows(dataset: Dataset, held_out: HeldOut) -> int:
    return sum(one.rows for one in _tables(dataset, held_out))


def _searching(search: AcceptedSearch, dataset: Dataset, held_out: HeldOut) -> Accepted:
    """Return a search as a parent, whose children train its trials."""
    return Accepted(
        request=search,
        model_name=search.model_name,
        memory_bytes=search_memory(search, _tables(dataset, held_out)),
        role=JobRole.PARENT,
    )


@router.post(
    "/variational",
    operation_id="start_variational",
    summary="Fit a flow to a target density",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(VariationalRequest, examples=VARIATIONAL_EXAMPLES),
    responses=start_responses(
        *FIT_REFUSALS,
        "formula",
        "flow-unsuitable",
        "response-not-binary",
        "dataset-constant-column",
        "dimension-mismatch",
        "split-too-small",
        "preprocessing-unsuitable",
    ),
)
async def start_variational(
    body: Annotated[VariationalRequest, Depends(json_body(VariationalRequest))],
    submission: Annotated[JobSubmission, Depends(built(JobSubmission))],
    inputs: Annotated[JobInputs, Depends(built(JobInputs))],
) -> Response:
    """Start a job of variational inference, which fits a flow to a density without samples of it.

    The target is a density that is known up to a constant: a named potential, a formula of the log
    density, or the posterior of a Bayesian regression on a dataset. Only `model_name` and `target`
    are required. The model is scored and sampled like any other; its metrics hold the evidence and
    the quality of the approximation.

    With `target.latent` inference is amortised: each row of a dataset has latent variables of its own,
    and the model is their posterior given any row, its context. `POST /v1/models/{ref}/evidence` gives
    the evidence of rows under the generative model.
    """
    dataset_id = dataset_of(body.target)

    def accept() -> Accepted:
        dataset = inputs.optional(dataset_id)
        accepted = accept_variational(body, dataset, limits=inputs.limits)
        return Accepted(
            request=accepted,
            model_name=body.model_name,
            memory_bytes=variational_memory(accepted, dataset),
        )

    return await submission.start(
        JobRequest(
            kind=JobKind.VARIATIONAL,
            body=body,
            accept=accept,
            inputs=inputs,
            dataset_id=dataset_id,
        )
    )


@router.post(
    "/scoring",
    operation_id="start_scoring",
    summary="Score a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(ScoringRequest, examples=SCORING_EXAMPLES),
    responses=start_responses("unknown-column", "limit-result"),
)
async def start_scoring(
    body: Annotated[ScoringRequest, Depends(json_body(ScoringRequest))],
    submission: Annotated[JobSubmission, Depends(built(JobSubmission))],
    inputs: Annotated[JobInputs, Depends(built(JobInputs))],
) -> Response:
    """Start a job that scores a whole dataset and writes a file.

    The file has a row for each row of the dataset, in the same order: `log_prob`, and `quantile`
    if the version has calibrated scores. `request.model` in the response names the version, which
    does not change when an alias moves later. The rows of a large dataset are computed in parts by
    children of the job, which any workers take; one of them writes the file from all parts.
    """

    def accept() -> Accepted:
        version, dataset = inputs.version(body.model), inputs.dataset(body.dataset_id)
        accepted = accept_scoring(body, version, dataset, max_bytes=inputs.max_result_bytes)
        split = in_parts(accepted, version, rows=dataset.rows, part_rows=inputs.part_rows)
        return Accepted(
            request=split or accepted,
            model_name=version.name,
            model_version=version.version,
            estimate_s=estimate_s(accepted, version, rows=dataset.rows),
            memory_bytes=bulk_memory(version),
            role=None if split is None else JobRole.PARENT,
        )

    return await submission.start(
        JobRequest(
            kind=JobKind.SCORING,
            body=body,
            accept=accept,
            inputs=inputs,
            dataset_id=body.dataset_id,
            model=body.model,
        )
    )


@router.post(
    "/sampling",
    operation_id="start_sampling",
    summary="Draw many samples",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(SamplingRequest, examples=SAMPLING_EXAMPLES),
    responses=start_responses("context-mismatch", "limit-result"),
)
async def start_sampling(
    body: Annotated[SamplingRequest, Depends(_SAMPLING_BODY)],
    submission: Annotated[JobSubmission, Depends(built(JobSubmission))],
    inputs: Annotated[JobInputs, Depends(built(JobInputs))],
) -> Response:
    """Start a job that draws any number of samples and writes a file.

    The rows equal those of `sample` for the same version, `n` and seed. Many rows are drawn in parts
    by children of the job, which any workers take; one of them writes the file from all parts.
    """

    def accept() -> Accepted:
        version = inputs.version(body.model)
        context = context_cells(body.context, version.context_columns, n=body.n)
        context_rows(context, version)
        accepted = accept_sampling(body, version, context, max_bytes=inputs.max_result_bytes)
        split = in_parts(accepted, version, rows=body.n, part_rows=inputs.part_rows)
        return Accepted(
            request=split or accepted,
            model_name=version.name,
            model_version=version.version,
            estimate_s=estimate_s(accepted, version, rows=body.n),
            memory_bytes=bulk_memory(version),
            role=None if split is None else JobRole.PARENT,
        )

    return await submission.start(
        JobRequest(
            kind=JobKind.SAMPLING,
            body=body,
            accept=accept,
            inputs=inputs,
            dataset_id=None,
            model=body.model,
        )
    )
