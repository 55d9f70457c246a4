"""The schema's revisions: which one this code needs, and how a database gets there."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from models_store.database.driver_errors import translated
from models_store.database.engines import migration_engine, parse_url, sqlite_file
from models_store.errors import DatabaseUnavailableError, SchemaMismatchError

# Any number that no other user of the same PostgreSQL takes: "densityd" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"densityd", "big")


@cache
def head_revision() -> str:
    """Return the newest revision: the one that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations")
    return head


def migrate(url: str) -> None:
    """Bring a database to the newest revision, making a SQLite file if there is none.

    All of it is one transaction. Of two processes that start it at once, one waits for the other
    and then finds nothing to do.

    Raises:
        ValueError: the URL names no database that is supported.
        SchemaMismatchError: the database was made by a newer version of the code.
        DatabaseError: the database cannot be used; the message names it.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    engine = migration_engine(parsed)
    try:
        with named(str(file or parsed)), translated():
            if file is None:
                with engine.begin() as connection:
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK}
                    )
                    _upgrade(connection)
            else:
                with (
                    _only_process(file),
                    engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as connection,
                ):
                    _upgrade(connection)
                    _check_foreign_keys(connection)
    finally:
        engine.dispose()


@contextmanager
def named(database: str) -> Iterator[None]:
    """Add the database's name to an error that a person reads when a process starts."""
    try:
        yield
    except DatabaseUnavailableError as error:
        raise DatabaseUnavailableError(f"{error.detail} ({database})") from error


@contextmanager
def _only_process(file: Path) -> Iterator[None]:
    """Keep other migrations of the same file out, from before it exists."""
    lock = file.with_name(f"{file.name}.migrate.lock")
    try:
        handle = lock.open("w")
    except OSError as error:
        raise DatabaseUnavailableError(
            f"The folder of the database cannot be written: {error.strerror}."
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if file.exists() and file.stat().st_size == 0:
            # SQLite would take it for a new database and go on without the rows it once held.
            raise DatabaseUnavailableError(
                "The database file is empty; restore it, or remove it to start anew."
            )
        yield


def _upgrade(connection: Connection) -> None:
    config = _config()
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatchError(found=found, expected=head_revision())
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError("the migration broke a foreign key; nothing was changed")


def _config() -> Config:
    config = Config()
    # The scripts lie beside their package, wherever that is installed; ConfigParser reads %.
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    return config
