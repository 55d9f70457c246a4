"""The jobs that can be started, a route for each kind."""

from typing import Annotated

from fastapi import APIRouter, Depends, status

from app.desk import Draft, Grounds, JobDesk, start_responses
from app.job_examples import TRAINING_EXAMPLES, VARIATIONAL_EXAMPLES
from app.job_schemas import JobView
from app.json_body import json_body, json_request
from models_store.acceptance import HeldOut, accept_training
from models_store.jobs import JobKind
from models_store.schemas import AcceptedTraining, TrainingRequest
from models_store.variational_acceptance import accept_variational, dataset_of
from models_store.variational_schemas import AcceptedVariational, VariationalRequest

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "/training",
    operation_id="start_training",
    summary="Train a flow on a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    openapi_extra=json_request(TrainingRequest, examples=TRAINING_EXAMPLES),
    responses=start_responses(
        "dataset-constant-column", "split-invalid", "split-too-small", "preprocessing-unsuitable"
    ),
)
def start_training(
    body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest))],
    desk: Annotated[JobDesk, Depends()],
    grounds: Annotated[Grounds, Depends()],
) -> JobView:
    """Accept a training.

    Only `model_name` and `dataset_id` are needed: whatever else is left out or null is chosen
    from the data, and `request` in the answer shows the choice. The job is stored durably before
    the answer is sent, and it runs even if the queue is down now.
    """
    validation_id, test_id = body.split.validation_dataset_id, body.split.test_dataset_id

    def accept() -> AcceptedTraining:
        dataset = grounds.dataset(body.dataset_id)
        held_out = HeldOut(grounds.optional(validation_id), grounds.optional(test_id))
        return accept_training(body, dataset, limits=grounds.limits, held_out=held_out)

    return desk.start(
        Draft(
            kind=JobKind.TRAINING,
            model_name=body.model_name,
            body=body,
            accept=accept,
            dataset_id=body.dataset_id,
            held_out_ids=tuple(filter(None, (validation_id, test_id))),
        )
    )


@router.post(
    "/variational",
    operation_id="start_variational",
    summary="Fit a flow to a density without data",
    status_code=status.HTTP_202_ACCEPTED,
    openapi_extra=json_request(VariationalRequest, examples=VARIATIONAL_EXAMPLES),
    responses=start_responses("formula", "flow-unsuitable", "response-not-binary"),
)
def start_variational(
    body: Annotated[VariationalRequest, Depends(json_body(VariationalRequest))],
    desk: Annotated[JobDesk, Depends()],
    grounds: Annotated[Grounds, Depends()],
) -> JobView:
    """Accept a variational inference: the flow draws rows, the target judges them.

    The target is known up to a constant: a named potential, a formula of the log density, or the
    posterior of a Bayesian regression on a dataset. Only `model_name` and `target` are needed. The
    registered model is asked like any other; its metrics hold the evidence and how far the flow
    can be trusted.
    """
    dataset_id = dataset_of(body.target)

    def accept() -> AcceptedVariational:
        return accept_variational(body, grounds.optional(dataset_id), limits=grounds.limits)

    return desk.start(
        Draft(
            kind=JobKind.VARIATIONAL,
            model_name=body.model_name,
            body=body,
            accept=accept,
            dataset_id=dataset_id,
        )
    )
