"""Quotas of a project: bytes of files, and a number of rows."""

import pytest

from models_store import quotas
from models_store.computed import Usage
from models_store.database.database import Database
from models_store.errors import LimitError
from models_store.job_states import Checkpoint, JobKind, JobResult, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retention import JobRetention
from models_store.registry import Registry
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_dataset,
    a_job,
    a_version,
    added,
    claimed,
    submitted,
)


def stored(database: Database) -> int:
    return Usage(database).of_project(PROJECT).stored_bytes


def test_datasets_weights_and_results_count_against_the_quota(
    database: Database, registry: Registry, jobs: Jobs, work: JobWork
) -> None:
    cells = {"key": "c", "sha256": "e" * 64, "bytes": 500}
    dataset = added(registry, bytes=1000, cells=cells)
    submitted(jobs)
    job = claimed(work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job, checkpoint_bytes=200))
    submitted(jobs, kind=JobKind.SAMPLING, model_version=1)
    job = claimed(work)
    result = JobResult(key="r", sha256="e" * 64, bytes=3 * 2**30, rows=1, media_type="text/csv")
    work.finish(job.id, job.attempt, metrics={}, result=result)

    before = stored(database)
    assert before == 1700 + 3 * 2**30
    assert registry.room(PROJECT, max_bytes=before + 1) == 1
    with pytest.raises(LimitError) as caught:
        registry.room(PROJECT, max_bytes=before)
    assert caught.value.slug == "quota-storage"
    with pytest.raises(LimitError):
        registry.add_dataset(a_dataset(bytes=11), max_bytes=before + 10)
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_bytes=before - 1)
    with pytest.raises(LimitError):
        registry.add_version(PROJECT, "m", a_version(job), max_bytes=before)
    assert stored(database) == before
    assert registry.room("other", max_bytes=1) == 1
    jobs.delete_result(PROJECT, job.id)
    registry.delete_dataset(PROJECT, dataset.id)
    assert stored(database) == 200


def test_checkpoints_count_as_long_as_a_job_names_them(
    database: Database, jobs: Jobs, work: JobWork, retention: JobRetention
) -> None:
    submitted(jobs)
    job = claimed(work)
    for epoch, size in ((1, 3_000_000), (2, 4_000), (3, 5_000)):
        checkpoint = Checkpoint(
            key=f"jobs/{job.id}/1-{epoch}", sha256="d" * 64, epoch=epoch, step=epoch, bytes=size
        )
        metrics, at = {"epoch": epoch}, (job.id, job.attempt)
        work.record_epoch(*at, lease_s=LEASE_S, metrics=metrics, progress={}, checkpoint=checkpoint)
    assert stored(database) == 9_000
    work.fail(job.id, job.attempt, code="oom", detail="")
    assert stored(database) == 9_000
    assert retention.forget_checkpoints(keep_s=-1, limit=9) == [(job.id, 1)]
    assert stored(database) == 0


def test_a_job_of_a_project_that_stores_too_much_by_now_fails_when_it_is_claimed(
    registry: Registry, jobs: Jobs, work: JobWork
) -> None:
    large = submitted(jobs)
    added(registry, bytes=1000)
    other = submitted(jobs, project="other")
    found = work.claim("w", lease_s=LEASE_S, max_project_bytes=999)
    assert found is not None
    assert found.id == other.id
    failed = jobs.get(PROJECT, large.id)
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == (JobState.FAILED, "quota_storage")


def test_a_project_has_so_many_rows(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MOST_ROWS", 2)
    for _ in range(2):
        jobs.submit(a_job(), max_bytes=10**9)
    with pytest.raises(LimitError, match="delete some"):
        jobs.submit(a_job(), max_bytes=10**9)
    jobs.submit(a_job(project="other"), max_bytes=10**9)
