"""Route that trains a model anew on another dataset."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import ProjectDep, StateDep
from app.http.examples import DATASET_ID
from app.http.json_body import json_body, json_request
from app.jobs.starts import TRAINING_REFUSALS, start_sweep, start_training
from app.jobs.submission import SubmissionDep, start_responses
from app.jobs.views import JobView
from app.limits import FairRoute
from app.problems.problem import Problem
from app.scoring.routes import Ref
from models_store.requests.search import SweepRequest
from models_store.requests.training import ASKED, DatasetId, TrainingRequest

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)


class RetrainRequest(BaseModel):
    """Dataset to train a model anew on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: DatasetId = Field(description="Dataset to train on, such as a newer one.")


_EXAMPLES = {"newer": {"summary": "A newer dataset", "value": {"dataset_id": DATASET_ID}}}


@router.post(
    "/{ref}/retrain",
    operation_id="retrain_model",
    summary="Train a model anew on another dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    openapi_extra=json_request(RetrainRequest, examples=_EXAMPLES),
    responses=start_responses(*TRAINING_REFUSALS, "retrain-unavailable"),
)
def retrain_model(
    ref: Ref,
    body: Annotated[RetrainRequest, Depends(json_body(RetrainRequest))],
    submission: SubmissionDep,
    state: StateDep,
    project: ProjectDep,
) -> Response:
    """Start the training or sweep again that made a version, on another dataset.

    All options are those of the first request, and those that it left out are chosen for the new data. The
    result is the model's next version. No alias moves by itself: `compare` tells which version is better
    on the same rows.
    """
    version = submission.version(ref)
    job = None if version.job_id is None else state.jobs.get(project, version.job_id)
    if job is None or ASKED not in job.request:
        raise Problem("retrain-unavailable")
    asked = {**job.request[ASKED], "model_name": version.name, "dataset_id": body.dataset_id}
    if "ranges" in asked:
        return start_sweep(SweepRequest.model_validate(asked), submission)
    return start_training(TrainingRequest.model_validate(asked), submission)
