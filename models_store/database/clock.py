"""The database's clock and the one type of instants.

Every instant that is compared or stored comes from the database, so that the clocks of the
processes around it need not agree.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, DateTime, Dialect, Float, String, literal, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class Instant(TypeDecorator[datetime]):
    """A moment in UTC: ``timestamptz`` on PostgreSQL, text that sorts by time on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the dialect."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(24))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        """Turn an aware moment into what the column holds."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401, ARG002 (the driver's value; the base's signature)
        """Turn what the column holds into an aware moment in UTC."""
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC)


class db_now(FunctionElement[datetime]):  # noqa: N801 (it is called like the SQL function it is)
    """The database's present time, shifted by some seconds."""

    type = Instant()
    inherit_cache = True
    name = "db_now"

    def __init__(self, offset_s: float | BindParameter[float] = 0.0) -> None:
        """Make the expression; the shift is a bound parameter, so that statements stay cached."""
        given = isinstance(offset_s, BindParameter)
        super().__init__(offset_s if given else literal(float(offset_s), Float))


@compiles(db_now, "postgresql")
def _postgresql(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:  # noqa: ANN401 (SQLAlchemy's signature)
    offset = compiler.process(element.clauses, **kwargs)
    now = f"statement_timestamp() + {offset} * interval '1 second'"
    return f"date_trunc('milliseconds', {now})"  # as SQLite has it: a copy has the same instants


@compiles(db_now, "sqlite")
def _sqlite(element: db_now, compiler: SQLCompiler, **kwargs: Any) -> str:  # noqa: ANN401 (SQLAlchemy's signature)
    offset = compiler.process(element.clauses, **kwargs)
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', {offset} || ' seconds')"


_NOW = select(db_now())


def moment(session: Session, *, later_s: float = 0.0) -> datetime:
    """Return the database's time at the first call in a transaction, shifted by some seconds.

    A row that gets it, and not `db_now()`, need not be read again.

    Args:
        later_s: Seconds to add.
    """
    now: datetime | None = session.info.get(_NOW)
    if now is None:
        now = session.info[_NOW] = session.connection().scalars(_NOW).one()
    return now + timedelta(seconds=later_s)
