"""Copies of an installation: its rows as they are at one moment, and the files that they name.

A back-up is a folder with the rows in a SQLite file and the files in `blobs`: an installation that
nobody runs. To restore it, or to move from a laptop to servers, is the same copy into an empty one.
"""

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Table, func, insert, select, text, update
from sqlalchemy.orm import Session

from models_store.consistency import (
    NamedFile,
    UnusableFile,
    all_named_files,
    file_of_checkpoint,
    listed_files,
    named_files,
)
from models_store.database.base import JsonObject
from models_store.database.clock import db_now
from models_store.database.database import Database, migrate
from models_store.database.schema import METADATA, JobRow, StoreRow, WorkerRow
from models_store.errors import (
    BlobCorruptError,
    BlobMissingError,
    CheckpointMismatchError,
    StoreError,
)
from models_store.files.blobs import Blobs
from models_store.files.store_identity import adopt
from models_store.job_states import JobState

ROWS, FILES = "rows.sqlite3", "blobs"
"""Names of the SQLite file and of the folder of the files of a back-up."""

Tell = Callable[[int, int, int], None]
"""Function that is called with how many files are done, of how many, and their bytes."""

# They tell of one installation: its processes, and the store that it is tied to.
_LEFT_OUT = frozenset({StoreRow.__tablename__, WorkerRow.__tablename__})
_PAGE = 100
_THREADS = 8


class CopyError(StoreError):
    """Copy that cannot be made, or is not what it should be; the message is one clause."""


class TargetNotEmptyError(CopyError):
    """Target of a copy that already holds something."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the target is not empty: {found}")


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Result of a copy.

    Attributes:
        rows: Numbers of rows by table.
        unusable: Files that rows name and that the source does not have, or with another content.
    """

    rows: dict[str, int]
    files: int
    bytes: int
    unusable: list[UnusableFile]


