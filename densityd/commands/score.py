"""``densityd score``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.terminal.console import service
from densityd.terminal.options import Extra, ModelRef, Output, Url, check_dataset_id
from densityd.terminal.results import (
    STANDARD_OUTPUT,
    download_result,
    find_job_format,
    input_file,
    open_output,
)
from densityd.terminal.unscored import tell_unscored, telling_unscored

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
        typer.Option(
            metavar="ID",
            help="Dataset to score with a job, instead of a file.",
            callback=check_dataset_id,
        ),
    ] = None,
    output: Output = STANDARD_OUTPUT,
    quantiles: Annotated[
        bool,
        typer.Option(
            "--quantiles",
            help="Add each row's rank among rows that the model was not trained on, up to 1. They are"
            " the test rows, or else the validation rows, which chose the epoch.",
        ),
    ] = False,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts",
            help="Add the log probability of the discrete cells and the log density of the others.",
        ),
    ] = False,
    conditionals: Annotated[
        bool,
        typer.Option(
            "--conditionals",
            help="Add, for each column, its log density given those before it and the value to"
            " expect there; of models of one autoregressive layer.",
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Add, with the quantiles, the log density of each cell given the others of its"
            " row and its difference from what is usual for its column: the lowest is what makes the"
            " row unlikely.",
        ),
    ] = False,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence",
            help="Of a model with latent variables: print two lower bounds of each row's log"
            " evidence, `elbo` and `log_evidence`, instead.",
        ),
    ] = False,
    samples: Annotated[
        int,
        typer.Option(min=1, help="Samples of each row's latent variables; with --evidence."),
    ] = 100,
    extra: Extra = None,
    include_rows: Annotated[
        bool,
        typer.Option("--include-rows", help="Put the columns of the dataset before the scores."),
    ] = False,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file or a dataset, in nats.

    Columns that have names are matched by name; missing and unknown ones are named. A large
    file is sent in parts, all of which one version scores. A dataset is scored with a job, with quantiles if the model has them, and the
    result is downloaded; Ctrl-C ends the wait, not the job. A row that lacks a value of a column
    without gaps in training has nan: `densityd train --any-gaps` makes a model that scores it too.

    Examples: densityd score shuttle rows.csv; densityd score shuttle:2 rows.npy -o scores.parquet;
    densityd score shuttle rows.csv --quantiles;
    densityd score claims today.csv --explain -o alerts.csv;
    densityd score claims today.csv --parts --extra error;
    densityd score digits rows.csv --conditionals -o reconstructed.parquet;
    densityd score sources readings.csv --evidence --samples 1000;
    zcat today.csv.gz | densityd score claims -;
    densityd score shuttle --dataset ds_0f3c... -o scores.parquet
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if include_rows and dataset is None:
        raise typer.BadParameter("--include-rows needs --dataset.")
    ranked = quantiles or explain
    _check_alone("--parts", parts, others=ranked and dataset is None)
    _check_alone("--conditionals", conditionals, others=ranked or parts or dataset is not None)
    others = ranked or parts or conditionals or dataset is not None
    _check_alone("--evidence", evidence, others=others)
    with service(url) as client:
        target = open_output(output)
        if file is None:
            wanted: ScoringOptions = {"output": find_job_format(output)}
            wanted["include_rows"] = include_rows
            if parts:
                wanted["parts"] = True
            if explain:
                wanted["explain"] = True
            job = client.jobs.score(model, str(dataset), **wanted)
            ended = download_result(client, job, target)
            tell_unscored(int((ended.metrics or {}).get("non_finite") or 0))
            return
        options: FileOptions = {"parts": parts, "conditionals": conditionals, "explain": explain}
        if extra is not None:
            options["extra"] = extra
        with telling_unscored(target) as told, input_file(file) as path:
            if evidence:
                client.evidence_file(model, path, told, samples=samples, extra=extra)
            else:
                write = client.score_file if ranked else client.log_prob_file
                write(model, path, told, **options)


def _check_alone(name: str, value: bool, *, others: bool) -> None:  # noqa: FBT001 - of an option
    """Refuse an option beside others that give other columns."""
    if value and others:
        raise typer.BadParameter(f"{name} of a FILE goes without other columns.")
