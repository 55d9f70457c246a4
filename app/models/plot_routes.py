"""Pictures of a version."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.dependencies import ProjectDep, StateDep
from app.fairness.fair_routes import FairRoute
from app.fairness.turns import in_thread
from app.http.head import end_head
from app.models.routes import ModelName, VersionNumber
from app.plots.numbers import Source
from app.plots.plots import Numbers, PlotFormat, PlotKind
from app.problems.problem import problem_responses

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
_HEADERS = {"Cache-Control": "private, max-age=3600"}
_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{name}/versions/{version}/plots/{kind}",
    operation_id="plot_version",
    summary="A picture of a version",
    response_class=Response,
    responses={
        200: {
            "description": "The picture.",
            "content": dict.fromkeys(_MEDIA_TYPES.values(), _FILE),
        },
        **problem_responses(
            "not-found",
            "plot-unavailable",
            "overloaded",
            "limit-memory",
            "limit-parameters",
            "artifact-missing",
            "artifact-corrupt",
        ),
    },
)
async def plot_version(  # noqa: PLR0913 - FastAPI gives each
    request: Request,
    name: ModelName,
    version: VersionNumber,
    project: ProjectDep,
    state: StateDep,
    kind: Annotated[PlotKind, Path(description="What it shows.", examples=["marginals"])],
    format: Annotated[PlotFormat, Query(description="Of the file.")] = "png",  # noqa: A002 - the parameter's public name
) -> Response:
    """A picture: how training went, or what the model learnt, beside the data if they are there.

    `learning-curve`: likelihoods or ELBO by epoch. `marginals`: each column, data and samples.
    `pairs`: each pair of the first columns. `density`: of two columns. `noise`: quantiles of what
    data become against those of the normal distribution. `images`: samples of square images. What
    is not finite is left out, and the picture says so.
    """
    found = await in_thread(state.registry.version, project, name, version)
    end_head(request, media_type=_MEDIA_TYPES[format], headers=_HEADERS)
    picture = state.plots.known(found.checkpoint_key, kind, format)
    if picture is None:

        async def numbers() -> Numbers:
            source = Source(found, state.registry, state.jobs, state.blobs, state.engine)
            async with state.models.use(found) as flow:
                return await source.numbers(kind, flow)

        picture = await state.plots.draw(found.checkpoint_key, kind, format, numbers)
    return Response(picture, media_type=_MEDIA_TYPES[format], headers=_HEADERS)
