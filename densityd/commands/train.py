"""``densityd train`` and ``infer``: the jobs that make a model, and the wait for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densityd.commands import arguments as choices
from densityd.commands.console import AsJson, Url, note, service
from densityd.commands.reading import Constant, Delimiter, Header, Missing, upload_options
from densityd.commands.waiting import tell_job, wait_for

if TYPE_CHECKING:
    from densityd.client import Client, Dataset, UploadOptions

Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for the end, or print the job's id.")
]
Family = Annotated[
    str | None,
    typer.Option("--flow", metavar="FAMILY", help="Family of flows, such as maf or nsf."),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Field of the flow, or with a dot of another part of the request:"
        " optimisation.patience=10. Values are JSON. Repeatable.",
    ),
]
MaxSeconds = Annotated[
    float | None, typer.Option(min=0.001, help="Longest training; the best model is kept.")
]


def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table to upload and train on."
        ),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="Model that gets a new version.")],
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Dataset to train on, instead of a file.")
    ] = None,
    flow: Family = None,
    settings: Fields = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column to model. Repeatable.", show_default="all"),
    ] = None,
    context_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column that the density is conditioned on. Repeatable."),
    ] = None,
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    header: Header = True,
    delimiter: Delimiter = ",",
    missing: Missing = "error",
    constant: Constant = "error",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and train a model on it; what is not chosen is chosen from the data.

    Prints the model's reference, NAME:VERSION, and its test log-likelihood. Ctrl-C stops the
    waiting, not the training.

    Examples: densityd train train.csv --model shuttle;
    densityd train train.csv --model shuttle --flow maf --set layers=5 --set 'hidden=[128]';
    densityd train --dataset ds_0f3c... --model shuttle --max-seconds 600 --no-wait
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    request = choices.settings(settings or (), family=flow)
    if column:
        request["columns"] = column
    if context_column:
        request["context_columns"] = context_column
    if max_seconds is not None:
        request.setdefault("optimisation", {})["max_seconds"] = max_seconds
    with service(url) as client:
        if file is not None:
            options = upload_options(header, delimiter, missing, constant)
            dataset = _upload(client, file, options)
        job = client.jobs.train(model, str(dataset), **request)
        note(f"accepted {job.id}")
        if wait:
            job = wait_for(client, job.id)
        tell_job(job, as_json=as_json)


def infer(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table of a regression, to upload."
        ),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="Model that gets a new version.")],
    potential: Annotated[
        str | None, typer.Option(help="Density that has a name: U1 to U5.", metavar="NAME")
    ] = None,
    log_density: Annotated[
        str | None,
        typer.Option(metavar="FORMULA", help="Log density as a formula of z1 to zD; with --dim."),
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="D of the formula.")] = None,
    regression: Annotated[
        Literal["linear", "logistic"] | None,
        typer.Option(help="Posterior of a Bayesian regression; with --response and a table."),
    ] = None,
    response: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that the regression explains.")
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
    and its ELBO. Ctrl-C stops the waiting, not the job.

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
    request = choices.settings(settings or (), family=flow)
    if max_seconds is not None:
        request.setdefault("optimisation", {})["max_seconds"] = max_seconds
    with service(url) as client:
        if file is not None:
            dataset = _upload(client, file, {})
        targets = {
            "potential": potential,
            "log_density": log_density,
            "dim": dim,
            "posterior": {"kind": regression, "dataset_id": dataset, "response": response},
        }
        if regression is None:
            del targets["posterior"]
        target = {name: value for name, value in targets.items() if value is not None}
        job = client.jobs.variational(model, target, **request)
        note(f"accepted {job.id}")
        if wait:
            job = wait_for(client, job.id)
        tell_job(job, as_json=as_json)


def _check_together(name: str, value: object, other: str, given: object) -> None:
    if (value is None) != (given is None):
        raise typer.BadParameter(f"{name} and {other} belong together.")


def _upload(client: "Client", file: Path, options: "UploadOptions") -> str:
    uploaded = client.datasets.upload(file, **options)
    tell_upload(uploaded)
    return uploaded.id


def tell_upload(dataset: "Dataset") -> None:
    """Tell a person what was uploaded, and the warnings about it."""
    note(f"uploaded {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")
    for warning in dataset.warnings:
        where = "" if warning.column is None else f" ({warning.column})"
        note(f"  warning {warning.code}{where}: {warning.detail}")
