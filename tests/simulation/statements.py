"""Transactions without SQLAlchemy's costs of each statement, which are ten times those of SQLite in memory.

SQLAlchemy writes each statement, once. After that the driver runs its text with the values as SQLAlchemy
converts them, within the transaction of the same connection. The ORM is there once it is asked for.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import Row
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from models_store.database.announcements import announce

Values = Mapping[str, Any]
_NONE: Values = {}


class Statement:
    """A statement as the driver runs it.

    Attributes:
        text: of SQL.
        simple: false if its text depends on the values, or SQLAlchemy adds some at each run.
    """

    def __init__(self, statement: Executable, names: Sequence[str], connection: Connection) -> None:
        dialect = connection.dialect
        compiled = statement.compile(dialect=dialect, column_keys=list(names))  # type: ignore[attr-defined]  # all have it
        assert isinstance(compiled, SQLCompiler)
        self.text = compiled.string
        self.simple = not (
            compiled.post_compile_params or compiled.insert_prefetch or compiled.update_prefetch
        )
        known = compiled.construct_params(_check=False)
        convert = compiled._bind_processors
        self._places = [
            (name, convert.get(name), None)
            if name in names
            else (None, None, convert[name](known[name]) if name in convert else known[name])  # type: ignore[operator]  # no tuples
            for name in compiled.positiontup or ()
        ]
        columns = compiled._result_columns
        self._names = SimpleResultMetaData([column.keyname for column in columns])
        self._read = [column.type._cached_result_processor(dialect, None) for column in columns]

    def values(self, given: Values) -> list[Any]:
        """The values in the order of the text."""
        return [
            fixed if name is None else given[name] if convert is None else convert(given[name])  # type: ignore[operator]  # as above
            for name, convert, fixed in self._places
        ]

    def row(self, found: tuple[Any, ...]) -> Row[*tuple[Any, ...]]:
        """A row as SQLAlchemy gives it."""
        return Row(self._names, self._read, self._names._key_to_index, found)

    def first(self, found: tuple[Any, ...]) -> Any:
        """The first column of a row."""
        read = self._read[0]
        return found[0] if read is None else read(found[0])


class Found(list[Any]):
    """Rows or values, with those methods of a result that the store uses."""

    def all(self) -> "Found":
        """All of them."""
        return self

    def one_or_none(self) -> Any:
        """The only one, None if there is none."""
        return self.one() if self else None

    def one(self) -> Any:
        """The only one."""
        (found,) = self
        return found


class Statements:
    """Stands where `Connection` stands in a transaction.

    Args:
        connection: of SQLAlchemy.
        driver: the connection below it.
    """

    def __init__(self, connection: Connection, driver: sqlite3.Connection) -> None:
        self.connection = connection
        self._driver = driver
        self._known: dict[object, Statement] = {}

    def execute(self, statement: Executable, given: Values | Sequence[Values] | None = None) -> Any:
        """Run a statement, once or for each of several values."""
        if isinstance(given, Sequence):
            many = self._prepared(statement, given[0])
            self._driver.executemany(many.text, map(many.values, given))
            return None
        known = self._prepared(statement, given or _NONE)
        if not known.simple:
            return self.connection.execute(statement, given)
        return Found(map(known.row, self._rows(known, given)))

    def scalars(self, statement: Executable, given: Values | None = None) -> Any:
        """The first columns of the rows."""
        known = self._prepared(statement, given or _NONE)
        if not known.simple:
            return self.connection.scalars(statement, given)
        return Found(map(known.first, self._rows(known, given)))

    def scalar(self, statement: Executable, given: Values | None = None) -> Any:
        """The first column of the first row, None if there is no row."""
        known = self._prepared(statement, given or _NONE)
        if not known.simple:
            return self.connection.scalar(statement, given)
        rows = self._rows(known, given)
        return known.first(rows[0]) if rows else None

    def _rows(self, known: Statement, given: Values | None) -> list[tuple[Any, ...]]:
        return self._driver.execute(known.text, known.values(given or _NONE)).fetchall()

    def _prepared(self, statement: Executable, given: Values) -> Statement:
        key = (statement, *given)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Statement(statement, tuple(given), self.connection)
        return known


class Transaction:
    """Stands where a session stands; a session of the ORM is made for what else it is asked."""

    def __init__(self, make: Callable[..., Session], statements: Statements) -> None:
        self.info: dict[Any, Any] = {}
        self._make = make
        self._statements = statements
        self._session: Session | None = None

    def connection(self) -> Statements:
        """Return what runs statements."""
        return self._statements

    def get_bind(self) -> Connection:
        """Return what has the dialect."""
        return self._statements.connection

    def flush(self) -> None:
        """Write what the ORM has changed."""
        if self._session is not None:
            self._session.flush()

    def close(self) -> None:
        """End the ORM's session."""
        if self._session is not None:
            self._session.close()

    def __getattr__(self, name: str) -> Any:
        session = self._session
        if session is None:
            session = self._make(self._statements.connection, expire_on_commit=False)
            vars(session)["info"] = self.info
            self._session = session
        return getattr(session, name)


@contextmanager
def transaction(make: Callable[..., Session], statements: Statements) -> Iterator[Session]:
    """One transaction, which ends as that of `Database.write` or `Database.read` does.

    Args:
        make: makes the ORM's session.
        statements: of the connection.
    """
    with statements.connection.begin():
        session = Transaction(make, statements)
        try:
            yield cast("Session", session)
            announce(cast("Session", session))
            session.flush()
        finally:
            session.close()
