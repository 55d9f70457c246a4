"""Deletion of versions, models and jobs: what refuses it, what goes with it, and what stays."""

from typing import Any

import pytest
from sqlalchemy import func, select, update

from models_store import quotas
from models_store.computed import Usage
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import (
    ComputedRow,
    IdempotencyRow,
    JobDatasetRow,
    JobEventRow,
    JobRow,
    ModelVersionRow,
    MonitoredRow,
    WebhookDeliveryRow,
)
from models_store.errors import ConflictError, LimitError, NotFoundError
from models_store.files.blobs import next_table_key
from models_store.job_states import Checkpoint, Idempotency, Job, JobKind, JobResult, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.monitoring import KEPT_DAYS, Monitoring
from models_store.projects import Projects
from models_store.quotas import stored_bytes
from models_store.records import Version
from models_store.registry import Registry
from models_store.reviews import Reviews
from models_store.webhooks.webhooks import Webhooks
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_dataset,
    a_job,
    a_version,
    added,
    claimed,
    finished,
    submitted,
)

NAME = "shuttle"


def trained(jobs: Jobs, work: JobWork, **changes: Any) -> Version:
    submitted(jobs, **changes)
    job = claimed(work)
    return finished(work, job)


def scoring(jobs: Jobs, version: Version) -> Job:
    return submitted(
        jobs,
        kind=JobKind.SAMPLING,
        model_name=version.name,
        model_version=version.version,
        request={"model": version.ref},
    )


def stored(database: Database) -> int:
    with database.read() as session:
        return stored_bytes(session, PROJECT)


def counted(database: Database) -> dict[str, int]:
    tables = (JobRow, JobEventRow, JobDatasetRow, ModelVersionRow, IdempotencyRow)
    with database.read() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in tables
        }


def test_a_deleted_version_is_gone_and_its_bytes_come_back(database, jobs, work, registry):
    first = trained(jobs, work)
    before = stored(database)
    second = trained(jobs, work)
    assert registry.delete_version(PROJECT, NAME, 2) == [second.checkpoint_key]
    assert second.job_id is not None
    jobs.delete(PROJECT, second.job_id)
    assert stored(database) == before
    for look in (registry.version, registry.version_summary, registry.delete_version):
        with pytest.raises(NotFoundError):
            look(PROJECT, NAME, 2)
    assert registry.resolve(PROJECT, NAME) == first
    with pytest.raises(NotFoundError):
        registry.resolve(PROJECT, f"{NAME}:2")


@pytest.mark.parametrize("number", [0, 2, 2**31 - 1, 2**31, 2**70])
def test_a_version_that_is_not_there_cannot_be_deleted(jobs, work, registry, number):
    trained(jobs, work)
    with pytest.raises(NotFoundError):
        registry.delete_version(PROJECT, NAME, number)
    for project, name in ((PROJECT, "nobody"), ("other", NAME)):
        with pytest.raises(NotFoundError):
            registry.delete_version(project, name, 1)
        with pytest.raises(NotFoundError):
            registry.delete_model(project, name)
    assert registry.version(PROJECT, NAME, 1).version == 1


def test_a_number_is_never_used_twice(jobs: Jobs, work: JobWork, registry: Registry) -> None:
    for _ in range(2):
        trained(jobs, work)
    registry.delete_version(PROJECT, NAME, 2)
    assert registry.model(PROJECT, NAME).latest_version == 1
    assert trained(jobs, work).version == 3
    registry.delete_version(PROJECT, NAME, 1)
    assert registry.model(PROJECT, NAME).latest_version == 3
    registry.delete_model(PROJECT, NAME)
    assert registry.models(PROJECT, limit=9).items == []
    for look in (registry.model, registry.resolve, registry.delete_model):
        with pytest.raises(NotFoundError):
            look(PROJECT, NAME)
    with pytest.raises(NotFoundError):
        registry.versions(PROJECT, NAME, limit=9)
    again = trained(jobs, work)
    assert again.version == 4
    assert registry.model(PROJECT, NAME).latest_version == 4
    assert [version.version for version in registry.versions(PROJECT, NAME, limit=9).items] == [4]


