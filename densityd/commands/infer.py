"""``densityd infer``."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from densityd.terminal.console import kept_if_accepted, service, upload_once
from densityd.terminal.options import (
    AsJson,
    Family,
    Fields,
    MaxSeconds,
    ModelName,
    Url,
    Wait,
    build_request,
    check_dataset_id,
)
from densityd.terminal.waiting import follow

if TYPE_CHECKING:
    from densityd.client.targets import Target


def infer(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="Table of a regression or of latent variables, to upload.",
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
    dim: Annotated[
        int | None,
        typer.Option(min=1, help="Coordinates D of the formula, or number of latent variables."),
    ] = None,
    regression: Annotated[
        Literal["linear", "logistic"] | None,
        typer.Option(help="Posterior of a Bayesian regression; with --response and a table."),
    ] = None,
    response: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Response column of the regression.")
    ] = None,
    latent: Annotated[
        Literal["gaussian", "bernoulli"] | None,
        typer.Option(
            help="Posterior of the latent variables of each row, whose columns have this"
            " distribution given them; with a table, and --dim or --loadings."
        ),
    ] = None,
    hidden: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Units of a hidden layer of the decoder of latent variables. Repeatable.",
            show_default="a linear decoder",
        ),
    ] = None,
    loadings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="CSV file of a known linear decoder, without a header: for each column a line with"
            " the weights of the latent variables.",
        ),
    ] = None,
    noise_scale: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Standard deviation of the noise, of --loadings or of a linear regression.",
            show_default="1 for a regression",
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Fraction of the rows by which a model with latent variables is judged, and to"
            " which it is not fitted; 0 for none.",
            show_default="0.1",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Column of the table to regress on or to explain. Repeatable.",
            show_default="all",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Dataset of the table, instead of a file.", callback=check_dataset_id
        ),
    ] = None,
    flow: Family = None,
    settings: Fields = None,
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Fit a flow to a density that is known up to a constant, by variational inference.

    The density is one of --potential, --log-density, --regression and --latent. Prints the model's
    reference and its ELBO. The same file is uploaded once, as long as the dataset exists. Ctrl-C
    ends the wait, not the job.

    Examples: densityd infer --model ring --potential U1;
    densityd infer --model banana --log-density '-z1^2 / 8 - 2 * (z2 - z1^2 / 4)^2' --dim 2;
    densityd infer patients.csv --model risk --regression logistic --response ill;
    densityd infer answers.csv --model groups --latent bernoulli --dim 2 --hidden 64;
    densityd infer readings.csv --model sources --latent gaussian --loadings weights.csv
    --noise-scale 0.4;
    densityd infer --model ring --potential U1 --flow planar --set layers=32
    --set optimisation.iterations=10000
    """
    if [potential, log_density, regression, latent].count(None) != 3:
        raise typer.BadParameter(
            "give one of --potential, --log-density, --regression and --latent."
        )
    _check_together("--log-density or --latent", log_density or latent, "--dim", dim or loadings)
    _check_together("--regression", regression, "--response", response)
    tables = regression or latent
    _check_together("--regression or --latent", tables, "FILE or --dataset", file or dataset)
    _check_decoder(latent, dim, loadings, hidden)
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    weights = None if loadings is None else _read_loadings(loadings)
    with service(url) as client:
        uploaded = None if file is None else upload_once(client, file, {})
        dataset = dataset if uploaded is None else uploaded.id
        table = _given(dataset_id=dataset, columns=column, noise_scale=noise_scale)
        target = _given(potential=potential, log_density=log_density, dim=dim)
        if latent is not None:
            decoder = _given(dim=dim, hidden=hidden, loadings=weights, held_out=held_out)
            target = {"latent": table | decoder | {"likelihood": latent}}
        elif regression is not None:
            target = {"posterior": table | _given(kind=regression, response=response)}
        with kept_if_accepted(client, uploaded):
            job = client.jobs.variational(model, cast("Target", target), **request)
        follow(client, job, wait=wait, as_json=as_json)


def _given(**values: object) -> dict[str, object]:
    """Return the values that are given."""
    return {name: value for name, value in values.items() if value is not None}


def _check_together(name: str, value: object, other: str, other_value: object) -> None:
    if (value is None) != (other_value is None):
        raise typer.BadParameter(f"{name} and {other} belong together.")


def _check_decoder(
    latent: str | None, dim: int | None, loadings: Path | None, hidden: list[int] | None
) -> None:
    """Refuse options of a decoder without one, and a decoder that is both learnt and known."""
    if latent is None and (loadings is not None or hidden):
        raise typer.BadParameter("--loadings and --hidden are of --latent.")
    if loadings is not None and (dim is not None or hidden):
        raise typer.BadParameter("--loadings is a decoder that is known: no --dim, no --hidden.")


def _read_loadings(path: Path) -> list[list[float]]:
    """Return the numbers of a CSV file, line by line.

    Raises:
        typer.BadParameter: A cell is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    try:
        return [[float(cell) for cell in line] for line in lines]
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}; the file has numbers alone.") from error
