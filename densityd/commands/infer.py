"""``densityd infer``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from densityd.terminal.console import service, upload_table
from densityd.terminal.options import (
    AsJson,
    Family,
    Fields,
    MaxSeconds,
    ModelName,
    Url,
    Wait,
    build_request,
)
from densityd.terminal.waiting import follow

if TYPE_CHECKING:
    from densityd.client.targets import Target


def infer(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table of the regression, to upload."
        ),
    ] = None,
    *,
    model: ModelName,
    potential: Annotated[
        str | None, typer.Option(help="Density with a name: U1 to U5.", metavar="NAME")
    ] = None,
    log_density: Annotated[
        str | None,
        typer.Option(metavar="FORMULA", help="Log density as a formula of z1 to zD; with --dim."),
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Dimensions D of the formula.")] = None,
    regression: Annotated[
        Literal["linear", "logistic"] | None,
        typer.Option(help="Posterior of a Bayesian regression; with --response and a table."),
    ] = None,
    response: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Response column of the regression.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Dataset of the regression, instead of a file.")
    ] = None,
    flow: Family = None,
    settings: Fields = None,
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Fit a flow to a density that is known up to a constant, by variational inference.

    The density is one of --potential, --log-density and --regression. Prints the model's reference
    and its ELBO. Ctrl-C ends the wait, not the job.

    Examples: densityd infer --model ring --potential U1;
    densityd infer --model banana --log-density '-z1^2 / 8 - 2 * (z2 - z1^2 / 4)^2' --dim 2;
    densityd infer patients.csv --model risk --regression logistic --response ill;
    densityd infer --model ring --potential U1 --flow planar --set layers=32
    --set optimisation.iterations=10000
    """
    if [potential, log_density, regression].count(None) != 2:
        raise typer.BadParameter("give one of --potential, --log-density and --regression.")
    _check_together("--log-density", log_density, "--dim", dim)
    _check_together("--regression", regression, "--response", response)
    _check_together("--regression", regression, "FILE or --dataset", file or dataset)
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    with service(url) as client:
        if file is not None:
            dataset = upload_table(client, file, {}).id
        targets = {
            "potential": potential,
            "log_density": log_density,
            "dim": dim,
            "posterior": {"kind": regression, "dataset_id": dataset, "response": response},
        }
        if regression is None:
            del targets["posterior"]
        given = {name: value for name, value in targets.items() if value is not None}
        job = client.jobs.variational(model, cast("Target", given), **request)
        follow(client, job, wait=wait, as_json=as_json)


def _check_together(name: str, value: object, other: str, other_value: object) -> None:
    if (value is None) != (other_value is None):
        raise typer.BadParameter(f"{name} and {other} belong together.")
