"""The schema's revisions: which one this code needs, and how a database gets there.

A revision is named like its file, which begins with its date, so that names sort. A database of a newer revision than this
code knows is used as it is: a release adds what it needs, and drops nothing that the release before it uses.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

from sqlalchemy import URL, Connection, inspect, text

from models_store.database.driver_errors import told_by_client, translated
from models_store.database.engines import migration_engine, parse_url, sqlite_file, writer_of
from models_store.errors import DatabaseUnavailableError, SchemaMismatchError

log = logging.getLogger(__name__)

# Any number that no other user of the same PostgreSQL takes: "densityd" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"densityd", "big")


@cache
def _revisions() -> list[str]:
    names = (file.name for file in (files("migrations") / "versions").iterdir())
    return sorted(name.removesuffix(".py") for name in names if name[0].isdigit())


def head_revision() -> str:
    """Return the newest revision: the one that this code needs."""
    return _revisions()[-1]


def current_revision(connection: Connection) -> str | None:
    """Return the revision that a database is at; None if it has no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def migrate(url: str) -> None:
    """Bring the database of a URL to the newest revision, making a SQLite file if there is none.

    All of it is one transaction. Of two processes that start it at once, one waits for the other
    and then finds nothing to do.

    Raises:
        ValueError: the URL names no database that is supported.
        SchemaMismatchError: the database is at a revision that only another version of the code knows.
        DatabaseError: the database cannot be used; the message names it.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    engine = migration_engine(parsed)
    try:
        with named(parsed), translated():
            if file is None:
                with engine.begin() as connection:
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": _ADVISORY_LOCK})
                    # Whoever comes after a change of a table waits for it, as it does for a long read.
                    connection.execute(text("SET LOCAL lock_timeout = '60s'"))
                    _upgrade(connection)
            else:
                with _only_process(file), writer_of(engine).begin() as connection:
                    _upgrade(connection)
                    _check_foreign_keys(connection)
    finally:
        engine.dispose()


@contextmanager
def named(url: URL) -> Iterator[None]:
    """Add the database's name, without its secrets, to an error that a person reads when a process starts."""
    try:
        yield
    except DatabaseUnavailableError as error:
        secrets = [name for name in url.query if "password" in name]
        shown = sqlite_file(url) or url.difference_update_query(secrets)
        told = "" if sqlite_file(url) else f": {told_by_client(error)}"
        raise DatabaseUnavailableError(f"{error.detail} ({shown}{told})") from error


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
            # SQLite would take it for a new database and continue without the rows it once held.
            raise DatabaseUnavailableError(
                "The database file is empty; restore it, or remove it to start anew."
            )
        yield


def _upgrade(connection: Connection) -> None:
    found = current_revision(connection)
    if found is not None and found > head_revision():
        log.info("the database is at the newer revision %s, which this version runs on", found)
        return
    if found is not None and found not in _revisions():
        raise SchemaMismatchError(found=found, expected=head_revision(), has_steps=False)
    # Late: what serves has no use for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    # The scripts lie beside their package, wherever that is installed; ConfigParser reads %.
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    command.upgrade(config, "head")


def _check_foreign_keys(connection: Connection) -> None:
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError("the migration broke a foreign key; nothing was changed")
