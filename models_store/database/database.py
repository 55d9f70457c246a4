"""The database: one engine a process, short transactions, errors in the store's own words.

Transactions that lock rows for update take them in one order, so that none waits for another in a
circle: the record of an idempotency key; a parent, then its children; a dataset, a model, its versions;
webhooks; one project, and no other.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from models_store.database import changes
from models_store.database.clock import db_now
from models_store.database.driver_errors import may_rerun, translated
from models_store.database.engines import (
    parse_url,
    service_engine,
    sqlite_file,
    writer_of,
)
from models_store.database.revisions import (
    current_revision,
    head_revision,
    migrate,
    named,
)
from models_store.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    LimitsIgnoredError,
    SchemaMismatchError,
)

__all__ = ["Database", "db_now", "migrate", "reading", "writing"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Rows:
    """Base of what reads and writes rows of a database, in transactions that `reading` and `writing` begin."""

    def __init__(self, database: "Database") -> None:
        self.database = database


S = TypeVar("S", bound=Rows)

SERVICE_ANSWER_S = 10.0
"""Longest run of a statement of a process that serves; that of commands may be longer."""

_RETRIES = 3
_FIRST_RETRY_S = 0.02


class Database:
    """Transactions on SQLite (one file) or PostgreSQL; safe to share between threads.

    Every transaction is short: nothing waits for a network or a flow while one is open. Methods raise
    `DatabaseBusyError` if others held a lock for too long, `DatabaseUnavailableError` if the database cannot be
    used, and `StorageFullError` if its disk is full.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_timeout_s: float = 5.0,
        answer_s: float | None = None,
        pool_size: int = 5,
    ) -> None:
        """Prepare the engine; no connection is made yet.

        Args:
            url: ``sqlite:///file`` or ``postgresql://user:password@host/name``.
            busy_timeout_s: longest wait for another transaction, for a connection of the pool,
                and for the server to answer a connect.
            answer_s: longest run of a statement on a server. None: six times the longest wait.
            pool_size: connections that stay open; as many again may open for a moment.
        """
        self._url = parse_url(url)
        self._file = sqlite_file(self._url)
        self._engine = service_engine(
            self._url,
            busy_timeout_s=busy_timeout_s,
            pool_size=pool_size,
            answer_s=6 * busy_timeout_s if answer_s is None else answer_s,
        )
        self._busy_timeout_s = busy_timeout_s
        self._writers = threading.Lock()
        self._write, self._read = self._engine, self._engine
        # A read sees one moment of the database, on both of them.
        if self._file is None:
            self._read = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            self._write = writer_of(self._engine)

    @property
    def is_server(self) -> bool:
        """True for a server, which may be unavailable for a while; False for a file."""
        return self._file is None

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that may write; it commits at the end, or rolls back on an error."""
        with (
            self._turn(),
            translated(),
            Session(self._write, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session
            session.flush()
            change = changes.note(session)
        if change is not None:
            change.noted = True

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads; on SQLite it waits for no writer."""
        with translated(), Session(self._read, expire_on_commit=False) as session, session.begin():
            yield session

    def transact(
        self, work: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in a write transaction; again, a few times, when the database asks.

        The function takes the session first; it must be safe to run again after a rollback.
        """
        for attempt in range(_RETRIES):
            try:
                with self.write() as session:
                    return work(session, *args, **kwargs)
            except DatabaseBusyError as error:
                if not may_rerun(error):
                    raise
                log.info("transaction collided with another, attempt %d", attempt + 1)
                time.sleep(_FIRST_RETRY_S * 2**attempt)
        with self.write() as session:
            return work(session, *args, **kwargs)

    def ping(self) -> None:
        """Ask the database for a sign of life."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def now(self) -> datetime:
        """Return the time of the database's clock."""
        with self.read() as session:
            return session.scalars(select(db_now())).one()

    def try_write(self) -> None:
        """Commit a write that changes nothing, which tells whether others could be."""
        with self.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def revision(self) -> str | None:
        """Return the schema revision of the database, None if it has no schema yet."""
        if self._file is not None and not self._file.exists():
            return None
        with self.read() as session:
            return current_revision(session.connection())

    def check_schema(self) -> None:
        """Refuse a database that this code may not run on.

        Raises:
            SchemaMismatchError: its schema is older than this code.
        """
        found = self.revision()
        if found is None or found < head_revision():
            raise SchemaMismatchError(found=found, expected=head_revision())

    def check_revision(self) -> None:
        """Refuse a database that this code cannot use; called once, when a process starts.

        Raises:
            SchemaMismatchError: its schema is older than this code.
            LimitsIgnoredError: its server does not know how long a transaction may wait.
        """
        with named(self._url):
            self.check_schema()
            if self._file is not None:
                self._check_file()
            else:
                self._check_limits()

    def dispose(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let this process's writers to SQLite queue here.

        SQLite has its writers poll with growing pauses, so the unlucky one of many starves.
        """
        if self._file is None:
            yield
            return
        if not self._writers.acquire(timeout=self._busy_timeout_s):
            raise DatabaseBusyError
        try:
            yield
        finally:
            self._writers.release()

    def _check_limits(self) -> None:
        limit = text("SELECT setting FROM pg_settings WHERE name = 'lock_timeout'")
        with self.read() as session:
            if session.scalar(limit) != f"{self._busy_timeout_s * 1000:.0f}":
                raise LimitsIgnoredError

    def _check_file(self) -> None:
        with self.read() as session:
            verdict = session.execute(text("PRAGMA quick_check(1)")).scalar()
        if verdict != "ok":
            raise DatabaseUnavailableError("The database file is damaged.")


def reading(method: Callable[Concatenate[S, Session, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method in one transaction that only reads; it takes a session first, which its callers do not give."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.database.read() as session:
            return method(self, session, *args, **kwargs)

    return run


def writing(method: Callable[Concatenate[S, Session, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method in one transaction that may write, as `Database.transact` does."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.database.transact(partial(method, self), *args, **kwargs)

    return run
