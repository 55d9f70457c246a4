"""Base of the tables: names of constraints, types of columns, and columns that several tables have.

Some columns may hold megabytes of JSON: no transaction that writes loads, parses or encodes them. SQLite has
one write lock: what its holder computes, the writes of all projects wait for. So these columns are left out
of every query that does not ask for them, what is written to them is encoded before the transaction begins,
and what a caller is shown of them is read before it begins.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
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
    inspect,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    InstanceState,
    Mapped,
    MappedColumn,
    mapped_column,
    undefer,
)
from sqlalchemy.orm.interfaces import ORMOption

from models_store.database.clock import Instant
from tabular.json.pieces import dump_in_pieces

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


class Encoded(str):
    """JSON that a column keeps as it stands."""

    __slots__ = ()


class LargeJson(TypeDecorator[Any]):
    """JSON whose values are written as `Encoded`."""

    impl = JSON(none_as_null=True)
    cache_ok = True


def large_column() -> MappedColumn[Any]:
    """Declare a column of large JSON, which only a query with `whole` reads."""
    return mapped_column(LargeJson, deferred=True, deferred_raiseload=True)


@cache
def large_names(table: type[Base]) -> frozenset[str]:
    """Return the names of a table's large columns."""
    return frozenset(
        column.name for column in table.__table__.columns if isinstance(column.type, LargeJson)
    )


@cache
def whole(table: type[Base]) -> tuple[ORMOption, ...]:
    """Return the options of a query that reads the large columns of a table, too."""
    return tuple(undefer(getattr(table, name)) for name in sorted(large_names(table)))


def is_whole(row: Base) -> bool:
    """Return whether a row has its large columns at hand."""
    state: InstanceState[Base] = inspect(row)
    return large_names(type(row)).isdisjoint(state.unloaded)


def to_json(value: object) -> str:
    """Return a value as the text of a column of JSON.

    Raises:
        ValueError: A number is not finite.
    """
    return value if isinstance(value, Encoded) else dump_in_pieces(value)


def encoded(value: object) -> Encoded | None:
    """Return a value as a large column gets it; call it before the transaction begins."""
    return None if value is None else Encoded(dump_in_pieces(value))


def columns_of(record: object, table: type[Base]) -> Mapping[str, Any]:
    """Return the columns of a new row, the large ones encoded; call it before the transaction begins.

    Args:
        record: Value whose fields have the names of the columns.
        table: Table of the row.
    """
    large = large_names(table)
    return {
        name: encoded(value) if name in large else value for name, value in vars(record).items()
    }
