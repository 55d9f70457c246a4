"""Engines for the two databases: how a connection is made, and what it is told first."""

import json
import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

Use = Literal["service", "migration"]

_POOLER = "pgbouncer"
"""Option of the URL: true where a pooler gives each transaction another connection."""
_MIGRATION_WAIT_S = 60.0
_SUPPORTED = (
    "the database is sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME; in a password,"
    " write special characters as %XX"
)


def parse_url(url: str) -> URL:
    """Return the URL with the one driver that is used for its database.

    Raises:
        ValueError: it names neither a SQLite file nor a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its words may hold the password
        raise ValueError(_SUPPORTED) from None
    match parsed.get_backend_name():
        case "sqlite" if parsed.database not in (None, "", ":memory:"):
            if parsed.query:
                raise ValueError(
                    f"a SQLite URL has no options: remove ?{next(iter(parsed.query))[:40]}=..."
                )
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise ValueError(_SUPPORTED)


def sqlite_file(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        return None
    return Path(url.database or "").absolute()


def service_engine(url: URL, *, busy_timeout_s: float, pool_size: int, answer_s: float) -> Engine:
    """Return an engine with a pool, for many short transactions.

    Args:
        busy_timeout_s: Longest wait for another transaction, for a connection, and for a server to accept one.
        pool_size: Connections that stay open; as many again may open for a moment.
        answer_s: Longest run of a statement on a server.
    """
    pool = {"pool_size": pool_size, "max_overflow": pool_size, "pool_timeout": busy_timeout_s}
    file = sqlite_file(url)
    if file is not None:
        return _sqlite_engine(url, file, use="service", busy_timeout_s=busy_timeout_s, **pool)
    timeout_ms = int(busy_timeout_s * 1000)
    limits = {
        "lock_timeout": f"{timeout_ms}ms",
        "statement_timeout": f"{int(answer_s * 1000)}ms",
        "idle_in_transaction_session_timeout": f"{6 * timeout_ms}ms",
    }
    session: dict[str, Any] = {}
    if not _is_pooled(url):
        options = " ".join(f"-c {name}={value}" for name, value in limits.items())
        session["options"] = f"-c timezone=UTC {options}"
    engine = _postgresql_engine(
        url,
        connect_timeout=max(2, int(busy_timeout_s)),  # libpq's least
        session={
            **session,
            # A server that vanished is noticed within seconds, not after two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 6 * timeout_ms,
        },
        **pool,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",  # whatever the default of the role is: locks are built on it
    )
    if _is_pooled(url):
        event.listen(engine, "begin", partial(_limit, limits))
    return engine


def migration_engine(url: URL) -> Engine:
    """Return an engine for one long transaction that changes the schema."""
    file = sqlite_file(url)
    if file is not None:
        return _sqlite_engine(url, file, use="migration", busy_timeout_s=_MIGRATION_WAIT_S)
    return _postgresql_engine(url, connect_timeout=5, session={}, poolclass=NullPool)


def _postgresql_engine(
    url: URL,
    *,
    connect_timeout: int,
    session: Mapping[str, Any],
    **options: Any,  # noqa: ANN401 - of the engine
) -> Engine:
    # Behind a pooler, statements that were prepared on one connection are not there on the next.
    pooled = {"prepare_threshold": None} if _is_pooled(url) else {}
    told = {"connect_timeout": connect_timeout, "application_name": "densityd"}
    return create_engine(
        url.difference_update_query([_POOLER]),
        json_serializer=_to_json,
        connect_args={**told, **pooled, **session},
        **options,
    )


def _is_pooled(url: URL) -> bool:
    return url.query.get(_POOLER) == "true"


def _limit(limits: Mapping[str, str], connection: Connection) -> None:
    """Set limits for one transaction: behind a pooler the next one has another connection."""
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())
    connection.exec_driver_sql(f"SELECT {settings}")


def writer_of(engine: Engine) -> Engine:
    """Return an engine on the same connections of SQLite, whose transactions may write.

    They take the write lock first: one that grew out of a read could only fail.
    """
    return engine.execution_options(**{_WRITES: True})


_WRITES = "densityd_writes"


def _sqlite_engine(url: URL, file: Path, *, use: Use, busy_timeout_s: float, **pool: Any) -> Engine:  # noqa: ANN401 - options of the pool
    # Only a migration makes a file: to the service, a missing one is an error.
    mode = "rwc" if use == "migration" else "rw"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(file))}?mode={mode}",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,  # the module begins no transactions of its own: `_begin` does
            check_same_thread=False,
        )

    def prepare(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
        (journal,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if journal != "wal":
            raise sqlite3.OperationalError("its file system keeps no write-ahead log")
        # FULL: a commit that was answered survives a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        # Off while a migration rebuilds tables; it checks the keys at its end.
        connection.execute(f"PRAGMA foreign_keys={'OFF' if use == 'migration' else 'ON'}")

    engine = create_engine(
        url, creator=connect, poolclass=QueuePool, json_serializer=_to_json, **pool
    )
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# Refuses NaN on both databases; SQLite alone would keep it.
_to_json = partial(json.dumps, allow_nan=False)
