"""Route that shows the density of a target in the plane, before a flow is fitted to it."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.http.json_body import json_body, json_request
from app.jobs.examples import PREVIEW_EXAMPLES
from app.limits import FairRoute
from app.problems.problem import Problem, problem_responses
from app.problems.wording import told
from flows import FitError
from models_store.requests.accept_variational import check_formula
from models_store.requests.training import Strict
from models_store.requests.variational import DensityTarget, Target, Window, closed_form

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=FairRoute)

_SIZE = 64


class TargetPreviewRequest(Strict):
    """Body of ``POST /v1/jobs/variational/preview``."""

    target: Target = Field(
        description="Density of two coordinates: a named potential or a formula, no posterior."
    )


class TargetPreview(BaseModel):
    """Log density of a target on a square grid."""

    window: Window = Field(
        description="Box that the grid fills: that of the target, or one that was chosen."
    )
    log_density: list[list[float | None]] = Field(
        description="Log density in nats below its largest value: a list for each value of the second"
        " coordinate, from the lower edge up, of a number for each value of the first; null if the"
        " density is 0 or not finite."
    )


@router.post(
    "/variational/preview",
    operation_id="preview_target",
    summary="Preview a target density",
    openapi_extra=json_request(TargetPreviewRequest, examples=PREVIEW_EXAMPLES),
    responses=problem_responses("formula", "plot-unavailable"),
)
def preview_target(
    body: Annotated[TargetPreviewRequest, Depends(json_body(TargetPreviewRequest))],
) -> TargetPreview:
    """Return the log density of a target of two coordinates on a grid of 64 by 64 values.

    No job is started, and nothing is stored. Without `target.window`, the window is widened or
    narrowed from [-4, 4] until it holds what is within 8 nats of the largest value.
    """
    from flows import density_in_plane  # noqa: PLC0415  it loads PyTorch

    if isinstance(body.target, DensityTarget):
        check_formula(body.target)
    target = closed_form(body.target)
    if target is None:
        raise Problem("plot-unavailable", "A posterior is drawn once a flow is fitted to it.")
    try:
        plane = density_in_plane(target, size=_SIZE)
    except FitError as error:
        raise Problem("plot-unavailable", told(str(error))) from error
    return TargetPreview(
        window=Window(lower=list(plane.window.lower), upper=list(plane.window.upper)),
        log_density=[
            [round(value, 3) if value > -float("inf") else None for value in row]
            for row in plane.log_density.tolist()
        ],
    )
