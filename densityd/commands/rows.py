"""``densityd score`` and ``densityd sample``."""

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, cast

import typer

from densityd.commands.options import (
    STANDARD_INPUT,
    STANDARD_OUTPUT,
    ModelRef,
    Output,
    Url,
    check_dataset_id,
    parse_values,
)
from densityd.terminal import note, service, wait_for

if TYPE_CHECKING:
    from densityd.client import Client, Explained, Extra, Job, UnusualFilters

_JOB_FORMATS = ("csv", "npy", "parquet")
_MANY_ROWS = 1_000_000
_WHY = (
    "A row that lacks a value of a column without gaps in training, or has an infinite one, has none, nor"
    " has one that is too far from the training data."
)


def score(
    model: ModelRef,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, help="Rows to score; `-` is CSV on standard input."
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
    ranks: Annotated[
        bool,
        typer.Option("--ranks", help="Add each row's rank among held-out rows: 0.01 is rare."),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Add the rank, and the reasons: columns whose values make the row unlikely, and by"
            " how many nats. Other formats than CSV have the terms of all columns.",
        ),
    ] = False,
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Add the terms of the discrete cells and of the others."),
    ] = False,
    conditionals: Annotated[
        bool,
        typer.Option(
            "--conditionals",
            help="Add the term of each column given those before it, and the value to expect there;"
            " of models of one autoregressive layer.",
        ),
    ] = False,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence",
            help="Of a model with latent variables: two lower bounds of the log evidence, instead.",
        ),
    ] = False,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples of each row's latent variables; with --evidence.",
            show_default="100",
        ),
    ] = None,
    extra: Annotated[
        Literal["error", "ignore"] | None,
        typer.Option(help="Refuse or ignore columns that the model does not have."),
    ] = None,
    include_rows: Annotated[
        bool,
        typer.Option("--include-rows", help="With --dataset: put its columns before the scores."),
    ] = False,
    url: Url = None,
) -> None:
    """Print the log density of each row of a file or a dataset, in nats.

    Columns that have names are matched by name; missing and unknown ones are named. A dataset is scored
    with a job, and the result is downloaded; Ctrl-C ends the wait, not the job. A row that lacks a value
    of a column without gaps in training has nan: `densityd train --missing any` makes a model that scores
    it too.

    Examples: densityd score claims rows.csv; densityd score claims:2 rows.npy -o scores.parquet;
    densityd score claims today.csv --explain;
    densityd score claims today.csv --explain -o alerts.csv;
    zcat today.csv.gz | densityd score claims - --ranks;
    densityd score sources readings.csv --evidence --samples 1000;
    densityd score claims --dataset ds_0f3c... -o scores.parquet
    """
    wanted = _wanted(
        ranks=ranks, explain=explain, parts=parts, conditionals=conditionals, evidence=evidence
    )
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    if include_rows and dataset is None:
        raise typer.BadParameter("--include-rows needs --dataset.")
    if dataset is not None and wanted in ("conditionals", "evidence"):
        raise typer.BadParameter(f"--{wanted} is of a FILE.")
    if dataset is not None and extra is not None:
        raise typer.BadParameter(
            "--extra is of a FILE: a job leaves columns out that the model does not have."
        )
    if samples is not None and wanted != "evidence":
        raise typer.BadParameter("--samples needs --evidence.")
    with service(url) as client:
        if file is not None:
            with _input(file) as path:
                _score_file(
                    client, model, path, output, wanted, extra=extra, samples=samples or 100
                )
            return
        job = client.jobs.score(
            model,
            str(dataset),
            output=find_job_format(output),
            include_rows=include_rows,
            parts=wanted == "parts",
            explain=wanted == "explain",
        )
        ended = _download(client, job, _target(output))
        tell_unscored(int((ended.metrics or {}).get("non_finite") or 0))


def _wanted(**options: bool) -> str:
    """Return which result is wanted.

    Raises:
        typer.BadParameter: More than one is.
    """
    if options["explain"]:
        options["ranks"] = False  # it has them, too
    wanted = [name for name, value in options.items() if value]
    if len(wanted) > 1:
        raise typer.BadParameter(f"--{wanted[0]} and --{wanted[1]} exclude each other.")
    return wanted[0] if wanted else "log_prob"


def _score_file(
    client: "Client",
    model: str,
    path: Path,
    output: Path,
    wanted: str,
    *,
    extra: "Extra | None",
    samples: int,
) -> None:
    target = _target(output)
    if wanted == "evidence":
        return client.evidence(model, path, to=target, samples=samples, extra=extra)
    if wanted == "explain" and (output == STANDARD_OUTPUT or output.suffix.lower() == ".csv"):
        return _write_reasons(client.explain(model, path, extra=extra), target)
    write = {
        "log_prob": client.log_prob,
        "ranks": client.score,
        "explain": client.explain,
        "parts": client.parts,
        "conditionals": client.conditionals,
    }[wanted]
    return write(model, path, to=target, extra=extra)  # type: ignore[operator, no-any-return] # overloaded all


