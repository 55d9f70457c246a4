"""Pictures of a version."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.dependencies import ModelsDep, ProjectDep, RegistryDep
from app.fairness.fair_routes import FairRoute
from app.fairness.turns import in_thread
from app.http.head import end_head
from app.models.routes import ModelName, VersionNumber
from app.plots.numbers import Source
from app.plots.plots import Numbers, PictureFormat, PlotKind, Plots
from app.problems.problem import problem_responses

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
_HEADERS = {"Cache-Control": "private, max-age=3600"}
_FILE = {"schema": {"type": "string", "format": "binary"}}


class Pictured:
    """Which version a picture is of, and where its numbers come from."""

    def __init__(
        self,
        request: Request,
        name: ModelName,
        version: VersionNumber,
        project: ProjectDep,
        registry: RegistryDep,
    ) -> None:
        self._state = request.app.state
        self._registry = registry
        self._wanted = project, name, version
        self.plots: Plots = self._state.plots

    async def source(self) -> Source:
        """Find the version.

        Raises:
            NotFoundError: there is none.
        """
        state = self._state
        found = await in_thread(self._registry.version, *self._wanted)
        return Source(found, self._registry, state.jobs, state.blobs, state.engine)


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
async def plot_version(
    request: Request,
    pictured: Annotated[Pictured, Depends()],
    models: ModelsDep,
    kind: Annotated[PlotKind, Path(description="What it shows.", examples=["marginals"])],
    format: Annotated[PictureFormat, Query(description="Of the file.")] = "png",  # noqa: A002 - the parameter's public name
) -> Response:
    """A picture: how training went, or what the model learnt, beside the data if they are there.

    `learning-curve`: likelihoods or ELBO by epoch. `marginals`: each column, data and samples.
    `pairs`: each pair of the first columns. `density`: of two columns. `noise`: quantiles of what
    data become against those of the normal distribution. `images`: samples of square images. What
    is not finite is left out, and the picture says so.
    """
    source, plots = await pictured.source(), pictured.plots
    version = source.version
    end_head(request, media_type=_MEDIA_TYPES[format], headers=_HEADERS)
    picture = plots.known(version.checkpoint_key, kind, format)
    if picture is None:

        async def numbers() -> Numbers:
            async with models.use(version) as flow:
                return await source.numbers(kind, flow)

        picture = await plots.draw(version.checkpoint_key, kind, format, numbers)
    return Response(picture, media_type=_MEDIA_TYPES[format], headers=_HEADERS)