def test_a_version_stays_while_an_alias_points_at_it(jobs, work, registry, aliases):
    for _ in range(2):
        trained(jobs, work)
    tag = aliases.set(PROJECT, NAME, "production", version=1).revision
    with pytest.raises(ConflictError, match="Alias production points at version shuttle:1"):
        registry.delete_version(PROJECT, NAME, 1)
    with pytest.raises(ConflictError, match="shuttle:1"):
        registry.delete_model(PROJECT, NAME)
    registry.delete_version(PROJECT, NAME, 2)
    aliases.delete(PROJECT, NAME, "production")
    registry.delete_model(PROJECT, NAME)
    # Not even an ETag of an alias comes twice.
    trained(jobs, work)
    assert aliases.set(PROJECT, NAME, "production", version=3).revision > tag


def test_a_version_stays_while_a_job_uses_it(jobs: Jobs, work: JobWork, registry: Registry) -> None:
    first, second = trained(jobs, work), trained(jobs, work)
    job = scoring(jobs, first)
    registry.delete_version(PROJECT, NAME, second.version)
    for delete in (
        lambda: registry.delete_version(PROJECT, NAME, 1),
        lambda: registry.delete_model(PROJECT, NAME),
    ):
        with pytest.raises(ConflictError, match=f"Job {job.id}, .* version shuttle:1"):
            delete()
    held = claimed(work)
    with pytest.raises(ConflictError):
        registry.delete_version(PROJECT, NAME, 1)
    jobs.cancel(PROJECT, job.id)
    work.cancelled(held.id, held.attempt)
    registry.add_version("theirs", NAME, a_version(job))
    uses = {"project": "theirs", "model_name": NAME, "model_version": 1}
    submitted(jobs, kind=JobKind.SAMPLING, **uses)  # that of its own project
    registry.delete_version(PROJECT, NAME, 1)
    with pytest.raises(NotFoundError):
        jobs.resume(PROJECT, job.id)
    with pytest.raises(NotFoundError):
        scoring(jobs, first)
    assert jobs.get(PROJECT, job.id).state == "cancelled"


def test_checkpoints_of_a_job_whose_version_is_gone_are_of_no_use(jobs, work, registry, retention):
    job = scoring(jobs, trained(jobs, work))
    held = claimed(work)
    at = a_checkpoint(held, 1)
    work.record_epoch(job.id, 1, lease_s=LEASE_S, metrics={"part": 1}, progress={}, checkpoint=at)
    jobs.cancel(PROJECT, job.id)
    work.cancelled(job.id, 1)
    assert retention.forget_checkpoints(keep_s=3600, limit=9) == []
    registry.delete_version(PROJECT, NAME, 1)
    assert retention.forget_checkpoints(keep_s=3600, limit=9) == [(job.id, 1)]


def test_a_key_of_an_import_ends_with_its_version(jobs: Jobs, registry: Registry) -> None:
    key = Idempotency(key="k", fingerprint="f")
    other = Idempotency(key="other", fingerprint="f")
    job = submitted(jobs)

    def imported(at: str, key: Idempotency) -> Version:
        new = a_version(job, checkpoint_key=f"models/imported/{at}.safetensors")
        return registry.add_version(PROJECT, NAME, new, idempotency=key)

    first = imported("1" * 32, key)
    assert imported("2" * 32, other).version == 2
    assert imported("3" * 32, key) == first
    registry.delete_version(PROJECT, NAME, 1)
    assert imported("4" * 32, other).version == 2
    assert imported("5" * 32, key).version == 3
    registry.delete_model(PROJECT, NAME)
    assert imported("6" * 32, key).version == 4


def test_a_deleted_job_leaves_no_row(database: Database, jobs: Jobs, registry: Registry) -> None:
    dataset = added(registry)
    before, rows = stored(database), counted(database)
    key = Idempotency(key="k", fingerprint="f")
    job = jobs.submit(a_job(dataset_id=dataset.id), idempotency=key).job
    with pytest.raises(ConflictError, match="queued; cancel it first"):
        jobs.delete(PROJECT, job.id)
    jobs.cancel(PROJECT, job.id)
    with pytest.raises(NotFoundError):
        jobs.delete("other", job.id)
    jobs.delete(PROJECT, job.id)
    assert (stored(database), counted(database)) == (before, rows)
    for look in (jobs.get, jobs.summary, jobs.delete, jobs.cancel, jobs.resume):
        with pytest.raises(NotFoundError):
            look(PROJECT, job.id)
    assert jobs.submitted(PROJECT, key) is None
    again = jobs.submit(a_job(dataset_id=dataset.id), idempotency=key)
    assert not again.replayed


