"""Copies of all rows from one database to another, of either kind."""

import hashlib
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping, Table, func, insert, select, text
from sqlalchemy.orm import Session

from models_store.copies.errors import CopyError, TargetNotEmptyError
from models_store.database.database import Database
from models_store.database.revisions import current_revision, head_revision
from models_store.database.schema import METADATA, StoreRow, WorkerRow
from models_store.errors import SchemaMismatchError

_PAGE = 100
# They tell of one installation: its processes, and the store that it is tied to.
_LEFT_OUT = frozenset({StoreRow.__tablename__, WorkerRow.__tablename__})


def copied_tables() -> list[Table]:
    """Return the tables that are copied, each after those that it refers to."""
    return [table for table in METADATA.sorted_tables if table.name not in _LEFT_OUT]


def check_empty(session: Session) -> None:
    """Refuse a database that has rows.

    Raises:
        TargetNotEmptyError: It has some.
    """
    for table in copied_tables():
        if session.execute(select(table).limit(1)).first() is not None:
            raise TargetNotEmptyError(f"the database has rows in its table {table.name}")


def count_copied(source: Database, target: Database) -> dict[str, int] | None:
    """Return the numbers of rows by table if an earlier call has copied all of them; None: none are there.

    Raises:
        TargetNotEmptyError: The target has other rows.
    """
    counts = {}
    with source.read() as reader, target.read() as session:
        for table in copied_tables():
            there = _digest(table, session)
            if there != _digest(table, reader):
                check_empty(session)
                return None
            counts[table.name], _ = there
    return counts


def copy_rows(source: Database, target: Database) -> dict[str, int]:
    """Copy all rows as they are at one moment, in one transaction, and compare them afterwards.

    Args:
        source: Database at the revision of this code.
        target: Database without rows, at the same revision.

    Returns:
        Numbers of rows by table.

    Raises:
        TargetNotEmptyError: The target has rows.
        CopyError: The rows of the target are not those of the source.
        SchemaMismatchError: The source has a revision that this code knows in part only.
        DatabaseError: One of them cannot be used.
    """
    with source.read() as reader, target.write() as writer:
        found = current_revision(reader.connection())
        if found != head_revision():
            raise SchemaMismatchError(found=found, expected=head_revision())
        check_empty(writer)
        sent = {table.name: _copy_table(table, reader, writer) for table in copied_tables()}
        for table in copied_tables():
            if _digest(table, writer) != sent[table.name]:
                raise CopyError(f"the rows of {table.name} are not in the copy as they were")
        _set_counters(writer)
    return {name: count for name, (count, _) in sent.items()}


def copy_sqlite(file: Path, target: Path) -> None:
    """Copy a SQLite file as it is at one moment, while others may write to it.

    Raises:
        CopyError: It cannot be read, or is no database.
    """
    try:
        with (
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise CopyError(f"{file} cannot be read: {error}") from None


def _copy_table(table: Table, reader: Session, writer: Session) -> tuple[int, int]:
    count, digest = 0, 0
    found = reader.execute(select(table), execution_options={"yield_per": _PAGE})
    for page in found.mappings().partitions():
        writer.execute(insert(table), [dict(row) for row in page])
        count += len(page)
        digest ^= _digest_rows(page)
    return count, digest


def _digest(table: Table, session: Session) -> tuple[int, int]:
    """Return the number of rows of a table, and a digest that does not depend on their order."""
    count, digest = 0, 0
    found = session.execute(select(table), execution_options={"yield_per": _PAGE})
    for page in found.mappings().partitions():
        count += len(page)
        digest ^= _digest_rows(page)
    return count, digest


def _digest_rows(rows: Any) -> int:  # noqa: ANN401 - a sequence of mappings, which the library leaves open
    digest = 0
    for row in rows:
        digest ^= int.from_bytes(hashlib.sha256(_canonical(row)).digest(), "big")
    return digest


def _canonical(row: RowMapping) -> bytes:
    """Return a row as text that is the same on both databases: SQLite keeps milliseconds."""
    values = {
        name: value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }
    return json.dumps(values, sort_keys=True).encode()


def _set_counters(session: Session) -> None:
    """Let PostgreSQL count on from the copied rows, as SQLite does by itself."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in copied_tables():
        column = table.autoincrement_column
        if column is None:
            continue
        highest = session.scalar(select(func.max(column)))
        if highest is not None:
            place = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
            session.execute(place, {"table": table.name, "column": column.name, "highest": highest})
