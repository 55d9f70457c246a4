"""``densityd datasets``: the tables on the service."""

from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densityd.terminal.console import (
    echo_facts,
    echo_record,
    echo_records,
    echo_table,
    marked,
    service,
    upload_table,
)
from densityd.terminal.options import (
    AsJson,
    Limit,
    OldestFirst,
    Prefix,
    Tag,
    Url,
    check_dataset_id,
    collect_filters,
)
from densityd.terminal.upload_options import OnlyColumns, parse_types, takes_upload_options

if TYPE_CHECKING:
    from densityd.client import Dataset, UploadOptions

app = typer.Typer(help="Tables on the service.", no_args_is_help=True, rich_markup_mode=None)
DatasetId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the dataset, ds_...", callback=check_dataset_id)
]


@app.command("list")
def list_datasets(
    tag: Tag = None,
    prefix: Prefix = None,
    oldest_first: OldestFirst = False,
    limit: Limit = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List datasets.

    Examples: densityd datasets list --limit 10;
    densityd datasets list --tag team=space --prefix shuttle
    """
    filters = collect_filters(tag=tag, prefix=prefix, oldest_first=oldest_first)
    with service(url) as client:
        found = list(islice(client.datasets.list(**filters), limit))
        if as_json:
            return echo_records(found)
        fields = attrgetter("id", "name", "rows", "column_count", "bytes", "created_at")
        header = ("ID", "NAME", "ROWS", "COLUMNS", "BYTES", "CREATED")
        return echo_table(header, map(fields, found))


@app.command()
def show(dataset_id: DatasetId, url: Url = None, as_json: AsJson = False) -> None:
    """Show a dataset: its columns, their statistics, and warnings.

    Example: densityd datasets show ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        found = client.datasets.get(dataset_id)
        if as_json:
            return echo_record(found)
        names = ("id", "name", "rows", "bytes", "sha256")
        echo_facts(
            [*((name, getattr(found, name)) for name in names), ("created", found.created_at)]
        )
        typer.echo()
        _echo_columns(found)
        if found.warnings:
            typer.echo()
            fields = attrgetter("code", "column", "detail")
            echo_table(("WARNING", "COLUMN", "DETAIL"), map(fields, found.warnings))
        return None


@app.command()
@takes_upload_options
def upload(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", dir_okay=False, exists=True, help="Table to upload.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset.", show_default="the file's name")
    ] = None,
    columns: OnlyColumns = None,
    *,
    options: "UploadOptions",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Upload a table, and print its id; types of columns and warnings go to standard error.

    `densityd train` of the same file with the same options trains on this dataset.

    Examples: densityd datasets upload claims.csv;
    densityd datasets upload claims.csv --types zip=category --exclude id --na-values -999;
    densityd datasets upload preise.csv --decimal , --thousands . --datetime-format %d.%m.%Y;
    densityd datasets upload table.parquet --name people --tag team=space
    """
    if columns:
        options["columns"] = columns
    with service(url) as client:
        uploaded = upload_table(client, file, marked(file, options), name=name)
        return echo_record(uploaded) if as_json else typer.echo(uploaded.id)


@app.command("set-type")
def set_type(
    dataset_id: DatasetId,
    types: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=TYPE...",
            help="New type of a column: number, integer, boolean, category, datetime or ignored.",
        ),
    ],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Correct the types of columns without a new upload, and print all types.

    Example: densityd datasets set-type ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f zip=category id=ignored
    """
    wanted = parse_types(types) or {}
    with service(url) as client:
        changed = client.datasets.update(dataset_id, types=wanted)
        return echo_record(changed) if as_json else _echo_columns(changed)


@app.command()
def delete(dataset_id: DatasetId, url: Url = None) -> None:
    """Delete a dataset that no unfinished job uses; models that were trained on it stay.

    Example: densityd datasets delete ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        client.datasets.delete(dataset_id)


def _echo_columns(dataset: "Dataset") -> None:
    header = ("COLUMN", "TYPE", "MEAN", "STD", "MIN", "MAX", "DISTINCT", "WHY")
    fields = attrgetter("name", "type", "mean", "std", "min", "max", "distinct", "reason")
    echo_table(header, map(fields, dataset.columns))
