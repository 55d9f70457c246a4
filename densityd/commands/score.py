"""``densityd score``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.terminal.console import service
from densityd.terminal.options import Extra, ModelRef, Output, Url
from densityd.terminal.results import (
    STANDARD_OUTPUT,
    download_result,
    find_job_format,
    input_file,
    open_output,
)

if TYPE_CHECKING:
    from densityd.client import FileOptions, ScoringOptions


def score(
    model: ModelRef,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            dir_okay=False,
            help="Rows to score; `-` is CSV on standard input.",
        ),
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
    parts: Annotated[
        bool,
        typer.Option(
            "--parts",
            help="Add the log probability of the discrete cells and the log density of the others.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Add, with the quantiles, the log density of each cell given the others of its"
            " row: the lowest is what makes the row unlikely.",
        ),
    ] = False,
    extra: Extra = None,
    include_rows: Annotated[
        bool,
        typer.Option("--include-rows", help="Put the columns of the dataset before the scores."),
    ] = False,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file or a dataset, in nats.

    Columns that have names are matched by name; missing and unknown ones are named. Files of any
    size are streamed. A dataset is scored with a job, with quantiles if the model has them, and the
    result is downloaded; Ctrl-C ends the wait, not the job.

    Examples: densityd score shuttle rows.csv; densityd score shuttle:2 rows.npy -o scores.parquet;
    densityd score shuttle rows.csv --quantiles;
    densityd score claims today.csv --explain -o alerts.csv;
    densityd score claims today.csv --parts --extra error;
    zcat today.csv.gz | densityd score claims -;
    densityd score shuttle --dataset ds_0f3c... -o scores.parquet
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if include_rows and dataset is None:
        raise typer.BadParameter("--include-rows needs --dataset.")
    if parts and (quantiles or explain or dataset is not None):
        raise typer.BadParameter("--parts goes with FILE, without --quantiles and --explain.")
    with service(url) as client:
        target = open_output(output)
        if file is None:
            wanted: ScoringOptions = {"output": find_job_format(output)}
            wanted["include_rows"] = include_rows
            if explain:
                wanted["explain"] = True
            job = client.jobs.score(model, str(dataset), **wanted)
            download_result(client, job, target)
            return
        options: FileOptions = {"parts": parts, "explain": explain}
        if extra is not None:
            options["extra"] = extra
        write = client.score_file if quantiles or explain else client.log_prob_file
        with input_file(file) as path:
            write(model, path, target, **options)
