"""Engines for the two databases: how a connection is made, and what it is told first."""

import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection, QueuePool

from models_store.database.ballast import Ballast
from models_store.database.base import to_json
from models_store.database.driver_errors import NO_ROOM_FOR_INDEX
from tables.json.pieces import load_in_pieces

Use = Literal["service", "migration"]

_POOLER = "pgbouncer"
"""Option of the URL: true where a pooler gives each transaction another connection."""
# Statements that were prepared on one connection are not there on the next.
_POOLED: dict[str, Any] = {"prepare_threshold": None}

_DRIVER_OPTIONS = frozenset(  # of Python's driver of SQLite
    {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
)
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
            _check_sqlite_options(parsed)
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql" | "postgres":
            _check_options(parsed)
            return parsed.set(drivername="postgresql+psycopg")
        case _:
            raise ValueError(_SUPPORTED)


def _check_sqlite_options(url: URL) -> None:
    """Refuse options that would be ignored: SQLite's own, such as `mode`, without `uri=true`."""
    for name in url.query:
        if url.query.get("uri") != "true" and name not in _DRIVER_OPTIONS:
            raise ValueError(
                f"the database's URL has the option {name[:40]}, which SQLite takes with uri=true alone"
            )


def _check_options(url: URL) -> None:
    """Refuse options after the question mark that libpq does not know."""
    from psycopg import ProgrammingError  # noqa: PLC0415 - slow, and SQLite needs none of it
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - as above

    for name, value in url.query.items():
        if name == _POOLER and value in ("true", "false"):
            continue
        try:
            make_conninfo("", **{name: str(value)})
        except ProgrammingError:
            raise ValueError(
                f"the database's URL has the option {name[:40]}, which PostgreSQL's client does not"
                f" know with this value; {_POOLER} is true or false"
            ) from None


def sqlite_file(url: URL) -> Path | None:
    """Return the file of a SQLite database, None for PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        return None
    return Path(url.database or "").absolute()


def service_engine(url: URL, *, busy_timeout_s: float, pool_size: int) -> Engine:
    """Return an engine with a pool, for many short transactions."""
    file = sqlite_file(url)
    if file is not None:
        return _sqlite_engine(
            url, file, use="service", busy_timeout_s=busy_timeout_s, pool_size=pool_size
        )
    timeout_ms = int(busy_timeout_s * 1000)
    limits = {
        "lock_timeout": f"{timeout_ms}ms",
        "statement_timeout": f"{6 * timeout_ms}ms",
        "idle_in_transaction_session_timeout": f"{6 * timeout_ms}ms",
    }
    pooled = _is_pooled(url)
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    session = _POOLED if pooled else {"options": f"-c timezone=UTC {options}"}
    engine = create_engine(
        url.difference_update_query([_POOLER]),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=busy_timeout_s,
        pool_pre_ping=True,
        json_serializer=to_json,  # refuses NaN on both databases; SQLite alone would keep it
        json_deserializer=load_in_pieces,
        connect_args={
            # libpq counts whole seconds, and two at the least.
            "connect_timeout": max(2, int(busy_timeout_s)),
            "application_name": "densityd",
            **session,
            # A server that vanished is noticed within seconds, not after two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 6 * timeout_ms,
        },
    )
    if pooled:
        event.listen(engine, "begin", partial(_limit, limits))
    return engine


def _is_pooled(url: URL) -> bool:
    return url.query.get(_POOLER) == "true"


def _limit(limits: Mapping[str, str], connection: Connection) -> None:
    """Set limits for one transaction: behind a pooler the next one has another connection."""
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())
    connection.exec_driver_sql(f"SELECT {settings}")


def migration_engine(url: URL) -> Engine:
    """Return an engine for one long transaction that changes the schema."""
    file = sqlite_file(url)
    if file is not None:
        return _sqlite_engine(
            url, file, use="migration", busy_timeout_s=_MIGRATION_WAIT_S, pool_size=1
        )
    session = _POOLED if _is_pooled(url) else {}
    return create_engine(
        url.difference_update_query([_POOLER]),
        poolclass=NullPool,
        connect_args={"connect_timeout": 5, "application_name": "densityd migrate", **session},
    )


def _sqlite_engine(
    url: URL, file: Path, *, use: Use, busy_timeout_s: float, pool_size: int
) -> Engine:
    # Only a migration makes a file: to the service, a missing one is an error.
    mode = "rwc" if use == "migration" else "rw"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(file))}?mode={mode}",
            uri=True,
            timeout=busy_timeout_s,
            # The module begins no transactions of its own: see `beginning`.
            isolation_level=None,
            check_same_thread=False,
        )

    def prepare(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
        try:
            journal = _keep_log(connection)
        except sqlite3.OperationalError as error:
            # The first connection makes the index of the log, for which a full disk has no room.
            if error.sqlite_errorname != NO_ROOM_FOR_INDEX or not Ballast(file.parent, 0).release():
                raise
            journal = _keep_log(connection)
        if journal != "wal":
            raise sqlite3.OperationalError("its file system keeps no write-ahead log")
        # FULL: a commit that was answered survives a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        # Off while a migration rebuilds tables; it checks the keys at its end.
        connection.execute(f"PRAGMA foreign_keys={'OFF' if use == 'migration' else 'ON'}")

    engine = create_engine(
        url,
        creator=connect,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=busy_timeout_s,
        json_serializer=to_json,  # refuses NaN on both databases; SQLite alone would keep it
        json_deserializer=load_in_pieces,
    )
    event.listen(engine, "connect", prepare)
    return beginning(engine, "BEGIN")


def _keep_log(connection: sqlite3.Connection) -> str:
    (journal,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    return str(journal)


def writer_of(engine: Engine) -> Engine:
    """Return an engine on the same connections of SQLite, whose transactions may write.

    They take the write lock first: one that grew out of a read could only fail.
    """
    writer = create_engine(
        engine.url,
        pool=engine.pool,
        json_serializer=to_json,
        json_deserializer=load_in_pieces,
    )
    return beginning(writer, "BEGIN IMMEDIATE")


def beginning(engine: Engine, statement: str) -> Engine:
    """Have an engine of SQLite begin each transaction with a statement.

    Not by an event: an engine that has any takes the slow way through every statement.
    """

    def begin(dbapi_connection: PoolProxiedConnection) -> None:
        driver: sqlite3.Connection = dbapi_connection.driver_connection  # type: ignore[assignment]  # that of SQLite
        driver.execute(statement)

    engine.dialect.do_begin = begin  # type: ignore[method-assign]  # the module begins none itself
    return engine
