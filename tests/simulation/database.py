"""One SQLite database in memory, whose clock is the simulation's, and each process's way to it."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import SelectLabelStyle, StaticPool, create_engine
from sqlalchemy.orm import Session

from models_store.database.base import Base, to_json
from models_store.database.database import Database, _Writing, migrate
from models_store.database.driver_errors import translated
from models_store.database.engines import Patience, beginning, writer_of
from models_store.errors import CommitLostError, DatabaseBusyError, DatabaseUnavailableError
from tests.simulation.kernel import Kernel
from tests.simulation.modules import database_time
from tests.simulation.plan import Effect
from tests.simulation.statements import Statements, transaction

P = ParamSpec("P")
T = TypeVar("T")

_STATEMENTS = 1000
"""Statements that stay prepared, more than there are."""

# Part of the key of every SELECT, which is looked up at each run; that of an enumeration is Python.
SelectLabelStyle.__hash__ = object.__hash__  # type: ignore[method-assign]


class SharedDatabase:
    """The rows; one for all schedules, so that statements are compiled once."""

    def __init__(self, fill: Callable[[Database], None]) -> None:
        """Make the tables as a migration makes them, and the rows that every schedule begins with."""
        self.rows = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
        )
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/densityd.sqlite3"
            migrate(url)
            database = Database(url)
            fill(database)
            database.dispose()
            with closing(sqlite3.connect(f"{folder}/densityd.sqlite3")) as made:
                made.backup(self.rows)
        self._first_rows = {
            table.name: self.rows.execute(f"SELECT * FROM {table.name}").fetchall()  # noqa: S608 - names of tables
            for table in Base.metadata.sorted_tables
        }
        self._kernel = Kernel(0)
        self.rows.execute("PRAGMA foreign_keys=ON")
        # The one place where the database's clock is replaced: `models_store.database.clock` asks this.
        self.rows.create_function(
            "strftime",
            3,
            lambda _form, _now, offset: database_time(self._kernel, offset),
            deterministic=True,  # within a statement, as that of SQLite
        )
        engine = create_engine(
            "sqlite://",
            creator=lambda: self.rows,
            poolclass=StaticPool,
            json_serializer=to_json,
        )
        # Connections, for one transaction after the other, and not engines, which check one out for each.
        self.reader, self.writer = (
            Statements(one.connect(), self.rows)
            for one in (beginning(engine, "BEGIN"), writer_of(engine))
        )

    def reset(self, kernel: Kernel) -> None:
        """Forget what happened, and follow another clock."""
        self._kernel = kernel
        # Not by a copy of a database: SQLite would read the schema and prepare all statements again.
        self.rows.execute("BEGIN")
        for name in reversed(self._first_rows):
            self.rows.execute(f"DELETE FROM {name}")  # noqa: S608 - as above
        for name, rows in self._first_rows.items():
            for row in rows:
                values = ", ".join("?" * len(row))
                self.rows.execute(f"INSERT INTO {name} VALUES ({values})", row)  # noqa: S608 - as above
        self.rows.execute("COMMIT")

    def close(self) -> None:
        """Give the memory back."""
        self.reader.connection.close()
        self.writer.connection.close()
        self.rows.close()


class Transactions:
    """What the world says to a transaction before and after it; see `World`."""

    def before(self, call: str) -> Effect | None:
        """Wait for its turn; what happens to it.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        raise NotImplementedError

    def after(self, call: str) -> None:
        """Look at what was committed."""
        raise NotImplementedError

    def die(self) -> None:
        """End the process that runs."""
        raise NotImplementedError


class SimulatedDatabase(Database):
    """The real transactions, with faults before, in and after them."""

    def __init__(self, shared: SharedDatabase, world: Transactions) -> None:
        # As with a server, which may be away; nothing here is a file.
        self._file = None
        self._reader, self._writer = shared.reader, shared.writer
        self._patience = Patience(0.0)  # nothing here is waited for
        self._world = world
        self._call = ""

    def transact(
        self, work: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function in a write transaction."""

        def named(session: Session) -> T:
            return work(session, *args, **kwargs)

        # A method of the store is a partial of its object.
        name = getattr(work, "func", work).__name__.strip("_")
        return Database.transact(_Named(self, name), named)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads."""
        if self._world.before("read") is Effect.FAILS:
            raise DatabaseUnavailableError
        with translated(), transaction(Session, self._reader) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that may write."""
        effect = self._world.before(self._call)
        if effect is Effect.FAILS:
            raise DatabaseUnavailableError
        if effect is Effect.COLLIDES:
            raise _collision()
        if effect is Effect.DIES_BEFORE:
            self._world.die()
        with translated(), transaction(_Writing, self._writer) as session:
            yield session
        self._world.after(self._call)
        if effect is Effect.DIES_AFTER:
            self._world.die()
        if effect is Effect.ANSWER_LOST:
            raise CommitLostError


class _Named(SimulatedDatabase):
    """The same database, for the tries at one transaction."""

    def __init__(self, database: SimulatedDatabase, call: str) -> None:
        vars(self).update(vars(database), _call=call)


def _collision() -> DatabaseBusyError:
    """What PostgreSQL's serialisation failure becomes: the transaction may be run again."""
    error = DatabaseBusyError()
    error.__cause__ = _Serialisation()
    return error


class _Serialisation(Exception):  # noqa: N818 - the driver's
    orig = SimpleNamespace(sqlstate="40001")
