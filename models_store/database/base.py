"""Base of the tables: names of constraints, types of columns, and columns that several tables have.

Some columns may hold megabytes of JSON: they are left out of every query that does not ask for them.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedColumn,
    mapped_column,
)

from models_store.database.clock import Instant

JsonObject = dict[str, Any]

# SQLite counts rows only in a column declared exactly INTEGER PRIMARY KEY.
Counter = BigInteger().with_variant(Integer, "sqlite")


def where(condition: str) -> dict[str, Any]:
    """Make an index of those rows alone, on both databases."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Base(DeclarativeBase):
    """Names constraints by convention, so that migrations can speak of them on both databases."""

    __table__: ClassVar[Table]

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        str: Text,
        datetime: Instant,
        JsonObject: JSON(none_as_null=True),
        list[JsonObject]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
    }


class Described:
    """Columns of what callers describe."""

    description: Mapped[str | None]
    tags: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)


def large_column() -> MappedColumn[Any]:
    """Declare a column of large JSON: the first of a row that is used reads them all."""
    return mapped_column(JSON(none_as_null=True), deferred=True, deferred_group="large")


def separate_column() -> MappedColumn[Any]:
    """Declare a column of large JSON that is read only where it alone is asked for."""
    return mapped_column(JSON(none_as_null=True), deferred=True)
