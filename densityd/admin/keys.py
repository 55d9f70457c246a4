"""``densityd keys``: who gets in. Works on the database itself: whoever can do that, may."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from densityd.commands.console import (
    FAILED,
    WRONG_USAGE,
    AsJson,
    echo_facts,
    echo_json,
    echo_table,
    fail,
)
from models_store.files.private_files import create_private_files
from models_store.settings import StoreSettings, first_error

if TYPE_CHECKING:
    from models_store.keys import ApiKey, Keys

app = typer.Typer(
    help="API keys: who gets in, to which project, and may do what. These commands work on the"
    " database of DENSITYD_DATABASE_URL or DENSITYD_DATA_DIR, not on a running service.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def create(
    project: Annotated[str, typer.Option(help="What the key opens; any name.")] = "default",
    scope: Annotated[
        Literal["read", "write", "admin"],
        typer.Option(
            help="read: look and score; write: also upload, train, delete; admin: also metrics."
        ),
    ] = "read",
    expires_days: Annotated[
        float | None, typer.Option(min=0.001, help="How long it opens.", show_default="for good")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Requests a second.", show_default="DENSITYD_RATE_LIMIT, or any number"
        ),
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Make a key and print it: the only time that it is shown.

    From the first key on, the service serves nobody without one.

    Examples: densityd keys create --project fraud --scope write;
    densityd keys create --scope read --expires-days 90 --rate 20
    """
    from models_store.keys import Scope  # noqa: PLC0415 - SQLAlchemy takes a third of a second

    with _keys(make=True) as keys:
        try:
            new = keys.create(project, Scope(scope), expires_days=expires_days, rate=rate)
        except ValueError as error:
            fail(str(error), status=WRONG_USAGE)
    if as_json:
        return echo_json({**_facts(new.key), "token": new.token})
    typer.echo(
        "Keep this safe, it is not shown again. Send it as `Authorization: Bearer ...`,", err=True
    )
    typer.echo("or give it to the client and the command line as DENSITYD_API_KEY.", err=True)
    return typer.echo(new.token)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:  # noqa: FBT002 - a flag of the command line
    """List all keys, without their secrets; those that open nothing any more, too.

    Example: densityd keys list --json
    """
    with _keys() as keys:
        found = keys.list()
    if as_json:
        return echo_json([_facts(key) for key in found])
    return echo_table(
        ("ID", "PROJECT", "SCOPE", "STATE", "RATE", "CREATED", "EXPIRES"),
        [
            (key.id, key.project, key.scope, _state(key), key.rate, key.created_at, key.expires_at)
            for key in found
        ],
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Of the key: key_...")],
    as_json: AsJson = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """End a key for good; running services notice within a second or two.

    Example: densityd keys revoke key_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with _keys() as keys:
        # Whoever pastes the whole token means the key.
        revoked = keys.revoke(key_id.partition(".")[0])
    if as_json:
        return echo_json(_facts(revoked))
    return echo_facts([("id", revoked.id), ("state", _state(revoked))])


@contextmanager
def _keys(*, make: bool = False) -> Iterator["Keys"]:
    """The keys of the configured database.

    Args:
        make: make the embedded database, if there is none yet.
    """
    from models_store.database.database import Database, migrate  # noqa: PLC0415 - as above
    from models_store.errors import StoreError  # noqa: PLC0415 - as above
    from models_store.keys import Keys  # noqa: PLC0415 - as above

    try:
        settings = StoreSettings()
    except ValidationError as error:
        fail(first_error(error), status=WRONG_USAGE)
    create_private_files()
    try:
        if make and settings.database_url is None:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            migrate(settings.resolved_database_url)
        database = Database(settings.resolved_database_url)
        try:
            database.check_revision()
            yield Keys(database)
        finally:
            database.dispose()
    except (StoreError, OSError) as error:
        fail(str(error), status=FAILED)


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "usable" if key.usable else "expired"


def _facts(key: "ApiKey") -> dict[str, object]:
    return {
        "id": key.id,
        "project": key.project,
        "scope": key.scope.value,
        "state": _state(key),
        "rate": key.rate,
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()
