"""``densityd train``."""

from pathlib import Path
from typing import Annotated

import typer

from densityd.commands.console import service, upload_table
from densityd.commands.options import (
    AsJson,
    Constant,
    Delimiter,
    Family,
    Fields,
    Header,
    MaxSeconds,
    Missing,
    ModelName,
    Url,
    Wait,
    build_request,
    collect_upload_options,
)
from densityd.commands.waiting import follow


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
    max_seconds: MaxSeconds = None,
    wait: Wait = True,
    header: Header = True,
    delimiter: Delimiter = ",",
    missing: Missing = "error",
    constant: Constant = "error",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table and train a model on it; options that are left out are chosen from the data.

    Prints the model's reference, NAME:VERSION, and its test log-likelihood. Ctrl-C ends the wait,
    not the training.

    Examples: densityd train train.csv --model shuttle;
    densityd train train.csv --model shuttle --flow maf --set layers=5 --set 'hidden=[128]';
    densityd train --dataset ds_0f3c... --model shuttle --max-seconds 600 --no-wait
    """
    if (file is None) == (dataset is None):
        raise typer.BadParameter("give either FILE or --dataset ID.")
    request = build_request(settings or (), family=flow, max_seconds=max_seconds)
    if column:
        request["columns"] = column
    if context_column:
        request["context_columns"] = context_column
    with service(url) as client:
        if file is not None:
            options = collect_upload_options(header, delimiter, missing, constant)
            dataset = upload_table(client, file, options).id
        job = client.jobs.train(model, str(dataset), **request)
        follow(client, job, wait=wait, as_json=as_json)
