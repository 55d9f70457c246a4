"""Route of the plots of a version."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.dependencies import ProjectDep, StateDep
from app.limits import FairRoute, in_thread
from app.models.routes import ModelName, VersionNumber
from app.plots.numbers import Source
from app.plots.plots import Drawing, Numbers, PlotFormat, PlotKind, PlotTheme
from app.problems.problem import problem_responses

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

_MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
_HEADERS = {"Cache-Control": "private, max-age=3600"}
_FILE = {"schema": {"type": "string", "format": "binary"}}


@router.get(
    "/{name}/versions/{version}/plots/{kind}",
    operation_id="plot_version",
    summary="Plot a version",
    response_class=Response,
    responses={
        200: {
            "description": "Image of the plot.",
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
    name: ModelName,
    version: VersionNumber,
    project: ProjectDep,
    state: StateDep,
    kind: Annotated[PlotKind, Path(description="Kind of plot.", examples=["marginals"])],
    format: Annotated[PlotFormat, Query(description="Format of the image.")] = "png",  # noqa: A002 - the parameter's public name
    theme: Annotated[
        PlotTheme, Query(description="Colour scheme: dark text on white, or light text on black.")
    ] = "light",
) -> Response:
    """Draw a plot of the training, or of samples beside the data if the dataset still exists.

    `learning-curve` shows likelihoods by epoch with the epoch that was kept, or the ELBO;
    `marginals` each column; `pairs` each pair of the first five columns, data and samples side by
    side; `density` the density of two columns, beside the data or the target; `noise` the quantiles
    of data mapped to noise against those of the normal distribution; `images` samples of square
    images. Values that are not finite are left out, and the plot says how many.
    """
    named = project, name, version
    found = await in_thread(state.registry.version, *named)
    media_type = _MEDIA_TYPES[format]
    drawing = Drawing(found.checkpoint_key, kind, format, theme)
    image = state.plots.known(drawing)
    if image is None:
        source = Source(found, state.registry, state.jobs, state.blobs, state.engine)

        async def numbers() -> Numbers:
            async with state.models.use(found) as flow:
                return await source.numbers(kind, flow)

        image = await state.plots.draw(drawing, numbers)
    return Response(image, media_type=media_type, headers=_HEADERS)