def test_a_job_stays_while_its_version_exists(jobs, work, registry):
    version = trained(jobs, work)
    assert version.job_id is not None
    with pytest.raises(ConflictError, match="made version shuttle:1"):
        jobs.delete(PROJECT, version.job_id)
    registry.delete_version(PROJECT, NAME, 1)
    jobs.delete(PROJECT, version.job_id)


def test_jobs_expire_that_ended_long_ago_and_made_no_version_that_exists(
    database, jobs, work, registry, retention
):
    version = trained(jobs, work)
    done = scoring(jobs, version)
    claimed(work)
    result = JobResult(
        key=f"results/{done.id}/1.npy", sha256="a" * 64, bytes=9, media_type="x/y", rows=1
    )
    work.finish(done.id, 1, metrics={}, result=result)
    cancelled, fresh, waiting = submitted(jobs), submitted(jobs), submitted(jobs)
    for job in (cancelled, fresh):
        jobs.cancel(PROJECT, job.id)
    with database.write() as session:
        old = [version.job_id, done.id, cancelled.id]
        session.execute(update(JobRow).where(JobRow.id.in_(old)).values(finished_at=db_now(-7200)))
    jobs.resume(PROJECT, cancelled.id)
    assert retention.delete_expired(keep_s=3600, limit=9) == [done.id]
    assert retention.delete_expired(keep_s=3600, limit=9) == []
    registry.delete_model(PROJECT, NAME)
    assert retention.delete_expired(keep_s=3600, limit=9) == [version.job_id]
    assert jobs.get(PROJECT, waiting.id).state == "queued"


def bytes_stored(database: Database) -> int:
    return Usage(database).of_project(PROJECT).stored_bytes


def test_datasets_weights_and_results_count_against_the_quota(database, registry, jobs, work):
    cells = {"key": "c", "sha256": "e" * 64, "bytes": 500}
    dataset = added(registry, bytes=1000, cells=cells)
    submitted(jobs)
    job = claimed(work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job, checkpoint_bytes=200))
    submitted(jobs, kind=JobKind.SAMPLING, model_version=1)
    job = claimed(work)
    result = JobResult(key="r", sha256="e" * 64, bytes=3 * 2**30, rows=1, media_type="text/csv")
    work.finish(job.id, job.attempt, metrics={}, result=result)

    before = bytes_stored(database)
    assert before == 1700 + 3 * 2**30
    assert registry.room(PROJECT, max_bytes=before + 1) == 1
    with pytest.raises(LimitError) as caught:
        registry.room(PROJECT, max_bytes=before)
    assert caught.value.slug == "quota-storage"
    with pytest.raises(LimitError):
        registry.add_dataset(a_dataset(bytes=11), max_bytes=before + 10)
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_bytes=before - 1)
    jobs.submit(a_job(), max_bytes=before)
    with pytest.raises(LimitError):
        registry.add_version(PROJECT, "m", a_version(job), max_bytes=before)
    assert bytes_stored(database) == before
    assert registry.room("other", max_bytes=1) == 1
    projects = Projects(database)
    projects.put(PROJECT, max_bytes=before + 7, max_queued_jobs=None)
    assert registry.room(PROJECT, max_bytes=1) == 7, "its own limit counts"
    projects.put(PROJECT, max_bytes=None, max_queued_jobs=None)
    added(registry, project="theirs")
    listed = [(one.name, one.stored_bytes) for one in projects.list()]
    assert listed == [(PROJECT, before), ("theirs", 152)]
    jobs.delete_result(PROJECT, job.id)
    smaller = a_dataset(id=dataset.id, key=next_table_key(dataset.id), bytes=700)
    registry.retype_dataset(dataset, smaller)
    assert bytes_stored(database) == 900
    registry.delete_dataset(PROJECT, dataset.id)
    assert bytes_stored(database) == 200


