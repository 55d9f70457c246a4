"""Engines for the two databases: how a connection is made, and what it is told first."""

import math
import sqlite3
import time
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
from tabular.json.pieces import load_in_pieces

Use = Literal["service", "migration"]

ANSWER_S = 1.0
"""Seconds within which a server tells that it has ended a statement that ran for too long."""

_POOLER = "pgbouncer"
"""Option of the URL: true where a pooler gives each transaction another connection."""
# Statements that were prepared on one connection are not there on the next.
_POOLED: dict[str, Any] = {"prepare_threshold": None}

_DRIVER_OPTIONS = frozenset(  # of Python's driver of SQLite
    {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements", "uri"}
)
_MIGRATION_WAIT_S = 60.0
# After a server was silent, until it is asked again: what was queued meanwhile does not wait for it in turn.
_ASK_AGAIN_S = 1.0
# For an answer, in a process that is to end.
_HURRIED_S = 2.0
# libpq counts whole seconds, and two at the least.
_LEAST_CONNECT_S = 2
_SUPPORTED = (
    "the database is sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME; in a password,"
    " write special characters as %XX"
)


class Patience:
    """Time for which a process waits for an answer of its database server.

    Args:
        limit_s: Seconds without a word after which the server counts as silent.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ask_again_s = _ASK_AGAIN_S
        self._silent_until = -math.inf

    def hurry(self) -> None:
        """Wait for a moment only, and never again for a server that was silent: the process is to end."""
        self._limit_s = min(self._limit_s, _HURRIED_S)
        self._ask_again_s = math.inf

    def is_over(self, waited_s: float, most_s: float) -> bool:
        """Return whether a server that has said nothing for a while is waited for no longer, and note that.

        Args:
            waited_s: Seconds since it said something.
            most_s: Seconds for which this answer is waited for, if that is less than usual.
        """
        if waited_s < min(self._limit_s, most_s):
            return False
        self.note_silence()
        return True

    def note_silence(self) -> None:
        """Note that the server has said nothing for too long."""
        self._silent_until = time.monotonic() + self._ask_again_s

    def is_silent(self) -> bool:
        """Return whether the server was silent a moment ago, and is not to be asked again yet."""
        return time.monotonic() < self._silent_until

    def connect_s(self, usual_s: int) -> int:
        """Return the seconds that a connect may take, which are fewer than usual in a hurry."""
        return int(min(usual_s, max(self._limit_s, _LEAST_CONNECT_S)))


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


def service_engine(
    url: URL, *, busy_timeout_s: float, pool_size: int, answer_s: float, patience: Patience
) -> Engine:
    """Return an engine with a pool, for many short transactions.

    Args:
        url: URL of the database.
        busy_timeout_s: Longest wait for another transaction, for a connection, and for one that is idle to answer.
        pool_size: Connections that stay open.
        answer_s: Longest run of a statement on a server.
        patience: Time for which a server is waited for.
    """
    file = sqlite_file(url)
    if file is not None:
        return _sqlite_engine(
            url, file, use="service", busy_timeout_s=busy_timeout_s, pool_size=pool_size
        )
    timeout_ms = int(busy_timeout_s * 1000)
    limits = {
        "lock_timeout": f"{timeout_ms}ms",
        "statement_timeout": f"{int(answer_s * 1000)}ms",
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
        isolation_level="READ COMMITTED",  # whatever the default of the role is: locks are built on it
        json_serializer=to_json,  # refuses NaN on both databases; SQLite alone would keep it
        json_deserializer=load_in_pieces,
        connect_args={
            "connect_timeout": max(_LEAST_CONNECT_S, int(busy_timeout_s)),
            "application_name": "densityd",
            **session,
            # A server that vanished is noticed within seconds, not after two hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 6 * timeout_ms,
        },
    )
    _bound(engine, patience, ping_s=busy_timeout_s)
    if pooled:
        event.listen(engine, "begin", partial(_limit, limits))
    return engine


def _bound(engine: Engine, patience: Patience, *, ping_s: float) -> None:
    """Have an engine of a server wait for it as long as there is patience."""
    from models_store.database.postgres import connect, pinging  # noqa: PLC0415 - slow, as above

    # Not by an event, for the reason that `beginning` gives.
    engine.dialect.connect = partial(connect, patience)  # type: ignore[method-assign, assignment]  # of the same use
    engine.dialect.do_ping = pinging(engine.dialect.do_ping, ping_s)  # type: ignore[method-assign, assignment]  # as above


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
    engine = create_engine(
        url.difference_update_query([_POOLER]),
        poolclass=NullPool,
        connect_args={"connect_timeout": 5, "application_name": "densityd migrate", **session},
    )
    from models_store.database.postgres import connect_long  # noqa: PLC0415 - slow, as above

    engine.dialect.connect = connect_long  # type: ignore[method-assign, assignment]  # as in `_bound`
    return engine


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
