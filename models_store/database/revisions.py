"""The schema's revisions: which ones this code runs on, and how a database gets there.

A revision says which code may run on it (``compatible_with``, the head of the oldest such code), and
the database keeps that beside the revision it is at. So code that does not know a revision yet can
tell whether it fits.
"""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TextIO

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, inspect, text

from models_store.database.driver_errors import translated
from models_store.database.engines import migration_engine, parse_url, sqlite_file, writer_of
from models_store.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    RevisionUnknownError,
    SchemaMismatchError,
)

log = logging.getLogger(__name__)

# A change of a table waits for those who use it, and all who come later wait for the change.
_LOCK_TIMEOUT_S = 3.0
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 2.0
# One that rewrites the tables of a large database takes minutes.
_OTHER_MIGRATION_S = 900.0
_OTHER_PAUSE_S = 0.1
_TELL_S = 3.0
# Any number that no other user of the same PostgreSQL takes: "densityd" in ASCII.
_ADVISORY_LOCK = int.from_bytes(b"densityd", "big")


@cache
def head_revision() -> str:
    """Return the newest revision: the one that this code needs."""
    head = _scripts().get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations")
    return head


def known_revisions() -> frozenset[str]:
    """Return all revisions that this code has the migrations of."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def check_fits(connection: Connection) -> None:
    """Refuse a database that this code may not run on.

    It fits if it is at the revision that this code needs, or at a newer one whose migrations left
    everything in place that this code uses.

    Raises:
        SchemaMismatchError: The schema is older than this code, or too new for it.
    """
    found = current_revision(connection)
    if found != head_revision() and not _is_newer_but_fits(connection, found):
        raise SchemaMismatchError(found=found, expected=head_revision())


def current_revision(connection: Connection) -> str | None:
    """Return the revision that a database is at; None if it has no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _is_newer_but_fits(connection: Connection, found: str | None) -> bool:
    known = known_revisions()
    if found is None or found in known or not _keeps_compatibility(connection):
        return False
    return connection.scalar(text("SELECT compatible_with FROM alembic_version")) in known


def _keeps_compatibility(connection: Connection) -> bool:
    columns = inspect(connection).get_columns("alembic_version")
    return any(column["name"] == "compatible_with" for column in columns)


def migrate(url: str, *, to: str | None = None) -> None:
    """Bring a database to a revision, making a SQLite file if there is none.

    All of it is one transaction. Of two processes that start it at once, one waits for the other, a
    quarter of an hour at most, and then finds nothing to do. A statement may take as long as it needs while
    the server answers others.

    Args:
        url: URL of the database.
        to: Revision, which may be an older one: what newer ones have added is then dropped. None:
            the newest, unless the database is at a newer one that this code may run on.

    Raises:
        ValueError: the URL names no database that is supported.
        RevisionUnknownError: this code has no such revision.
        SchemaMismatchError: the database was made by a newer version of the code.
        DatabaseError: the database cannot be used; the message names it.
    """
    if to is not None and to not in known_revisions():
        raise RevisionUnknownError(to)
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    engine = migration_engine(parsed)
    try:
        with named(parsed), translated():
            if file is None:
                _change_server(engine, to)
            else:
                with (
                    _only_process(file),
                    writer_of(engine).begin() as connection,
                ):
                    _change(connection, to)
                    _check_foreign_keys(connection)
    finally:
        engine.dispose()


def _change_server(engine: Engine, to: str | None) -> None:
    """Change the schema; let others pass, and try again, while they hold a table for long."""
    for last in (*[False] * (_LOCK_TRIES - 1), True):
        try:
            with translated(), engine.begin() as connection:
                _outwait(partial(_lock_server, connection))
                limit = f"{_LOCK_TIMEOUT_S * 1000:.0f}ms"
                connection.execute(
                    text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": limit}
                )
                _change(connection, to)
        except DatabaseBusyError:
            if last:
                raise
            log.warning("a table is in use; the migration is tried again in %g s", _LOCK_PAUSE_S)
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def _lock_server(connection: Connection) -> bool:
    lock = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(connection.scalar(lock, {"key": _ADVISORY_LOCK}))


def _outwait(lock: Callable[[], bool]) -> None:
    """Wait until no other migration of the same database runs.

    Args:
        lock: Function that keeps others out, and returns whether it could.

    Raises:
        DatabaseUnavailableError: Another one takes too long.
    """
    began = time.monotonic()
    told = False
    while not lock():
        waited_s = time.monotonic() - began
        if waited_s >= _OTHER_MIGRATION_S:
            raise DatabaseUnavailableError(
                f"Another migration of the database has not ended for {_OTHER_MIGRATION_S:g} s."
                " Look for its process; end it if it hangs, which changes nothing, and migrate again."
            )
        if waited_s >= _TELL_S and not told:
            log.warning("another migration of the database runs; it is waited for")
            told = True
        time.sleep(_OTHER_PAUSE_S)


@contextmanager
def named(url: URL) -> Iterator[None]:
    """Add the database's name, without its secrets, to an error that a person reads when a process starts."""
    try:
        yield
    except DatabaseUnavailableError as error:
        secrets = [name for name in url.query if "password" in name]
        shown = sqlite_file(url) or url.difference_update_query(secrets)
        raise DatabaseUnavailableError(f"{error.detail} ({shown})") from error


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
        _outwait(partial(_lock_file, handle))
        if file.exists() and file.stat().st_size == 0:
            # SQLite would take it for a new database and continue without the rows it once held.
            raise DatabaseUnavailableError(
                "The database file is empty; restore it, or remove it to start anew."
            )
        yield


def _lock_file(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _change(connection: Connection, to: str | None) -> None:
    found = current_revision(connection)
    if found is not None and found not in known_revisions():
        if to is not None or not _is_newer_but_fits(connection, found):
            raise SchemaMismatchError(found=found, expected=head_revision())
        log.info("the database is at the newer revision %s, which this version runs on", found)
        return
    target = to or head_revision()
    config = _config()
    config.attributes["connection"] = connection
    if found is None or found in _ancestors(target):
        command.upgrade(config, target)
    else:
        command.downgrade(config, target)
    if _keeps_compatibility(connection):
        connection.execute(
            text("UPDATE alembic_version SET compatible_with = :oldest"),
            {"oldest": oldest_code(target)},
        )


def oldest_code(revision: str) -> str:
    """Return the head of the oldest code that may run on a database at a revision.

    The migration says so; one that does not say it, leaves no older code running.
    """
    script = _scripts().get_revision(revision)
    if script is None:  # pragma: no cover - callers name those of this code
        raise RevisionUnknownError(revision)
    return str(getattr(script.module, "compatible_with", revision))


def _ancestors(revision: str) -> frozenset[str]:
    return frozenset(
        script.revision for script in _scripts().walk_revisions(base="base", head=revision)
    )


def _check_foreign_keys(connection: Connection) -> None:
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError("the migration broke a foreign key; nothing was changed")


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # The scripts lie beside their package, wherever that is installed; ConfigParser reads %.
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    return config
