"""Rows and files are compared while the service may be at work on them."""

from typing import Any

from models_store.consistency import Comparison, abandoned_jobs, compare
from models_store.database.database import Database
from models_store.database.ids import new_id
from models_store.errors import BlobCorruptError, BlobMissingError
from models_store.files.blobs import Blobs, part_key, parts_key, result_key, table_key
from models_store.files.job_files import ResultPart, save_list
from models_store.job_states import Checkpoint, Job, JobKind, JobResult
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_version,
    checkpointed,
    claimed,
    put,
    stored_table,
    submitted,
)


def compared(database: Database, blobs: Blobs, **changes: Any) -> Comparison:
    return compare(database, blobs, **{"deep": True, "grace_s": 0, **changes})


def orphans(found: Comparison) -> list[str]:
    return [file.key for file in found.orphans]


def unusable(found: Comparison) -> list[tuple[str, type[Exception]]]:
    return [(bad.file.key, type(bad.error)) for bad in found.unusable]


def taken(jobs: Jobs, work: JobWork, **changes: Any) -> Job:
    submitted(jobs, **changes)
    return claimed(work)


def test_every_kind_of_file_that_a_row_names_is_checked(database, registry, jobs, work, blobs):
    stored_table(registry, blobs)
    job = taken(jobs, work)
    model = put(blobs, f"models/{job.id}/1.safetensors")
    version = a_version(
        job, checkpoint_key=model.key, checkpoint_sha256=model.sha256, checkpoint_bytes=model.bytes
    )
    work.finish(job.id, job.attempt, metrics={}, version=version)
    job = taken(jobs, work, kind=JobKind.SCORING, model_version=1)
    made = put(blobs, result_key(job.id, 1, suffix="csv"))
    result = JobResult(
        key=made.key, sha256=made.sha256, bytes=made.bytes, rows=1, media_type="text/csv"
    )
    work.finish(job.id, job.attempt, metrics={}, result=result)
    checkpointed(work, blobs, taken(jobs, work), 1)

    found = compared(database, blobs)

    assert found == Comparison(checked=4, unusable=[], orphans=[], foreign=[])
    for key in [file.key for file in blobs.files()]:
        blobs.path(key).write_bytes(b"k" * blobs.size(key))
    assert {error for _, error in unusable(compared(database, blobs))} == {BlobCorruptError}
    assert len(compared(database, blobs).unusable) == 4
    assert compared(database, blobs, deep=False).unusable == []


def test_a_file_that_is_gone_or_cut_is_found_without_reading(database, registry, blobs):
    gone, cut = stored_table(registry, blobs), stored_table(registry, blobs)
    blobs.delete(gone.key)
    blobs.path(cut.key).write_bytes(b"")

    found = compared(database, blobs, deep=False)

    assert dict(unusable(found)) == {gone.key: BlobMissingError, cut.key: BlobCorruptError}
    assert found.orphans == []


def test_a_file_without_a_row_is_an_orphan_after_the_grace(database, blobs):
    stored = put(blobs, table_key(new_id("ds")))

    assert orphans(compared(database, blobs)) == [stored.key]
    assert orphans(compared(database, blobs, grace_s=60)) == []


def test_what_a_job_at_work_has_made_is_its_own(database, jobs, work, blobs):
    job = taken(jobs, work)
    named = [checkpointed(work, blobs, job, epoch).key for epoch in (1, 2)]
    unnamed = [
        put(blobs, f"{folder}/{job.id}/{name}").key
        for folder, name in (("jobs", "1-3.safetensors"), ("models", "1.safetensors"))
    ]
    assert orphans(compared(database, blobs)) == []

    work.fail(job.id, job.attempt, code="diverged", detail="no number")
    found = compared(database, blobs)
    assert orphans(found) == sorted(unnamed)
    assert (found.checked, found.unusable) == (len(named), [])

    jobs.resume(PROJECT, job.id)
    assert orphans(compared(database, blobs)) == []


def test_the_parts_of_a_failed_job_are_named_by_its_list(database, jobs, work, blobs, registry):
    other = submitted(jobs)
    jobs.cancel(PROJECT, other.id)
    registry.add_version(PROJECT, "shuttle", a_version(other))
    job = taken(jobs, work, kind=JobKind.SCORING, model_version=1)
    stored = put(blobs, part_key(job.id, 1, number=1))
    lost = put(blobs, part_key(job.id, 1, number=2))
    parts = save_list(
        blobs,
        parts_key(job.id, 1, number=1),
        [ResultPart(key=stored.key, sha256=stored.sha256, rows=1)],
    )
    at = Checkpoint(key=parts.key, sha256=parts.sha256, epoch=1, step=1)
    work.record_epoch(job.id, 1, lease_s=LEASE_S, metrics={"part": 1}, progress={}, checkpoint=at)
    work.fail(job.id, 1, code="storage_full", detail="full")
    registry.delete_version(PROJECT, "shuttle", 1)

    found = compared(database, blobs)
    assert (found.checked, orphans(found)) == (2, [lost.key])

    # Of a list that cannot be read it is not known what it names.
    blobs.path(parts.key).write_bytes(b"{}")
    found = compared(database, blobs)
    assert orphans(found) == []
    assert unusable(found) == [(parts.key, BlobCorruptError)]


def test_strangers_in_the_store_are_told_apart(database, blobs, tmp_path):
    key = put(blobs, table_key(new_id("ds"))).key
    (blobs.root / "model.pt").write_bytes(b"x")
    (blobs.root / "datasets" / ".hidden").write_bytes(b"x")
    (blobs.root / "models").symlink_to(tmp_path)
    (blobs.root / "staging" / "left").write_bytes(b"x")

    found = compared(database, blobs)

    assert [file.key for file in found.foreign] == ["datasets/.hidden", "model.pt", "models"]
    assert orphans(found) == [key]


def test_a_running_job_whose_lease_ran_out_long_ago_is_abandoned(database, jobs, work):
    submitted(jobs)
    job = submitted(jobs)
    for lease_s in (LEASE_S, -90.0):
        work.claim("tester", lease_s=lease_s)

    assert abandoned_jobs(database, for_s=60) == [job.id]
    assert abandoned_jobs(database, for_s=120) == []