def back_up(database: Database, blobs: Blobs, folder: Path, *, tell: Tell) -> Copied:
    """Copy an installation, which may be in use, into a folder.

    Files that an earlier back-up left there are hashed, and copied only if they differ; the rows are
    replaced at the end, and then what no row names any more is deleted. The time of a back-up that
    lacks nothing is noted.

    Raises:
        CopyError: The folder has something else, or as `copy` says.
        StoreError: As `copy` says.
        OSError: The folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept, new = Blobs.in_folder(folder / FILES), folder / f"{ROWS}.new"
    if (folder / FILES).exists() and not (folder / ROWS).exists() and not new.exists():
        raise CopyError(f"{folder} has {FILES}, which is of no back-up")
    new.unlink(missing_ok=True)
    with _database_of(new) as rows:
        copied = copy(database, blobs, rows, kept, tell=tell)
        named = {file.key for file in all_named_files(rows, kept)}
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(folder / ROWS)
    for stored in kept.files():
        if stored.key not in named:
            kept.delete(stored.key)
    if not copied.unusable:
        with database.write() as session:
            session.execute(update(StoreRow).values(backed_up_at=db_now()))
    return copied


def restore(folder: Path, target: Database, store: Blobs, *, tell: Tell) -> Copied:
    """Copy a back-up, or a data directory that nobody runs, into an empty installation.

    A copy of the rows is migrated to the schema of this code; the folder stays as it is.

    Raises:
        CopyError: The folder has no rows, or none of their files.
        TargetNotEmptyError: The store has files that the rows do not name, or as `copy` says.
        SchemaMismatchError: The rows are of a newer version.
        StoreError: As `copy` says.
    """
    found = [folder / ROWS, *sorted(folder.glob("rows-*.sqlite3")), folder / "densityd.sqlite3"]
    file = next((path for path in found if path.is_file()), None)
    if file is None:
        raise CopyError(f"{folder} has no whole back-up: there is no {ROWS}")
    _check_empty(target)
    files = Blobs.in_folder(folder / FILES)
    with (
        tempfile.TemporaryDirectory(prefix="densityd-rows-") as scratch,
        _database_of(Path(scratch) / ROWS, copy_of=file) as source,
    ):
        named = {one.key for one in all_named_files(source, files)}
        if named and named.isdisjoint(one.key for one in files.files()):
            raise CopyError(f"{files.name} has none of the {len(named)} files that the rows name")
        for stored in store.files():
            if stored.key not in named:
                raise TargetNotEmptyError(f"{store.name} has the file {stored.key}")
        adopt(target, store, of_copy=True)
        return copy(source, files, target, store, tell=tell)


def copy(source: Database, files: Blobs, target: Database, store: Blobs, *, tell: Tell) -> Copied:
    """Copy an installation, which may be in use, into an empty one.

    Files are copied first, then the rows as they are at one moment, in one transaction, then the files
    that only these name. A copy that was interrupted before its rows were there continues when it is
    made again.

    Args:
        source: Database of the source, at the revision of this code.
        files: Store of the source.
        target: Database without rows, at the same revision.
        store: Store that gets the files.
        tell: Function that is called for each file.

    Raises:
        TargetNotEmptyError: The target has rows.
        CopyError: Files were deleted while they were copied.
        StoreError: A database or a store cannot be used.
    """
    _check_empty(target)
    copier = _FileCopier(files, store, tell)
    copier.copy_all(_named(source))
    rows = _copy_rows(source, target)
    unusable = copier.copy_all(_named(target))
    if not {bad.file for bad in unusable} <= set(_named(source)):
        raise CopyError("files were deleted while they were copied; try again")
    # A job that continues replaces its checkpoints all the time: it names those alone that are there.
    with target.read() as session:
        unfinished = select(JobRow.id, JobRow.checkpoints).where(JobRow.state != JobState.SUCCEEDED)
        named = [(job_id, found) for job_id, found in session.execute(unfinished)]
    kept = {
        job_id: [at for at in checkpoints if copier.has_checkpoint(job_id, at)]
        for job_id, checkpoints in named
    }
    with target.write() as session:
        for row in session.scalars(select(JobRow).where(JobRow.id.in_(kept))):
            if row.checkpoints != kept[row.id]:
                row.checkpoints = kept[row.id]
    return Copied(
        rows=rows, files=len(copier.sizes), bytes=sum(copier.sizes.values()), unusable=unusable
    )


class _FileCopier:
    """Copies files that are not in the target yet, several at a time; each is hashed on its way.

    Attributes:
        sizes: Bytes of the files that were copied, or were there, by their keys.
    """

    def __init__(self, source: Blobs, target: Blobs, tell: Tell) -> None:
        self._source, self._target, self._tell = source, target, tell
        self.sizes: dict[str, int] = {}

    def copy_all(self, files: Iterable[NamedFile]) -> list[UnusableFile]:
        """Copy files; return those that the source does not have, or with another content."""
        todo = sorted({file.key: file for file in files}.values(), key=lambda file: file.key)

        def copy_one(file: NamedFile) -> UnusableFile | None:
            try:
                self._copy(file)
            except (BlobMissingError, BlobCorruptError) as error:
                return UnusableFile(file=file, error=error)
            copied = list(self.sizes.values())
            self._tell(len(copied), max(len(copied), len(todo)), sum(copied))
            return None

        with ThreadPoolExecutor(_THREADS) as pool:
            return [bad for bad in pool.map(copy_one, todo) if bad is not None]

    def has_checkpoint(self, job_id: str, checkpoint: JsonObject) -> bool:
        """Copy a checkpoint and the parts that it lists, and return whether they are there."""
        file = file_of_checkpoint(job_id, checkpoint)
        try:
            self._copy(file)
            for part in listed_files(file, self._target):
                self._copy(part)
        except (BlobMissingError, BlobCorruptError, CheckpointMismatchError):
            return False
        return True

    def _copy(self, file: NamedFile) -> None:
        """Copy one file, which the source must have; one that is there with the right content stays."""
        if file.key not in self.sizes:
            there = self._target.size(file.key) if self._is_there(file) else self._send(file)
            self.sizes[file.key] = there

    def _is_there(self, file: NamedFile) -> bool:
        try:
            return self._target.digest(file.key) == file.sha256
        except BlobMissingError:
            return False

    def _send(self, file: NamedFile) -> int:
        hashed = hashlib.sha256()
        with self._target.staged() as staged:
            with staged.open("wb") as copied:
                for piece in self._source.stream(file.key, 0, self._source.size(file.key)):
                    hashed.update(piece)
                    copied.write(piece)
            if hashed.hexdigest() != file.sha256:
                raise BlobCorruptError(file.key)
            return self._target.commit(staged, file.key).bytes


def _named(database: Database) -> list[NamedFile]:
    with database.read() as session:
        return named_files(session)


def _tables() -> list[Table]:
    """Return the tables that are copied, each after those that it refers to."""
    return [table for table in METADATA.sorted_tables if table.name not in _LEFT_OUT]


def _check_empty(database: Database) -> None:
    with database.read() as session:
        for table in _tables():
            if session.execute(select(table).limit(1)).first() is not None:
                raise TargetNotEmptyError(f"the database has rows in its table {table.name}")


def _copy_rows(source: Database, target: Database) -> dict[str, int]:
    counts = {}
    with source.read() as reader, target.write() as writer:
        for table in _tables():
            counts[table.name] = 0
            found = reader.execute(select(table), execution_options={"yield_per": _PAGE})
            for page in found.mappings().partitions():
                writer.execute(insert(table), [dict(row) for row in page])
                counts[table.name] += len(page)
        _set_counters(writer)
    return counts


def _set_counters(session: Session) -> None:
    """Let PostgreSQL count on from the copied rows, as SQLite does by itself."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in _tables():
        column = table.autoincrement_column
        highest = None if column is None else session.scalar(select(func.max(column)))
        if column is not None and highest is not None:
            place = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
            session.execute(place, {"table": table.name, "column": column.name, "highest": highest})


@contextmanager
def _database_of(file: Path, *, copy_of: Path | None = None) -> Iterator[Database]:
    """Open a new SQLite file, or a copy of one, at the revision of this code."""
    if copy_of is not None:
        _copy_sqlite(copy_of, file)
    url = f"sqlite:///{quote(str(file))}"
    migrate(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
        for name in (f"{file.name}.migrate.lock", f"{file.name}-wal", f"{file.name}-shm"):
            file.with_name(name).unlink(missing_ok=True)


def _copy_sqlite(file: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(target)) as copied,
        ):
            source.backup(copied)
    except sqlite3.Error as error:
        raise CopyError(f"{file} cannot be read: {error}") from None
