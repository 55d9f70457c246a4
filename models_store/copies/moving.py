"""Copies of an installation into an empty one: rows, and before them the files that they name."""

from dataclasses import dataclass

from sqlalchemy import select

from models_store.consistency import (
    UnusableFile,
    file_of_checkpoint,
    listed_files,
    named_files,
)
from models_store.copies.errors import CopyError, TargetNotEmptyError
from models_store.copies.files import FileCopier, Tell
from models_store.copies.rows import copy_rows, count_copied
from models_store.database.base import JsonObject
from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import BlobCorruptError, BlobMissingError, CheckpointMismatchError
from models_store.files.blobs import Blobs
from models_store.files.store_identity import adopt
from models_store.job_states import JobState


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Result of a copy.

    Attributes:
        rows: Numbers of rows by table.
        files: Number of files.
        bytes: Bytes of the files.
        unusable: Files that rows name and that the source does not have, or with another content.
    """

    rows: dict[str, int]
    files: int
    bytes: int
    unusable: list[UnusableFile]


def move(source: Database, files: Blobs, target: Database, store: Blobs, *, tell: Tell) -> Copied:
    """Copy an installation that nobody uses into an empty one; one that was interrupted continues.

    Args:
        source: Database of the source, at the revision of this code.
        files: Store of the source.
        target: Database without rows, or with those that an earlier call has copied, at the same revision.
        store: Store that holds nothing, or what an earlier call has copied.
        tell: Function that is called for each file.

    Raises:
        TargetNotEmptyError: The target holds something else.
        CopyError: The store of the source has none of the files, or the copy of the rows differs.
        StorageFullError: No space is left.
        BlobError: A store cannot be used.
        DatabaseError: A database cannot be used.
    """
    with source.read() as session:
        named = named_files(session)
    keys = {file.key for file in named}
    there = count_copied(source, target)
    _check_store(store, keys, set(_checkpoints(source)))
    adopt(target, store, looked_at=True)
    copier = FileCopier(files, store, tell=tell)
    unusable = copier.copy_all(named)
    if keys and len(unusable) == len(keys):
        raise CopyError(f"{files.name} has none of the {len(keys)} files that the rows name")
    checkpoints = copy_checkpoints(source, store, copier)
    rows = copy_rows(source, target) if there is None else there
    keep_checkpoints(target, checkpoints)
    return Copied(rows=rows, files=copier.files, bytes=copier.bytes, unusable=unusable)


def copy_checkpoints(
    database: Database, store: Blobs, copier: FileCopier
) -> dict[str, list[JsonObject]]:
    """Copy the checkpoints of unfinished jobs; return those that could be copied, by job.

    A job that continues replaces its checkpoints all the time, so some may be gone.
    """

    def is_copied(job_id: str, checkpoint: JsonObject) -> bool:
        file = file_of_checkpoint(job_id, checkpoint)
        try:
            copier.copy(file)
            for part in listed_files(file, store):
                copier.copy(part)
        except (BlobMissingError, BlobCorruptError, CheckpointMismatchError):
            return False
        return True

    return {
        job_id: [at for at in checkpoints if is_copied(job_id, at)]
        for job_id, checkpoints in _checkpoints(database).items()
    }


def keep_checkpoints(database: Database, kept: dict[str, list[JsonObject]]) -> None:
    """Let the rows of unfinished jobs forget checkpoints whose files are not there."""
    with database.write() as session:
        for job_id, checkpoints in kept.items():
            row = session.scalars(select(JobRow).where(JobRow.id == job_id)).one()
            if row.checkpoints != checkpoints:
                row.checkpoints = checkpoints


def _checkpoints(database: Database) -> dict[str, list[JsonObject]]:
    query = select(JobRow.id, JobRow.checkpoints).where(JobRow.state != JobState.SUCCEEDED)
    with database.read() as session:
        return {job_id: checkpoints for job_id, checkpoints in session.execute(query)}  # noqa: C416 - rows are no pairs to a type checker


def _check_store(store: Blobs, keys: set[str], jobs: set[str]) -> None:
    """Refuse a store with files that the source does not name.

    Raises:
        TargetNotEmptyError: It has some.
    """
    for file in store.files():
        if file.key not in keys and jobs.isdisjoint(file.key.split("/")):
            raise TargetNotEmptyError(f"{store.name} has the file {file.key}")
