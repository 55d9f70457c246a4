"""Turns what the drivers raise into the store's own errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeoutError

from models_store.errors import (
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    StorageFullError,
)

# SQLSTATE: serialization failure, deadlock. Running the transaction again may go well.
_RERUN = frozenset({"40001", "40P01"})
# Lock time-out, statement time-out.
_BUSY = _RERUN | {"55P03", "57014"}
_DISK_FULL = "53100"
# A write on a server that is read-only; one on a standby, which refuses to begin it.
_READ_ONLY = frozenset({"25006", "0A000"})


@contextmanager
def translated() -> Iterator[None]:
    """Raise the store's error instead of the driver's; faults of our own pass through."""
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseBusyError from error
    except DBAPIError as error:
        translation = _translate(error)
        if translation is None:
            raise
        raise translation from error


def may_rerun(error: DatabaseBusyError) -> bool:
    """Return whether a transaction collided with another one and may be run again at once."""
    return _sqlstate(error.__cause__) in _RERUN


def _translate(error: DBAPIError) -> DatabaseError | StorageFullError | None:
    if isinstance(error.orig, sqlite3.Error):
        return _translate_sqlite(error.orig)
    state = _sqlstate(error)
    if state in _BUSY:
        return DatabaseBusyError()
    if state == _DISK_FULL:
        return StorageFullError()
    if state in _READ_ONLY:
        return DatabaseUnavailableError("The database takes no writes; perhaps it is a standby.")
    lost = type(error).__name__ in ("OperationalError", "InterfaceError")
    # Without a statement no connection was made.
    if lost or error.statement is None or error.connection_invalidated:
        return DatabaseUnavailableError()
    return None


def told_by_client(error: DatabaseUnavailableError) -> str:
    """Return what the client of PostgreSQL says of a connection that is not made: for the operator, not for callers."""
    text = " ".join(str(getattr(error.__cause__, "orig", "")).split())
    if "unsupported startup parameter" in text:
        text += " - behind a pooler, add pgbouncer=true to the URL"
    return text


def _translate_sqlite(error: sqlite3.Error) -> DatabaseError | StorageFullError | None:
    # Such as SQLITE_BUSY or SQLITE_IOERR_WRITE; an error that we raise has none.
    name = getattr(error, "sqlite_errorname", "SQLITE_")
    # The first connection makes the index of the log, for which a full disk has no room.
    match "FULL" if name == "SQLITE_IOERR_SHMSIZE" else name.split("_")[1]:
        case "BUSY" | "LOCKED":
            return DatabaseBusyError()
        case "FULL":
            return StorageFullError()
        case "CORRUPT" | "NOTADB":
            return DatabaseUnavailableError("The database file is damaged.")
        case "CANTOPEN" | "IOERR" | "READONLY" | "PERM" | "AUTH" | "PROTOCOL":
            return DatabaseUnavailableError("The database file cannot be read or written.")
        case "":
            return DatabaseUnavailableError(f"The database file cannot be used: {error}.")
        case _:
            return None


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)
