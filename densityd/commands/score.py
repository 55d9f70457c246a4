"""``densityd score`` and ``sample``: what a model is asked, at once or by a job."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, cast

import typer

from densityd.commands import arguments as choices
from densityd.commands.console import Url, note, service
from densityd.commands.waiting import wait_for

if TYPE_CHECKING:
    from densityd.client import Client, Job

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
_OF_JOBS = ("csv", "npy", "parquet")
_MANY_ROWS = 1_000_000


def score(
    model: ModelRef,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", dir_okay=False, exists=True, help="Rows to score."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Dataset to score by a job, instead of a file."),
    ] = None,
    output: Output = _STANDARD_OUTPUT,
    quantiles: Annotated[
        bool,
        typer.Option(
            "--quantiles",
            help="Also each row's rank among rows that the model was not trained on, 0 to 1.",
        ),
    ] = False,
    include_rows: Annotated[
        bool, typer.Option("--include-rows", help="Of a dataset: its columns before the scores.")
    ] = False,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file or of a dataset, in nats.

    Columns that have names are matched by name. Files of any size pass through. A dataset is
    scored by a job, with quantiles if the model has them, and the result downloaded; Ctrl-C stops
    the waiting, not the job.

    Examples: densityd score shuttle rows.csv; densityd score shuttle:2 rows.npy -o scores.parquet;
    densityd score shuttle rows.csv --quantiles;
    densityd score shuttle --dataset ds_0f3c... -o scores.parquet
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if include_rows and dataset is None:
        raise typer.BadParameter("--include-rows needs --dataset.")
    with service(url) as client:
        target, media_type = _target(output)
        if dataset is not None:
            job = client.jobs.score(
                model, dataset, output=_job_output(output), include_rows=include_rows
            )
            _fetch(client, job, target)
        elif quantiles:
            client.score_file(model, cast("Path", file), target, media_type=media_type)
        else:
            client.log_prob_file(model, cast("Path", file), target, media_type=media_type)


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
    job: Annotated[
        bool | None,
        typer.Option(
            "--job/--no-job",
            help="Draw them by a job that survives what may happen meanwhile, then download them.",
            show_default="for more than a million rows into a .csv, .npy or .parquet",
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Draw rows from a model; the same seed gives the same rows, by a job or without.

    Ctrl-C while a job is waited for stops the waiting, not the job.

    Examples: densityd sample shuttle -n 1000 --seed 7 -o rows.parquet;
    densityd sample shuttle -n 10000000 -o rows.npy; densityd sample heights --context age=40
    """
    given = choices.context(context or ())
    by_job = job
    if by_job is None:
        by_job = n > _MANY_ROWS and output.suffix.lower().lstrip(".") in _OF_JOBS
    with service(url) as client:
        from densityd.client import Drawing  # noqa: PLC0415 - it is there by now

        target, media_type = _target(output)
        if by_job:
            started = client.jobs.sample(
                model, n, seed=seed, context=given, output=_job_output(output)
            )
            _fetch(client, started, target)
            return
        drawing = Drawing(n, seed=seed, context=given, space="data")
        client.sample_file(model, drawing, target, media_type=media_type)


def _fetch(client: "Client", job: "Job", target: Path | BinaryIO) -> None:
    """Wait for a bulk job and download its file."""
    note(f"accepted {job.id}")
    wait_for(client, job.id)
    client.jobs.download(job.id, target)


def _job_output(output: Path) -> Literal["csv", "npy", "parquet"]:
    kind = "csv" if output == _STANDARD_OUTPUT else output.suffix.lower().lstrip(".")
    if kind not in _OF_JOBS:
        raise typer.BadParameter(f"{output}: a job writes .csv, .npy or .parquet.")
    return cast("Literal['csv', 'npy', 'parquet']", kind)


def _target(output: Path) -> tuple[Path | BinaryIO, str]:
    from densityd.client.wire.files import guess_media_type  # noqa: PLC0415 - it is there by now

    if output == _STANDARD_OUTPUT:
        return sys.stdout.buffer, "text/csv"
    return output, guess_media_type(output)