def unusual(
    model: ModelRef,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of rows, the least likely first.")
    ] = 20,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Dataset that a scoring job of the model has scored, instead of the one of its training.",
            callback=check_dataset_id,
        ),
    ] = None,
    max_rank: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest rank, such as 0.01.")
    ] = None,
    output: Output = STANDARD_OUTPUT,
    url: Url = None,
) -> None:
    """Print the least likely rows of the table that a model was trained on, and why they are unlikely.

    Each has its number, its rank among held-out rows, the cells that make it unlikely with what is usual there,
    what a person found about it, and its cells as they were uploaded. It is CSV, or an Excel file where FILE ends
    in .xlsx.

    Examples: densityd unusual claims; densityd unusual claims:2 --limit 100 -o odd.csv;
    densityd unusual claims --max-rank 0.001 --limit 1000 -o odd.xlsx;
    densityd unusual claims --dataset ds_0f3c...
    """
    filters: "UnusualFilters" = {"limit": limit}
    if dataset is not None:
        filters["dataset_id"] = dataset
    if max_rank is not None:
        filters["max_rank"] = max_rank
    with service(url) as client:
        client.models.download_unusual(model, _target(output), **filters)


def _target(output: Path) -> Path | BinaryIO:
    return sys.stdout.buffer if output == STANDARD_OUTPUT else output


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

    Examples: densityd sample claims -n 1000 --seed 7 -o rows.parquet;
    densityd sample claims -n 10000000 -o rows.npy; densityd sample heights --context age=40
    """
    values = parse_values(context)
    if job is None:
        job = n > _MANY_ROWS and output.suffix.lower().lstrip(".") in _JOB_FORMATS
    target = _target(output)
    with service(url) as client:
        if not job:
            client.sample(model, n, to=target, seed=seed, context=values)
            return
        kind = find_job_format(output)
        _download(
            client, client.jobs.sample(model, n, seed=seed, context=values, output=kind), target
        )


def impute(
    model: ModelRef,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", dir_okay=False, help="Rows with gaps; `-` is CSV on standard input."
        ),
    ],
    output: Output = STANDARD_OUTPUT,
    fill: Annotated[
        Literal["mean", "median", "draw"],
        typer.Option(
            help="What a gap gets: the mean or the median of a number, and the likeliest category; or a"
            " draw of all gaps of a row together."
        ),
    ] = "mean",
    level: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.999,
            help="Add intervals of this probability, as low.NAME and high.NAME.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    url: Url = None,
) -> None:
    """Fill the gaps of rows, each given all other cells of its row.

    Examples: densityd impute claims gaps.csv -o whole.csv;
    densityd impute claims gaps.parquet --level 0.9 -o whole.parquet;
    densityd impute claims gaps.csv --fill draw --seed 1 -o draw1.csv
    """
    options: dict[str, Any] = {"fill": fill, "seed": seed}
    if level is not None:
        options["level"] = level
    with service(url) as client, _input(file) as path:
        client.impute(model, path, to=_target(output), **options)


def tell_unscored(count: int) -> None:
    """Print how many rows have no score, and why, if there are any."""
    if count:
        note(f"{'1 row has' if count == 1 else f'{count} rows have'} no score. {_WHY}")


def find_job_format(output: Path) -> Literal["csv", "npy", "parquet"]:
    """Return the format that a job writes for an output.

    Raises:
        typer.BadParameter: Jobs do not write that format.
    """
    kind = "csv" if output == STANDARD_OUTPUT else output.suffix.lower().lstrip(".")
    if kind not in _JOB_FORMATS:
        raise typer.BadParameter(f"{output}: a job writes .csv, .npy or .parquet.")
    return cast("Literal['csv', 'npy', 'parquet']", kind)


def _write_reasons(explained: "Explained", target: Path | BinaryIO) -> None:
    import numpy as np  # noqa: PLC0415 - the client is loaded by now

    from densityd.client.wire.files import open_target  # noqa: PLC0415

    with open_target(target) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["log_prob", "quantile", "reasons"])
        for row, (log_prob, rank) in enumerate(
            zip(explained.log_prob, explained.quantile, strict=True)
        ):
            writer.writerow([log_prob, rank, explained.describe(row)])
        text.detach()
    tell_unscored(int(np.count_nonzero(~np.isfinite(explained.log_prob))))


@contextmanager
def _input(file: Path) -> Iterator[Path]:
    """Give the file to read, or a copy of standard input, as CSV: a request may be sent again."""
    if file != STANDARD_INPUT:
        yield file
        return
    with tempfile.NamedTemporaryFile(suffix=".csv") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)


def _download(client: "Client", job: "Job", target: Path | BinaryIO) -> "Job":
    """Wait for a bulk job and download its file; return the job as it ended."""
    note(f"accepted {job.id}")
    ended = wait_for(client, job.id)
    client.jobs.download(job.id, target)
    return ended
