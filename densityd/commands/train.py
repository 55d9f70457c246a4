"""``densityd train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densityd.commands.console import kept_if_accepted, service, upload_once
from densityd.commands.options import (
    AsJson,
    Family,
    Fields,
    MaxSeconds,
    ModelName,
    Url,
    Wait,
    build_request,
)
from densityd.commands.upload_options import takes_upload_options
from densityd.commands.waiting import follow

if TYPE_CHECKING:
    from densityd.client import UploadOptions


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

    The same file with the same options is uploaded once a day. If the training is refused, the upload
    is deleted again.

    Prints the model's reference, NAME:VERSION, and its test log-likelihood. The types of the columns,
    warnings, dropped rows and the result go to standard error too; with --json they are members of
    the printed job. Ctrl-C ends the wait, not the training.

    Examples: densityd train train.csv --model shuttle;
    densityd train claims.csv --model claims --types zip=category --exclude id --any-gaps;
    densityd train train.csv --model shuttle --flow maf --set layers=5 --set 'hidden=[128]';
    densityd train train.csv --model shuttle --flow auto --quality best --max-seconds 3600;
    densityd train --dataset ds_0f3c... --model shuttle --max-seconds 600 --no-wait
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    if quality is not None:
        request["quality"] = quality
    if column:
        request["columns"] = column
    if context_column:
        request["context_columns"] = context_column
    if any_gaps:
        request["missing"] = "any"
    with service(url) as client:
        uploaded = None
        if file is not None:
            uploaded = upload_once(client, file, options)
            dataset = uploaded.id
        with kept_if_accepted(client, uploaded):
            job = client.jobs.train(model, str(dataset), **request)
        follow(client, job, wait=wait, as_json=as_json, dataset=uploaded)