def test_checkpoints_count_as_long_as_a_job_names_them(database, jobs, work, retention):
    submitted(jobs)
    job = claimed(work)
    for epoch, size in ((1, 3_000_000), (2, 4_000), (3, 5_000)):
        checkpoint = Checkpoint(
            key=f"jobs/{job.id}/1-{epoch}", sha256="d" * 64, epoch=epoch, step=epoch, bytes=size
        )
        metrics, at = {"epoch": epoch}, (job.id, job.attempt)
        work.record_epoch(*at, lease_s=LEASE_S, metrics=metrics, progress={}, checkpoint=checkpoint)
    assert bytes_stored(database) == 9_000
    work.fail(job.id, job.attempt, code="oom", detail="")
    assert bytes_stored(database) == 9_000
    assert retention.forget_checkpoints(keep_s=-1, limit=9) == [(job.id, 1)]
    assert bytes_stored(database) == 0


def test_a_job_of_a_project_that_stores_too_much_by_now_fails_when_it_is_claimed(
    registry, jobs, work
):
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


def test_computed_rows_count_for_their_project_and_thirty_days(database):
    usage = Usage(database)

    def days_later(days: int) -> None:
        with database.write() as session:
            session.execute(update(ComputedRow).values(day=ComputedRow.day - days))

    def found(project: str) -> tuple[int, int]:
        of_project = usage.of_project(project)
        return of_project.rows_today, of_project.rows_recently

    usage.add_rows({"a": 3, "b": 100})
    usage.add_rows({"a": 4})
    assert (found("a"), found("b")) == ((7, 7), (100, 100))
    days_later(29)
    usage.add_rows({"a": 50})
    assert (found("a"), found("b")) == ((50, 57), (0, 100))
    days_later(1)
    assert (found("a"), found("b")) == ((0, 50), (0, 0))


def number_of(database: Database, row: type[Any]) -> int | None:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(row))


def test_counts_of_scored_rows_are_told_once_a_day_and_kept_for_ninety(database, jobs, work):
    trained(jobs, work)
    Webhooks(database).create(PROJECT, "https://example.org/", events=["model.drifted"])
    monitoring, at = Monitoring(database), (PROJECT, NAME, 1)

    def let_pass(hours: int) -> None:
        with database.write() as session:
            session.execute(update(MonitoredRow).values(hour=MonitoredRow.hour - hours))

    for days in (1, 2):
        monitoring.add(*at, {"rows": 3})
        for _ in range(2):
            monitoring.announce(*at, {"days": days})
        assert number_of(database, WebhookDeliveryRow) == days
        let_pass(24)
    let_pass(24 * KEPT_DAYS - 25)
    monitoring.prune()
    assert number_of(database, MonitoredRow) == 1
    let_pass(2)
    monitoring.prune()
    assert number_of(database, MonitoredRow) == 0


def test_a_day_begins_with_its_first_hour(database, jobs, work):
    trained(jobs, work)
    monitoring = Monitoring(database)
    monitoring.add(PROJECT, NAME, 1, {"rows": 3})
    found = []
    for hour in (MonitoredRow.hour - MonitoredRow.hour % 24, MonitoredRow.hour - 1):
        with database.write() as session:
            session.execute(update(MonitoredRow).values(hour=hour))
        found.append([one.counts for one in monitoring.scored(since=None)[1]])
    assert found == [[{"rows": 3}], []]


def test_a_model_has_so_many_reviews_and_its_successor_none(
    database, jobs, work, registry, monkeypatch
):
    monkeypatch.setattr("models_store.reviews.MAX_REVIEWS", 2)
    trained(jobs, work)
    reviews, digests = Reviews(database), ["0" * 64, "1" * 64]
    trained(jobs, work, model_name="other")
    reviews.set(PROJECT, "other", digests[0], "confirmed")
    for digest in digests:
        reviews.set(PROJECT, NAME, digest, "confirmed")
    with pytest.raises(LimitError):
        reviews.set(PROJECT, NAME, "2" * 64, "confirmed")
    reviews.set(PROJECT, NAME, digests[0], "not_unusual")
    found = reviews.of(PROJECT, NAME, digests)
    assert [found[digest] for digest in digests] == ["not_unusual", "confirmed"]
    registry.delete_model(PROJECT, NAME)
    trained(jobs, work)
    assert reviews.of(PROJECT, NAME, digests) == {}
    assert reviews.of(PROJECT, "other", digests) == {digests[0]: "confirmed"}
