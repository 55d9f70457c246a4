"""Differences between the SQL of the two databases."""

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
