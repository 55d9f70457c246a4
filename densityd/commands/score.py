"""``densityd score``."""

from pathlib import Path
from typing import Annotated, cast

import typer

from densityd.commands.console import service
from densityd.commands.options import ModelRef, Output, Url
from densityd.commands.results import STANDARD_OUTPUT, download_result, find_job_format, open_output


def score(
    model: ModelRef,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", dir_okay=False, exists=True, help="Rows to score."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Dataset to score with a job, instead of a file."),
    ] = None,
    output: Output = STANDARD_OUTPUT,
    quantiles: Annotated[
        bool,
        typer.Option(
            "--quantiles",
            help="Add each row's rank among rows that the model was not trained on, 0 to 1.",
        ),
    ] = False,
    include_rows: Annotated[
        bool,
        typer.Option("--include-rows", help="Put the columns of the dataset before the scores."),
    ] = False,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file or a dataset, in nats.

    Columns that have names are matched by name. Files of any size are streamed. A dataset is
    scored with a job, with quantiles if the model has them, and the result is downloaded; Ctrl-C
    ends the wait, not the job.

    Examples: densityd score shuttle rows.csv; densityd score shuttle:2 rows.npy -o scores.parquet;
    densityd score shuttle rows.csv --quantiles;
    densityd score shuttle --dataset ds_0f3c... -o scores.parquet
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if include_rows and dataset is None:
        raise typer.BadParameter("--include-rows needs --dataset.")
    with service(url) as client:
        target, media_type = open_output(output)
        if dataset is not None:
            job = client.jobs.score(
                model, dataset, output=find_job_format(output), include_rows=include_rows
            )
            download_result(client, job, target)
        elif quantiles:
            client.score_file(model, cast("Path", file), target, media_type=media_type)
        else:
            client.log_prob_file(model, cast("Path", file), target, media_type=media_type)
