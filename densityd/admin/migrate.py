"""``densityd migrate``: the schema of the database, and the way from another installation."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

import typer

from densityd.admin.copying import echo_copied, told
from densityd.admin.installation import failing, read_settings
from densityd.service.data_dir import lock_data_dir
from densityd.terminal.console import WRONG_USAGE, fail, note
from models_store.files.private_files import close_to_others, create_private_files
from models_store.files.store_address import refuse_store_url
from models_store.settings import StoreSettings

if TYPE_CHECKING:
    from models_store.database.database import Database

_FILE = "densityd.sqlite3"
_SQLITE = "sqlite:///"


def migrate(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER|URL",
            help="Data directory, or URL of a database, whose rows and files are copied into the"
            " empty database and store of the settings. Stop its service first.",
        ),
    ] = None,
    from_store: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Store of that installation; DENSITYD_STORE_ENDPOINT is for both.",
            show_default="blobs/ beside its SQLite file",
        ),
    ] = None,
) -> None:
    """Migrate the database to this version's schema; safe to run twice, even at the same time.

    Make a back-up first: there is no way back. With --from, rows and files of another installation are
    copied, and counted and hashed at both ends.

    Examples: DENSITYD_DATABASE_URL=postgresql+psycopg://user:secret@host/densityd densityd migrate;
    DENSITYD_DATABASE_URL=... DENSITYD_STORE_URL=s3://bucket densityd migrate --from ./data
    """
    from models_store.keys import make_first_key  # noqa: PLC0415 - help is printed without it

    settings = read_settings()
    create_private_files()
    with failing():
        database = migrated_database(settings)
        try:
            if source is None:
                typer.echo(f"The database is at revision {database.revision()}.")
                _adopt(settings, database)
                if settings.first_key_file is not None:
                    make_first_key(database, settings.first_key_file)
            else:
                _copy_from(source, from_store, settings, database)
        finally:
            database.dispose()


def migrated_database(settings: StoreSettings) -> "Database":
    """Open the database of the settings after migrating it, and making a file if there is none.

    Raises:
        DatabaseError: It cannot be used.
        OSError: The data directory cannot be written.
    """
    from models_store.database.database import Database, migrate as run  # noqa: PLC0415 - help is printed without it

    if settings.database_url is None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (warning := close_to_others(settings.data_dir)) is not None:
            note(f"densityd: {warning}")
    run(settings.resolved_database_url)
    return Database(settings.resolved_database_url)


def _adopt(settings: StoreSettings, database: "Database") -> None:
    from models_store.files.blobs import Blobs  # noqa: PLC0415
    from models_store.files.store_identity import adopt  # noqa: PLC0415 - as above

    adopt(database, Blobs(settings.store_address))


def _copy_from(
    source: str, from_store: str | None, settings: StoreSettings, target: "Database"
) -> None:
    from models_store.copies.moving import move  # noqa: PLC0415 - as above
    from models_store.files.blobs import Blobs  # noqa: PLC0415

    file = _sqlite_file(source)
    store = from_store or (None if file is None else str(file.parent / "blobs"))
    if store is None:
        fail("a database server as --from needs --from-store", status=WRONG_USAGE)
    store = store if "://" in store else str(Path(store).absolute())
    if (refusal := refuse_store_url(store)) is not None:
        fail(f"--from-store: {refusal}", status=WRONG_USAGE)
    address = settings.store_address
    files = Blobs(address.model_copy(update={"url": store}))
    with _open_source(source, file) as database:
        copied = move(database, files, target, Blobs(address), tell=told())
    echo_copied(copied, f"Copied {source}")


@contextmanager
def _open_source(source: str, file: Path | None) -> "Iterator[Database]":
    from models_store.copies.backup import open_copy  # noqa: PLC0415 - as above
    from models_store.database.database import Database  # noqa: PLC0415

    if file is None:
        database = Database(source)
        try:
            database.check_revision()
            yield database
        finally:
            database.dispose()
        return
    with ExitStack() as stack:
        if (file.parent / "densityd.lock").exists():
            stack.enter_context(lock_data_dir(file.parent, address="densityd migrate --from"))
        yield stack.enter_context(open_copy(file))


def _sqlite_file(source: str) -> Path | None:
    """Return the SQLite file of an installation; None: it has a database server."""
    if source.startswith(_SQLITE):
        return Path(unquote(source.removeprefix(_SQLITE))).absolute()
    return None if "://" in source else Path(source).absolute() / _FILE
