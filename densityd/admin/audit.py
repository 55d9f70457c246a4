"""``densityd audit``: the audit trail of all projects; the service may run."""

import json
from datetime import datetime
from typing import Annotated

import typer

from densityd.admin.installation import failing, open_installation, read_settings
from models_store.settings import StoreSettings

app = typer.Typer(
    short_help="Export what was changed, by which key",
    help="The audit trail: a row in the database for each request that changed something.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _audit() -> None:  # so that export is a command of its own, although it is the only one
    pass


@app.command()
def export(
    since: Annotated[
        datetime | None, typer.Option(help="Time of the first change.", show_default="all")
    ] = None,
) -> None:
    """Print the trail of all projects, a JSON object a line, oldest first.

    Examples: densityd audit export > audit.jsonl; densityd audit export --since 2026-12-01
    """
    from models_store.audit import AuditTrail  # noqa: PLC0415 - help is printed without it

    with failing(), open_installation(read_settings(StoreSettings)) as (database, _):
        for record in AuditTrail(database).records(since=since):
            fields = {name: value for name, value in vars(record).items() if name != "position"}
            typer.echo(json.dumps(fields | {"time": record.time.isoformat()}))
