"""``densityd train``, ``score`` and ``sample``: from a table to a model, and what it is asked."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from densityd.commands import choices
from densityd.commands.console import (
    INTERRUPTED,
    AsJson,
    Url,
    echo_record,
    fail,
    note,
    printable,
    service,
)
from densityd.commands.reading import Constant, Delimiter, Header, Missing, upload_options

if TYPE_CHECKING:
    from densityd.client import Client, Dataset, Job

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="File to write; its name tells the format: .csv, .npy, .parquet, .arrows, .ndjson,"
        " .json. `-`: CSV on standard output.",
    ),
]
ModelRef = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (its alias production, else its newest version), NAME@ALIAS or NAME:VERSION.",
    ),
]
_STANDARD_OUTPUT = Path("-")


def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", dir_okay=False, exists=True, help="Table to upload and train on."
        ),
    ] = None,
    *,
    model: Annotated[str, typer.Option(help="Model that gets a new version.")],
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Dataset to train on, instead of a file.")
    ] = None,
    flow: Annotated[
        str | None, typer.Option(metavar="FAMILY", help="Family of flows, such as maf or nsf.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Field of the flow, or with a dot of another part of the request:"
            " optimisation.patience=10. Values are JSON. Repeatable.",
        ),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Column to model. Repeatable.", show_default="all")
    ] = None,
    context_column: Annotated[
        list[str] | None,
        typer.Option(help="Column that the density is conditioned on. Repeatable."),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="Longest training; the best model is kept.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the end, or print the job's id.")
    ] = True,
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
            uploaded = client.datasets.upload(file, **options)
            tell_upload(uploaded)
            dataset = uploaded.id
        job = client.jobs.train(model, str(dataset), **request)
        note(f"accepted {job.id}")
        if wait:
            job = wait_for(client, job.id)
        tell_job(job, as_json=as_json)


def score(
    model: ModelRef,
    file: Annotated[Path, typer.Argument(dir_okay=False, exists=True, help="Rows to score.")],
    output: Output = _STANDARD_OUTPUT,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file, in nats.

    Columns that have names are matched by name. Files of any size pass through.

    Examples: densityd score shuttle rows.csv; densityd score shuttle:2 rows.npy -o scores.parquet
    """
    with service(url) as client:
        target, media_type = _target(output)
        client.log_prob_file(model, file, target, media_type=media_type)


def sample(
    model: ModelRef,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same rows.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Column of a conditional model. Repeatable."),
    ] = None,
    output: Output = _STANDARD_OUTPUT,
    url: Url = None,
) -> None:
    """Draw rows from a model.

    Examples: densityd sample shuttle -n 1000 --seed 7 -o rows.parquet;
    densityd sample heights --context age=40
    """
    given = choices.context(context or ())
    with service(url) as client:
        from densityd.client import Drawing  # noqa: PLC0415 - it is there by now

        target, media_type = _target(output)
        drawing = Drawing(n, seed=seed, context=given, space="data")
        client.sample_file(model, drawing, target, media_type=media_type)


def tell_upload(dataset: "Dataset") -> None:
    """Tell a person what was uploaded, and the warnings about it."""
    note(f"uploaded {dataset.rows} rows x {len(dataset.columns)} columns: {dataset.id}")
    for warning in dataset.warnings:
        where = "" if warning.column is None else f" ({warning.column})"
        note(f"  warning {warning.code}{where}: {warning.detail}")


def wait_for(client: "Client", job_id: str, *, timeout_s: float | None = None) -> "Job":
    """Wait for a job that succeeds; the progress is there for a person to see."""
    from densityd.client.progress import ProgressBar  # noqa: PLC0415 - only a wait needs it

    try:
        with ProgressBar() as bar:
            return client.jobs.wait(job_id, on_progress=bar, timeout_s=timeout_s)
    except KeyboardInterrupt:
        fail(
            f"{job_id} goes on.",
            f"`densityd jobs wait {job_id}` waits again; `densityd jobs cancel {job_id}` stops it.",
            status=INTERRUPTED,
        )


def tell_job(job: "Job", *, as_json: bool) -> None:
    """Print what came of a job: the model, or its id while there is none."""
    if as_json:
        echo_record(job)
        return
    metrics = job.metrics or {}
    line = job.ref or job.id
    if job.ref and isinstance(reached := metrics.get("test_log_likelihood"), float):
        line += f"  test log-likelihood {reached:.3f}"
        if isinstance(error := metrics.get("test_standard_error"), float):
            line += f" +- {2 * error:.3f}"
        line += " nats a row"
    typer.echo(printable(line))


def _target(output: Path) -> tuple[Path | BinaryIO, str]:
    from densityd.client.files import media_type_of  # noqa: PLC0415 - it is there by now

    if output == _STANDARD_OUTPUT:
        return sys.stdout.buffer, "text/csv"
    return output, media_type_of(output)
