"""Checks, while tests run, that no statement of the service reads a whole table of its projects.

What one project stores, all others would wait for. SQLite plans without regard to what the tables hold; of
PostgreSQL it is asked which plan it has left where it may not read a table from end to end.
"""

import re
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Cursor
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import Dialect

from models_store.database.schema import METADATA

_SMALL = frozenset({"worker", "store", "turn", "usage"})
"""Tables with a row for each worker or each project."""

_WHOLE = (
    "models_store/consistency.py",  # `densityd doctor` and `densityd prune` compare all that there is
    "models_store/copies/",  # as does a backup
    "models_store/files/store_identity.py",  # a few rows of each table, when a process starts
    "migrations/",
)
"""Places of the code that read whole tables: where somebody who runs the service asks for that."""

_FEW = (
    "FROM api_key LIMIT",  # whether there is any
    "FROM api_key ORDER BY api_key.position",  # `densityd keys list`
    "FROM api_key WHERE api_key.revoked_at IS NULL",  # the same
    "webhook.id, webhook.project",  # twenty of a project at the most, each with a look at an index
)
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
_SCANNED = re.compile(r"\bSCAN (\w+?)(?:_\d+)?(?= |$)|\bSeq Scan on (\w+)")
_KEPT = ("ix_job_child_files", "ix_job_finished_at")
"""Indexes of jobs that have files which nothing may need: those that are looked for among them go."""

_large = frozenset(METADATA.tables) - _SMALL
_seen: set[tuple[str, str]] = set()
_found: list[str] = []


@contextmanager
def planned() -> Iterator[None]:
    """Fail at the end if the service sent a statement that reads a whole table."""
    try:
        yield
        assert not _found, "; ".join(_found)
    finally:
        _found.clear()


def scanned(plan: str) -> set[str]:
    """Return the tables of projects that a plan reads from end to end."""
    lines = "\n".join(
        line for line in plan.splitlines() if not any(index in line for index in _KEPT)
    )
    return {one or other for one, other in _SCANNED.findall(lines)} & _large


def _place() -> str:
    """Return the innermost place in the code of the service, or of a test that comes first."""
    for frame in reversed(traceback.extract_stack()):
        inner = re.search(
            r"(models_store|app|workers|densityd|migrations|tests)/[\w/]+\.py$", frame.filename
        )
        if inner and ".venv" not in frame.filename and inner[0] != "tests/query_plans.py":
            return f"{inner[0]}:{frame.lineno}"
    return ""


def _sqlite_plan(cursor: sqlite3.Cursor, statement: str, parameters: Any) -> str:
    rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return "\n".join(row[3] for row in rows)


def _postgresql_plan(cursor: Cursor[Any], statement: str, parameters: Any) -> str:
    with cursor.connection.cursor() as other:
        other.execute("SELECT set_config('enable_seqscan', 'off', true)")
        other.execute(f"EXPLAIN {statement}".encode(), parameters)
        plan = "\n".join(row[0] for row in other.fetchall())
        other.execute("SELECT set_config('enable_seqscan', 'on', true)")
    return plan


def _watch(dialect: type[Dialect], plan_of: Callable[..., str]) -> None:
    execute = dialect.do_execute

    def watched(
        self: Dialect, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        key = dialect.name, statement
        if key not in _seen and _STATEMENT.match(statement):
            _seen.add(key)
            place = _place()
            text = " ".join(statement.split())
            if not place.startswith(("tests/", *_WHOLE)) and not any(few in text for few in _FEW):
                tables = scanned(plan_of(cursor, statement, parameters))
                if tables:
                    _found.append(f"{place} reads all of {', '.join(sorted(tables))}: {statement}")
        execute(self, cursor, statement, parameters, context)

    dialect.do_execute = watched  # type: ignore[method-assign]


_watch(SQLiteDialect_pysqlite, _sqlite_plan)
_watch(PGDialect_psycopg, _postgresql_plan)
