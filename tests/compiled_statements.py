"""Statements that are compiled once for all databases of a test run, as for the one of a service.

Each test has an engine of its own, whose cache would begin empty: a sixth of the time of such a test.
"""

from sqlalchemy import Connection, Engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.util import LRUCache

_cache: LRUCache[object, object] = LRUCache(4000)


def _kind(dialect: Dialect) -> tuple[object, ...]:
    return type(dialect), dialect.__dict__.get("_json_serializer")


def _is_alike(dialect: Dialect, other: object) -> bool:
    return isinstance(other, Dialect) and _kind(dialect) == _kind(other)


def _hash(dialect: Dialect) -> int:
    return hash(_kind(dialect))


# What compiles a statement is part of its key.
for _dialect in (PGDialect_psycopg, SQLiteDialect_pysqlite):
    _dialect.__eq__ = _is_alike  # type: ignore[method-assign, assignment]
    _dialect.__hash__ = _hash  # type: ignore[method-assign, assignment]


@event.listens_for(Engine, "engine_connect")
def _share(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_cache)
