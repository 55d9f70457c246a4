"""Base of the tables: names of constraints, types of columns, and columns that several tables have."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

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


class _Tags(TypeDecorator[dict[str, str]]):
    """Tags as a JSON object; null where there are none, as in rows from before there were tags."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(
        self, value: dict[str, str] | None, _dialect: Dialect
    ) -> dict[str, str] | None:
        """Return what the column holds."""
        return value or None

    def process_result_value(
        self, value: dict[str, str] | None, _dialect: Dialect
    ) -> dict[str, str]:
        """Return the tags."""
        return value or {}


class Described:
    """Columns of what callers describe. `TagRow` has the tags once more, to find rows by them."""

    description: Mapped[str | None]
    tags: Mapped[dict[str, str]] = mapped_column(_Tags, nullable=True, default=dict)
