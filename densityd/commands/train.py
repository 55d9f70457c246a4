"""``densityd train`` and ``densityd sweep``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from densityd.terminal.console import kept_if_accepted, service, tell, upload_once
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
    parse_ranges,
)
from densityd.terminal.upload_options import takes_upload_options
from densityd.terminal.waiting import follow

if TYPE_CHECKING:
    from densityd.client import Client, Job, UploadOptions

_LABELS = ("description", "tags")


@takes_upload_options
def train(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table to upload and train on."
        ),
    ] = None,
    *,
    model: ModelName,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Dataset to train on, instead of a file.", callback=check_dataset_id
        ),
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
    any_gaps: Annotated[
        bool,
        typer.Option(
            "--any-gaps",
            help="Train for rows with any gaps, and for explanations of every column.",
        ),
    ] = False,
    quality: Annotated[
        Literal["fast", "balanced", "best"] | None,
        typer.Option(
            help="Quarter of the epochs, the default, or four times as many.",
            show_default="balanced",
        ),
    ] = None,
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    options: "UploadOptions",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and train a model on it; options that are left out are chosen from the data.

    The same file with the same options is uploaded once, as long as the dataset exists. If the
    training is refused, a new upload is deleted again. A description and tags are those of the
    dataset if it is new, of the training and of the version.

    Prints the model's reference, NAME:VERSION, and its test log-likelihood. The types of the columns,
    warnings, dropped rows and the result go to standard error too; with --json they are members of
    the printed job. Ctrl-C ends the wait, not the training.

    Examples: densityd train train.csv --model shuttle;
    densityd train claims.csv --model claims --types zip=category --exclude id --any-gaps;
    densityd train train.csv --model shuttle --flow maf --set layers=5 --set 'hidden=[128]';
    densityd train train.csv --model shuttle --tag team=space --description "First trial";
    densityd train train.csv --model shuttle --flow auto --quality best --max-seconds 3600;
    densityd train --dataset ds_0f3c... --model shuttle --max-seconds 600 --no-wait
    """
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    if quality is not None:
        request["quality"] = quality
    if column:
        request["columns"] = column
    if context_column:
        request["context_columns"] = context_column
    if any_gaps:
        request["missing"] = "any"
    request |= _labels(options)
    _start(
        Table(file, dataset, options),
        lambda client, dataset_id: client.jobs.train(model, dataset_id, **request),
        url=url,
        outcome=Outcome(wait=wait, as_json=as_json),
    )


@takes_upload_options
def sweep(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", dir_okay=False, exists=True, help="Table to upload and train on."
        ),
    ] = None,
    *,
    model: ModelName,
    ranges: Annotated[
        list[str],
        typer.Option(
            "--range",
            metavar="FIELD=RANGE",
            help="Range of a field of the flow, or with a dot of optimisation: LOW:HIGH, LOW:HIGH:log,"
            " a JSON list, or values between commas. Repeatable.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Dataset to train on, instead of a file.", callback=check_dataset_id
        ),
    ] = None,
    flow: Family = None,
    settings: Fields = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of points to try.")] = 16,
    method: Annotated[
        Literal["sobol", "random"],
        typer.Option(help="Points that fill the ranges, or random ones."),
    ] = "sobol",
    reduction: Annotated[
        int,
        typer.Option(
            min=1,
            help="Factor by which each stage has fewer trials and more epochs; 1 for one stage.",
        ),
    ] = 3,
    ensemble: Annotated[
        int, typer.Option(min=1, help="Maximum number of flows whose probabilities are averaged.")
    ] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the points.")] = None,
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    options: "UploadOptions",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and train models at many points of some ranges; the best becomes the version.

    The points are tried by any workers at the same time, for a part of the epochs first, the best of
    them again for longer. `--max-seconds` bounds the training time of all together. What was tried is
    in the metrics of the job: `densityd jobs show`.

    Examples: densityd sweep train.csv --model shuttle --flow maf --range layers=2:8
    --range 'hidden=[[32, 32], [64, 64]]' --range optimisation.learning_rate=3e-4:1e-2:log;
    densityd sweep --dataset ds_0f3c... --model shuttle --range optimisation.weight_decay=0,1e-5,1e-3
    """
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    request |= {"trials": trials, "method": method, "reduction": reduction, "ensemble": ensemble}
    if seed is not None:
        request["seed"] = seed
    request |= _labels(options)
    wanted = parse_ranges(ranges)
    _start(
        Table(file, dataset, options),
        lambda client, dataset_id: client.jobs.sweep(model, dataset_id, wanted, **request),
        url=url,
        outcome=Outcome(wait=wait, as_json=as_json),
    )


def _labels(options: "UploadOptions") -> dict[str, Any]:
    """Return the description and the tags that are among the options of an upload."""
    return {name: value for name, value in options.items() if name in _LABELS}


@dataclass(frozen=True)
class Table:
    """Table that a command names: a file to upload, or a dataset of the service."""

    file: Path | None
    dataset: str | None
    options: "UploadOptions"


@dataclass(frozen=True)
class Outcome:
    """Way in which the outcome of a job is printed."""

    wait: bool
    as_json: bool


def _start(
    table: Table,
    start: "Callable[[Client, str], Job]",
    *,
    url: str | None,
    outcome: Outcome,
) -> None:
    """Upload the table if it is a file, start a job on it, and print what becomes of that.

    Raises:
        typer.BadParameter: There is neither a file nor a dataset, or both, or a dataset with options
            of reading a file.
    """
    if (table.file is None) == (table.dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    reading = next((name for name in table.options if name not in _LABELS), None)
    if table.dataset is not None and reading is not None:
        option = "--no-header" if reading == "header" else f"--{reading.replace('_', '-')}"
        raise typer.BadParameter(
            f"{option} says how a FILE is read; `densityd datasets set-type` changes types of a dataset,"
            " and --column chooses its columns."
        )
    with service(url) as client:
        uploaded = None
        if table.file is not None:
            known = uploaded = upload_once(client, table.file, table.options)
        else:
            known = tell(client.datasets.get(str(table.dataset)))
        with kept_if_accepted(client, uploaded):
            job = start(client, known.id)
        follow(client, job, wait=outcome.wait, as_json=outcome.as_json, dataset=known)
