"""``densityd sample``."""

from typing import Annotated

import typer

from densityd.terminal.console import service
from densityd.terminal.options import ModelRef, Output, Url, parse_context
from densityd.terminal.results import (
    JOB_FORMATS,
    STANDARD_OUTPUT,
    download_result,
    find_job_format,
    open_output,
)

_MANY_ROWS = 1_000_000


def sample(
    model: ModelRef,
    n: Annotated[int, typer.Option("-n", min=1, help="Number of rows.")] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed that gives the same rows again.")
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Context column of a conditional model. Repeatable."
        ),
    ] = None,
    output: Output = STANDARD_OUTPUT,
    job: Annotated[
        bool | None,
        typer.Option(
            "--job/--no-job",
            help="Draw with a job, which survives a restart of the service, and download its file.",
            show_default="for more than a million rows into a .csv, .npy or .parquet",
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Draw rows from a model; the same seed gives the same rows, with a job or without.

    Ctrl-C during the wait for a job ends the wait, not the job.

    Examples: densityd sample shuttle -n 1000 --seed 7 -o rows.parquet;
    densityd sample shuttle -n 10000000 -o rows.npy; densityd sample heights --context age=40
    """
    values = parse_context(context or ())
    if job is None:
        job = n > _MANY_ROWS and output.suffix.lower().lstrip(".") in JOB_FORMATS
    with service(url) as client:
        from densityd.client import Drawing  # noqa: PLC0415 - the client is loaded by now

        target = open_output(output)
        if job:
            started = client.jobs.sample(
                model, n, seed=seed, context=values, output=find_job_format(output)
            )
            download_result(client, started, target)
            return
        drawing = Drawing(n, seed=seed, context=values, space="data")
        client.sample_file(model, drawing, target)
