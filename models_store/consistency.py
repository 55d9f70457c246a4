"""Comparison of the rows with the files that they name, also while the service runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database.base import JsonObject
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import DatasetRow, JobRow, ModelRow, ModelVersionRow
from models_store.errors import BlobCorruptError, BlobError
from models_store.files.blobs import Blobs, FoundFile
from models_store.files.job_files import LIST_SUFFIX, load_list
from models_store.job_states import JobState

_ACTIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """File that a row names.

    Attributes:
        owner: Description of its owner, such as ``model shuttle:2 of project default``.
        bytes: its size, where the row knows it.
    """

    owner: str
    key: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class UnusableFile:
    """File that a row names and that is missing or corrupt."""

    file: NamedFile
    error: BlobError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of the comparison of rows and files.

    Attributes:
        unusable: those of them that cannot be used.
        orphans: files of the store that no row names, past the grace.
        foreign: Files that the store did not make, which are neither read nor removed.
    """

    checked: int
    unusable: list[UnusableFile]
    orphans: list[FoundFile]
    foreign: list[FoundFile]


def compare(database: Database, blobs: Blobs, *, deep: bool, grace_s: float) -> Comparison:
    """Compare every row with its files, and every file with the rows.

    Nothing is taken amiss that is merely under way: what a job makes that waits or runs is its
    own, a file may be as old as the grace before its row is there, and a row counts only if it
    still names the file after that was looked at.

    Args:
        deep: read every file and check its hash, not only that it is there and how large it is.
        grace_s: seconds since a file was last written to, before which it is no orphan.
    """
    before = _rows(database, blobs)
    found = list(blobs.files())
    unusable = list(_unusable(before.files, blobs, deep=deep))
    after = _rows(database, blobs)
    keys = {file.key for file in before.files | after.files}
    kept = before.kept_jobs | after.kept_jobs
    return Comparison(
        checked=len(before.files),
        unusable=[bad for bad in unusable if bad.file in after.files],
        orphans=[
            file
            for file in found
            if file.own
            and file.age_s >= grace_s
            and file.key not in keys
            and file.key.split("/")[1] not in kept
        ],
        foreign=[file for file in found if not file.own],
    )


def abandoned_jobs(database: Database, *, for_s: float) -> list[str]:
    """Return the ids of running jobs whose lease ran out that long ago, oldest first.

    Any worker takes them over; that none did means that there is none.
    """
    with database.read() as session:
        query = (
            select(JobRow.id)
            .where(JobRow.state == JobState.RUNNING, JobRow.lease_expires_at <= db_now(-for_s))
            .order_by(JobRow.lease_expires_at)
        )
        return list(session.scalars(query))


@dataclass(frozen=True)
class _NamedFiles:
    files: frozenset[NamedFile]
    kept_jobs: frozenset[str]


def _rows(database: Database, blobs: Blobs) -> _NamedFiles:
    with database.read() as session:
        files = named_files(session)
        unfinished = session.execute(
            select(JobRow.id, JobRow.state, JobRow.checkpoints).where(
                JobRow.state != JobState.SUCCEEDED
            )
        ).all()
    kept = {job_id for job_id, state, _ in unfinished if state in _ACTIVE}
    for job_id, _, checkpoints in unfinished:
        named = [file_of_checkpoint(job_id, at) for at in checkpoints]
        files += named
        try:
            files += [part for file in named for part in listed_files(file, blobs)]
        except BlobError:
            # What it names is not known, so nothing of the job may go.
            kept.add(job_id)
    return _NamedFiles(frozenset(files), frozenset(kept))


def all_named_files(database: Database, blobs: Blobs) -> frozenset[NamedFile]:
    """Return all files that rows name, checkpoints and the parts that these list among them."""
    return _rows(database, blobs).files


def named_files(session: Session) -> list[NamedFile]:
    """Return the files that rows name, but for the checkpoints of jobs."""
    files: list[NamedFile] = []
    row = DatasetRow
    datasets = select(row.id, row.key, row.sha256, row.bytes, row.cells)
    for dataset_id, key, sha256, size, cells in session.execute(datasets):
        files.append(_file(f"dataset {dataset_id}", key, sha256, size))
        files += _stored(f"cells of dataset {dataset_id}", cells)
    version = ModelVersionRow
    weights = version.checkpoint_key, version.checkpoint_sha256, version.checkpoint_bytes
    of = ModelRow.name, version.version, ModelRow.project
    versions = select(*of, *weights).join(ModelRow, ModelRow.id == version.model_id)
    for name, number, project, key, sha256, size in session.execute(versions):
        files.append(_file(f"model {name}:{number} of project {project}", key, sha256, size))
    results = select(JobRow.id, JobRow.result).where(JobRow.result.is_not(None))
    for job_id, result in session.execute(results):
        files += _stored(f"result of {job_id}", result)
    products = select(JobRow.id, JobRow.product).where(JobRow.product.is_not(None))
    for job_id, product in session.execute(products):
        files += _stored(f"product of {job_id}", product, prefix="checkpoint_")
    return files


def _stored(owner: str, found: JsonObject | None, *, prefix: str = "") -> list[NamedFile]:
    if found is None:
        return []
    return [_file(owner, *(found[f"{prefix}{name}"] for name in ("key", "sha256", "bytes")))]


def _file(owner: str, key: str, sha256: str, size: int) -> NamedFile:
    return NamedFile(owner=owner, key=key, sha256=sha256, bytes=size)


def file_of_checkpoint(job_id: str, checkpoint: JsonObject) -> NamedFile:
    """Return the file of a checkpoint of a job."""
    return NamedFile(
        owner=f"checkpoint of {job_id}", key=checkpoint["key"], sha256=checkpoint["sha256"]
    )


def listed_files(file: NamedFile, blobs: Blobs) -> list[NamedFile]:
    """Return the parts that the file of a checkpoint lists; none if it is no list.

    Raises:
        BlobError: The list cannot be read.
    """
    if not file.key.endswith(LIST_SUFFIX):
        return []
    return [
        NamedFile(owner=file.owner, key=part.key, sha256=part.sha256)
        for part in load_list(blobs, file.key, file.sha256)
    ]


def _unusable(files: Iterable[NamedFile], blobs: Blobs, *, deep: bool) -> Iterator[UnusableFile]:
    for file in sorted(files, key=lambda file: file.key):
        try:
            if deep and blobs.digest(file.key) != file.sha256:
                raise BlobCorruptError(file.key)
            if file.bytes not in (None, blobs.size(file.key)):
                raise BlobCorruptError(file.key)
        except FileNotFoundError:
            continue  # deleted meanwhile: its row is gone, or the next look finds it missing
        except BlobError as error:
            yield UnusableFile(file=file, error=error)
