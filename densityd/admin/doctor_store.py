"""Checks that the rows and the files of an installation agree."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from densityd.admin.file_texts import format_count, format_file
from models_store.consistency import Comparison, abandoned_jobs, compare
from models_store.database.database import Database
from models_store.errors import StoreError
from models_store.files.blobs import Blobs, FoundFile, check_identity
from models_store.files.store_identity import known_identity
from models_store.jobs.live_workers import Workers

Verdict = Literal["ok", "note", "problem"]
_ABANDONED_S = 60.0
_MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check.
        verdict: Result; a note needs no action, a problem does.
        detail: One sentence for people.
        items: Objects that the detail is about, each with one line.
    """

    check: str
    verdict: Verdict
    detail: str
    items: list[str] = field(default_factory=list)


def examine_files(database: Database, blobs: Blobs, *, deep: bool, grace_s: float) -> list[Finding]:
    """Compare rows and files.

    Args:
        database: Database at this version's revision.
        blobs: Blob store.
        deep: Check every file's hash.
        grace_s: Age from which a file without a row is reported, in seconds.
    """
    try:
        compared = compare(database, blobs, deep=deep, grace_s=grace_s)
        return [
            _check_named(compared, deep=deep),
            _check_orphans(compared),
            *_check_foreign(compared.foreign),
            _check_jobs(database),
        ]
    except (StoreError, OSError) as error:
        return [Finding("files", "problem", f"Rows and files cannot be compared: {error}")]


def examine_identity(database: Database, blobs: Blobs) -> Finding:
    """Check that the store is the one that belongs to the database."""
    try:
        identity = known_identity(database)
        if identity is None:
            return Finding("identity", "note", "No API has tied the store to the database yet.")
        check_identity(blobs, identity)
    except StoreError as error:
        return Finding("identity", "problem", str(error))
    return Finding("identity", "ok", f"Database and store belong together: {identity}.")


def examine_workers(database: Database) -> Finding:
    """Check that all workers take jobs."""
    try:
        alive = Workers(database).alive()
    except StoreError as error:
        return Finding("workers", "problem", f"The workers cannot be listed: {error}")
    out = [f"{worker.name}: {worker.unfit}" for worker in alive if worker.unfit is not None]
    if out:
        return Finding("workers", "problem", f"{len(out)} of {len(alive)} take no jobs:", out)
    return Finding("workers", "ok" if alive else "note", f"Workers that take jobs: {len(alive)}.")


def examine_staging(blobs: Blobs, *, grace_s: float) -> Finding:
    """Check for files that crashed writers left."""
    left = blobs.staged_files(older_than_s=grace_s)
    if not left:
        return Finding("staging", "ok", "No crash left files behind.")
    detail = f"{format_count(left)} were left by crashes; densityd prune-files deletes them."
    return Finding("staging", "note", detail)


def _check_named(compared: Comparison, *, deep: bool) -> Finding:
    bad = compared.unusable
    if not bad:
        how = "have the right hash" if deep else "are there with the right size"
        return Finding("files", "ok", f"{compared.checked} files that rows name {how}.")
    detail = f"{len(bad)} of {compared.checked} files that rows name cannot be used:"
    items = [f"{unusable.file.owner}: {unusable.error}" for unusable in bad]
    return Finding("files", "problem", detail, items)


def _check_orphans(compared: Comparison) -> Finding:
    orphans = compared.orphans
    if not orphans:
        return Finding("orphans", "ok", "Every file has its row.")
    detail = f"{format_count(orphans)} have no row; densityd prune-files deletes them:"
    return Finding("orphans", "note", detail, [format_file(file) for file in orphans])


def _check_foreign(foreign: Sequence[FoundFile]) -> list[Finding]:
    if not foreign:
        return []
    detail = f"{format_count(foreign)} in the store are not of this service, and are never used:"
    return [Finding("foreign", "note", detail, [format_file(file) for file in foreign])]


def _check_jobs(database: Database) -> Finding:
    abandoned = abandoned_jobs(database, for_s=_ABANDONED_S)
    if not abandoned:
        return Finding("jobs", "ok", "No job waits for a worker that went silent to be replaced.")
    detail = (
        f"{len(abandoned)} jobs lost their worker over {_ABANDONED_S:g} s ago and no other took"
        " over; they continue by themselves as soon as a worker runs:"
    )
    return Finding("jobs", "note", detail, abandoned)
