"""INSERT ... ON CONFLICT, which both databases have but SQLAlchemy spells twice."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models_store.database.schema import Base


def insert_into(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return the session's dialect's INSERT for a table."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
