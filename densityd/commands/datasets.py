"""``densityd datasets``: the tables on the service."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from densityd.commands.console import (
    echo_facts,
    echo_record,
    echo_records,
    echo_table,
    service,
    show_upload,
)
from densityd.commands.options import (
    AsJson,
    Constant,
    Delimiter,
    Header,
    Limit,
    Missing,
    Url,
    collect_upload_options,
)

app = typer.Typer(help="Tables on the service.", no_args_is_help=True, rich_markup_mode=None)
DatasetId = Annotated[str, typer.Argument(metavar="ID", help="Id of the dataset, ds_...")]


@app.command("list")
def list_datasets(limit: Limit = 50, url: Url = None, as_json: AsJson = False) -> None:
    """List datasets.

    Example: densityd datasets list --limit 10
    """
    with service(url) as client:
        found = list(islice(client.datasets.list(), limit))
        if as_json:
            return echo_records(found)
        rows = [
            (one.id, one.name, one.rows, one.column_count, one.bytes, one.created_at)
            for one in found
        ]
        return echo_table(("ID", "NAME", "ROWS", "COLUMNS", "BYTES", "CREATED"), rows)


@app.command()
def show(dataset_id: DatasetId, url: Url = None, as_json: AsJson = False) -> None:
    """Show a dataset: its columns, their statistics, and warnings.

    Example: densityd datasets show ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        found = client.datasets.get(dataset_id)
        if as_json:
            return echo_record(found)
        echo_facts(
            [
                ("id", found.id),
                ("name", found.name),
                ("rows", found.rows),
                ("bytes", found.bytes),
                ("sha256", found.sha256),
                ("created", found.created_at),
            ]
        )
        typer.echo()
        header = ("COLUMN", "TYPE", "MEAN", "STD", "MIN", "MAX", "DISTINCT")
        echo_table(
            header,
            [
                (one.name, one.dtype, one.mean, one.std, one.min, one.max, one.distinct)
                for one in found.columns
            ],
        )
        if found.warnings:
            typer.echo()
            warnings = [(one.code, one.column, one.detail) for one in found.warnings]
            echo_table(("WARNING", "COLUMN", "DETAIL"), warnings)
        return None


@app.command()
def upload(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", dir_okay=False, exists=True, help="Table to upload.")
    ],
    name: Annotated[str | None, typer.Option(help="Label.", show_default="the file's name")] = None,
    header: Header = True,
    delimiter: Delimiter = ",",
    missing: Missing = "error",
    constant: Constant = "error",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table, and print its id.

    Examples: densityd datasets upload train.csv --missing drop;
    densityd datasets upload table.parquet --name people
    """
    with service(url) as client:
        options = collect_upload_options(header, delimiter, missing, constant)
        uploaded = client.datasets.upload(file, name=name, **options)
        if as_json:
            return echo_record(uploaded)
        show_upload(uploaded)
        return typer.echo(uploaded.id)


@app.command()
def delete(dataset_id: DatasetId, url: Url = None) -> None:
    """Delete a dataset that no unfinished job uses; models that were trained on it stay.

    Example: densityd datasets delete ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        client.datasets.delete(dataset_id)
