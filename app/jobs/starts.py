"""Routes that start jobs, one for each kind."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response, status
from pydantic import BaseModel, Field

from app.http.json_body import json_body, json_request
from app.jobs.examples import (
    IMPUTATION_EXAMPLES,
    SAMPLING_EXAMPLES,
    SCORING_EXAMPLES,
    SWEEP_EXAMPLES,
    TRAINING_EXAMPLES,
    VARIATIONAL_EXAMPLES,
)
from app.jobs.submission import (
    FIT_REFUSALS,
    Accepted,
    JobSubmission,
    SubmissionDep,
    start_responses,
)
from app.jobs.views import JobView
from app.limits import FairRoute
from app.problems.problem import problem_responses
from app.rows.context import context_cells, context_rows
from models_store.job_states import JobKind, JobRole
from models_store.jobs.memory import (
    bulk_memory,
    search_memory,
    training_memory,
    variational_memory,
)
from models_store.jobs.times import search_s, training_s
from models_store.records import Dataset, Version
from models_store.requests.accept_bulk import (
    accept_imputation,
    accept_sampling,
    accept_scoring,
    estimate_s,
    in_parts,
)
from models_store.requests.accept_search import accept_auto, accept_sweep
from models_store.requests.accept_training import HeldOut, accept_training
from models_store.requests.accept_variational import accept_variational, dataset_of
from models_store.requests.bulk import (
    AcceptedBulk,
    ImputationRequest,
    SamplingRequest,
    ScoringRequest,
)
from models_store.requests.search import AcceptedSearch, SweepRequest
from models_store.requests.training import AutoFlow, TrainingRequest
from models_store.requests.variational import VariationalRequest
from tabular.slugs import Slug

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=FairRoute)

TRAINING_REFUSALS: tuple[Slug, ...] = (
    *FIT_REFUSALS,
    "dataset-constant-column",
    "split-invalid",
    "split-too-small",
    "preprocessing-unsuitable",
)
"""Problems of trainings."""

_TRAINING_RESPONSES = start_responses(*TRAINING_REFUSALS)


class TrainingEstimate(BaseModel):
    """What a training would take."""

    seconds: float = Field(
        description="About how long it takes here, without the time in the queue; half or twice as long on some"
        " tables."
    )
    trainings: int = Field(
        description="Number of earlier trainings that tell the pace of this service; with 0 it is that of a usual core."
    )
    queued: int = Field(description="Number of jobs that wait for a worker now.")
    memory_bytes: int = Field(description="Memory that a worker needs for it.")


@router.post(
    "/training",
    operation_id="start_training",
    summary="Train a flow on a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(TrainingRequest, examples=TRAINING_EXAMPLES),
    responses=_TRAINING_RESPONSES,
)
def start_training(
    body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest))], submission: SubmissionDep
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
    return submission.start(JobKind.TRAINING, body, lambda: _accepted(body, submission))


@router.post(
    "/training/estimate",
    operation_id="estimate_training",
    summary="Estimate the time of a training",
    response_description="What the training would take.",
    openapi_extra=json_request(TrainingRequest, examples=TRAINING_EXAMPLES),
    responses=problem_responses("not-found", *TRAINING_REFUSALS),
)
def estimate_training(
    body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest))], submission: SubmissionDep
) -> TrainingEstimate:
    """Return how long the training of the same body would take, and start nothing.

    The time follows from the rows, the flow and its epochs, early stopping included, and from how long the
    latest trainings of this service took.
    """
    accepted, outlook = _accepted(body, submission), submission.outlook()
    return TrainingEstimate(
        seconds=(accepted.estimate_s or 0.0) * outlook.pace,
        trainings=outlook.trainings,
        queued=outlook.queued,
        memory_bytes=accepted.memory_bytes,
    )


def _accepted(body: TrainingRequest, submission: JobSubmission) -> Accepted:
    """Return a training, or a search over several, as it is accepted."""
    dataset, held_out, tables = _read(body, submission)
    if isinstance(body.flow, AutoFlow):
        search = accept_auto(body, dataset, limits=submission.limits, held_out=held_out)
        return _searching(search, tables)
    accepted = accept_training(body, dataset, limits=submission.limits, held_out=held_out)
    return Accepted(
        request=accepted,
        model_name=body.model_name,
        datasets=tables,
        memory_bytes=training_memory(accepted, tables),
        estimate_s=training_s(accepted, tables),
    )


@router.post(
    "/sweep",
    operation_id="start_sweep",
    summary="Search over values of training options",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(SweepRequest, examples=SWEEP_EXAMPLES),
    responses=_TRAINING_RESPONSES,
)
def start_sweep(
    body: Annotated[SweepRequest, Depends(json_body(SweepRequest))], submission: SubmissionDep
) -> Response:
    """Start a sweep: train models at points of some ranges; the best becomes the new version.

    Only `model_name`, `dataset_id` and `ranges` are required; all other fields of a training apply to
    every point. The trainings are children of the job, which any workers run. Successive halving
    trains all points for a part of their epochs and the best again for longer; the robust
    validation likelihood decides. `optimisation.max_seconds` bounds the training time over all
    children. The metrics of the job list what was tried, and with which values.
    """

    def accept() -> Accepted:
        dataset, held_out, tables = _read(body, submission)
        search = accept_sweep(body, dataset, limits=submission.limits, held_out=held_out)
        return _searching(search, tables)

    return submission.start(JobKind.TRAINING, body, accept)


def _read(
    body: TrainingRequest, submission: JobSubmission
) -> tuple[Dataset, HeldOut, list[Dataset]]:
    """Return the dataset of a training, those that are held out, and all of them."""
    ids = body.split.validation_dataset_id, body.split.test_dataset_id
    dataset = submission.dataset(body.dataset_id)
    held_out = HeldOut(*(None if one is None else submission.dataset(one) for one in ids))
    others = (held_out.validation, held_out.test)
    return dataset, held_out, [dataset, *(one for one in others if one is not None)]


def _searching(search: AcceptedSearch, tables: list[Dataset]) -> Accepted:
    """Return a search as a parent, whose children train its trials."""
    return Accepted(
        request=search,
        model_name=search.model_name,
        datasets=tables,
        memory_bytes=search_memory(search, tables),
        estimate_s=search_s(search, tables),
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
def start_variational(
    body: Annotated[VariationalRequest, Depends(json_body(VariationalRequest))],
    submission: SubmissionDep,
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

    def accept() -> Accepted:
        dataset_id = dataset_of(body.target)
        dataset = None if dataset_id is None else submission.dataset(dataset_id)
        accepted = accept_variational(body, dataset, limits=submission.limits)
        return Accepted(
            request=accepted,
            model_name=body.model_name,
            datasets=[] if dataset is None else [dataset],
            memory_bytes=variational_memory(accepted, dataset),
        )

    return submission.start(JobKind.VARIATIONAL, body, accept)


@router.post(
    "/scoring",
    operation_id="start_scoring",
    summary="Score a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(ScoringRequest, examples=SCORING_EXAMPLES),
    responses=start_responses("unknown-column", "limit-result"),
)
def start_scoring(
    body: Annotated[ScoringRequest, Depends(json_body(ScoringRequest))], submission: SubmissionDep
) -> Response:
    """Start a job that scores a whole dataset and writes a file.

    The file has a row for each row of the dataset, in the same order: `log_prob`, and `quantile`
    if the version has calibrated scores. `request.model` in the response names the version, which
    does not change when an alias moves later. The rows of a large dataset are computed in parts by
    children of the job, which any workers take; one of them writes the file from all parts.
    """

    def accept() -> Accepted:
        version, dataset = submission.version(body.model), submission.dataset(body.dataset_id)
        most = submission.settings.max_result_bytes
        accepted = accept_scoring(body, version, dataset, max_bytes=most)
        return _bulk(accepted, version, submission, rows=dataset.rows, datasets=[dataset])

    return submission.start(JobKind.SCORING, body, accept)


@router.post(
    "/imputation",
    operation_id="start_imputation",
    summary="Fill the gaps of a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(ImputationRequest, examples=IMPUTATION_EXAMPLES),
    responses=start_responses("unknown-column", "limit-result", "question-unavailable"),
)
def start_imputation(
    body: Annotated[ImputationRequest, Depends(json_body(ImputationRequest))],
    submission: SubmissionDep,
) -> Response:
    """Start a job that fills the gaps of a whole dataset and writes a file.

    The file has all columns of the dataset, those that are not modelled as they are. Gaps get what `impute`
    gives the same rows with the same seed. The rows of a large dataset are computed in parts by children of
    the job, which any workers take; one of them writes the file from all parts.
    """

    def accept() -> Accepted:
        version, dataset = submission.version(body.model), submission.dataset(body.dataset_id)
        most = submission.settings.max_result_bytes
        accepted = accept_imputation(body, version, dataset, max_bytes=most)
        return _bulk(accepted, version, submission, rows=dataset.rows, datasets=[dataset])

    return submission.start(JobKind.IMPUTATION, body, accept)


@router.post(
    "/sampling",
    operation_id="start_sampling",
    summary="Draw many samples",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(SamplingRequest, examples=SAMPLING_EXAMPLES),
    responses=start_responses("context-mismatch", "limit-result"),
)
def start_sampling(
    body: Annotated[SamplingRequest, Depends(json_body(SamplingRequest))], submission: SubmissionDep
) -> Response:
    """Start a job that draws any number of samples and writes a file.

    The rows equal those of `sample` for the same version, `n` and seed. Many rows are drawn in parts
    by children of the job, which any workers take; one of them writes the file from all parts.
    """

    def accept() -> Accepted:
        version = submission.version(body.model)
        context = context_cells(body.context, version.context_columns, n=body.n)
        context_rows(context, version)
        most = submission.settings.max_result_bytes
        accepted = accept_sampling(body, version, context, max_bytes=most)
        return _bulk(accepted, version, submission, rows=body.n)

    return submission.start(JobKind.SAMPLING, body, accept)


def _bulk(
    accepted: AcceptedBulk,
    version: Version,
    submission: JobSubmission,
    *,
    rows: int,
    datasets: list[Dataset] | None = None,
) -> Accepted:
    """Return a job about many rows, as a parent whose children compute parts if there are enough."""
    part_rows = submission.settings.bulk_part_rows
    split = in_parts(accepted, version, rows=rows, part_rows=part_rows)
    return Accepted(
        request=split or accepted,
        model_name=version.name,
        model_version=version.version,
        datasets=datasets or [],
        memory_bytes=bulk_memory(version),
        estimate_s=estimate_s(accepted, version, rows=rows),
        role=None if split is None else JobRole.PARENT,
    )
