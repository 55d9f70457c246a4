"""SQL that the two databases differ in, or of which one of them needs a form of its own."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, Text, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models_store.database.base import Base


def dialect_of(session: Session) -> str:
    """Return the name of the dialect of a session's database."""
    return session.get_bind().dialect.name


def insert_into(dialect: str, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return INSERT as a dialect spells it, for ON CONFLICT, which both databases have."""
    # Of the table, not of the class: the ORM's way of inserting takes several times as long.
    if dialect == "postgresql":
        return postgresql.insert(table.__table__)
    return sqlite.insert(table.__table__)


def constant(value: StrEnum) -> ColumnElement[str]:
    """Return a member of an enumeration that stands in the text of a query, for what is looked for often.

    A parameter in its place is slower by far: SQLite plans a query anew at each run where its value
    decides whether an index of some rows serves, and SQLAlchemy writes a list of values anew each time.
    """
    return literal_column(f"'{value}'", Text)


def is_one_of(column: SQLColumnExpression[Any], values: Iterable[StrEnum]) -> ColumnElement[bool]:
    """Return the condition that a column holds one of some members, which stand in the text of the query."""
    return column.in_([constant(value) for value in sorted(values)])
