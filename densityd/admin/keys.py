"""``densityd keys``: the API keys, in the database itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from densityd.admin.installation import failing, migrated_database, read_settings
from densityd.commands.options import AsJson
from densityd.terminal import WRONG_USAGE, echo_json, echo_table, fail, note
from models_store.settings import StoreSettings

if TYPE_CHECKING:
    from models_store.keys import ApiKey, Keys

app = typer.Typer(
    help="API keys, each for one project and scope. These commands use the database of"
    " DENSITYD_DATABASE_URL or DENSITYD_DATA_DIR, not a running service.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create(
    project: Annotated[str, typer.Option(help="Project that the key gives access to.")] = "default",
    scope: Annotated[
        Literal["read", "write", "admin"],
        typer.Option(
            help="read: view and score; write: also upload, train and delete; admin: also keys and metrics."
        ),
    ] = "read",
    expires_days: Annotated[
        float | None,
        typer.Option(min=0.001, help="Days until the key expires.", show_default="never"),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Maximum number of requests a second.",
            show_default="DENSITYD_RATE_LIMIT, or no limit",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Text for people.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, the only time that it is shown.

    As soon as there is a key, the service refuses requests without one.

    Examples: densityd keys create --project fraud --scope write;
    densityd keys create --scope read --expires-days 90 --rate 20
    """
    from models_store.keys import Scope  # noqa: PLC0415 - SQLAlchemy takes a third of a second

    with _open_keys(make=True) as keys:
        try:
            new = keys.create(
                project, Scope(scope), expires_days=expires_days, rate=rate, label=label
            )
        except ValueError as error:
            fail(str(error), status=WRONG_USAGE)
    if as_json:
        return echo_json({**_to_json(new.key), "token": new.token})
    typer.echo(
        "Keep this key safe, it is not shown again. Send it as `Authorization: Bearer ...`,",
        err=True,
    )
    typer.echo("or set DENSITYD_API_KEY for the client and the command line.", err=True)
    return typer.echo(new.token)


@app.command("list")
def list_open_keys(as_json: AsJson = False) -> None:
    """List all keys, expired and revoked ones too, without their secrets.

    Example: densityd keys list --json
    """
    with _open_keys() as keys:
        found = keys.list()
    if as_json:
        return echo_json([_to_json(key) for key in found])
    return echo_table(
        ("ID", "PROJECT", "LABEL", "SCOPE", "STATE", "RATE", "CREATED", "EXPIRES", "LAST USED"),
        ([getattr(key, name) for name in _SHOWN] for key in found),
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, key_...")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key for good; running services notice within two seconds.

    Example: densityd keys revoke key_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with _open_keys() as keys:
        # The whole token is accepted too.
        revoked = keys.revoke(key_id.partition(".")[0])
    if as_json:
        return echo_json(_to_json(revoked))
    return typer.echo(f"{revoked.id} {revoked.state}")


_SHOWN = (
    *("id", "project", "label", "scope", "state", "rate", "created_at", "expires_at"),
    "last_used_at",
)


@contextmanager
def _open_keys(*, make: bool = False) -> Iterator["Keys"]:
    """Yield the keys of the configured database.

    Args:
        make: Create the embedded database if there is none yet.

    Raises:
        typer.Exit: A setting is invalid, or the database cannot be used.
    """
    from models_store.database.database import Database  # noqa: PLC0415 - as above
    from models_store.keys import Keys  # noqa: PLC0415 - as above

    settings = read_settings(StoreSettings)
    new = make and settings.database_url is None and not settings.data_dir.exists()
    with failing():
        if make and settings.database_url is None:
            database = migrated_database(settings)
        else:
            database = Database(settings.resolved_database_url)
        try:
            database.check_revision()
            yield Keys(database)
            if new:
                note(f"made {settings.data_dir}: is it the service's DENSITYD_DATA_DIR?")
        finally:
            database.dispose()


def _to_json(key: "ApiKey") -> dict[str, object]:
    names = ("id", "project", "scope", "label", "state", "rate")
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    shown = {name: getattr(key, name) for name in names}
    return shown | {name: _format_time(getattr(key, name)) for name in times}


def _format_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
