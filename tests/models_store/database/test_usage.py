"""Quotas of a project, and uploads that come twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select, text, update

from models_store import computed
from models_store.aliases import Aliases
from models_store.computed import Usage
from models_store.database.database import Database
from models_store.database.schema import (
    ComputedRow,
    DatasetRow,
    JobRow,
    ModelRow,
    ModelVersionRow,
    UsageRow,
)
from models_store.database.usage import stored_bytes
from models_store.errors import IdempotencyReusedError, LimitError, NotFoundError
from models_store.job_states import Checkpoint, Idempotency, Job, JobKind, JobResult, JobState
from models_store.jobs.jobs import Jobs
from models_store.labels import LabelChange, Labels, any_state
from models_store.records import Model
from models_store.registry import Registry
from models_store.rows import alias_changes
from tests.clocks import Clock
from tests.models_store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_dataset,
    a_job,
    a_version,
    added,
    submitted,
)

KEY = Idempotency(key="k", fingerprint="f")


def stored(database, project=PROJECT):
    with database.read() as session:
        return stored_bytes(session, project)


def charged(database, project=PROJECT):
    """What the rows of a project are charged with, added up."""
    with database.read() as session:
        return sum(
            session.scalar(select(func.sum(row.charged_bytes)).where(row.project == project)) or 0
            for row in (DatasetRow, JobRow, ModelRow, ModelVersionRow)
        )


def claimed(jobs, work, **changes):
    submitted(jobs, **changes)
    return work.claim("w", lease_s=LEASE_S)


def test_datasets_weights_and_results_count_against_the_quota(database, registry, jobs, work):
    added(registry, bytes=1000)
    job = claimed(jobs, work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job, checkpoint_bytes=200))
    job = claimed(jobs, work, kind=JobKind.SAMPLING, model_version=1)
    result = JobResult(key="r", sha256="e" * 64, bytes=3 * 2**30, rows=1, media_type="text/csv")
    work.finish_bulk(job.id, job.attempt, metrics={}, result=result)

    before = stored(database)
    assert 1200 + 3 * 2**30 < before < 1200 + 3 * 2**30 + 20_000
    assert registry.room("default", max_bytes=before + 1) == 1
    with pytest.raises(LimitError) as caught:
        registry.room("default", max_bytes=before)
    assert caught.value.slug == "quota-storage"
    for refused in (
        lambda: registry.add_dataset(a_dataset(bytes=11), max_bytes=before + 10),
        lambda: jobs.submit(a_job(), max_bytes=before),
        lambda: registry.add_version("default", "m", a_version(job), max_bytes=before),
    ):
        with pytest.raises(LimitError):
            refused()
    assert stored(database) == before == charged(database)
    assert len(registry.datasets("default", limit=10).items) == 1
    assert registry.room("other", max_bytes=1) == 1
    registry.add_dataset(a_dataset(bytes=10), max_bytes=before + 10_000)
    jobs.delete_result("default", job.id)
    assert stored(database) < 30_000


def test_a_known_key_has_room_for_one_request_beyond_the_quota(database, registry):
    registry.add_dataset(a_dataset(bytes=1000), idempotency=KEY)
    full = stored(database)

    def room(max_bytes):
        return registry.room(PROJECT, max_bytes=max_bytes, idempotency_key=KEY.key, repeated=500)

    assert [room(full - 1), room(full), room(full + 100)] == [500, 500, 600]
    assert room(400) == 400


def test_rows_count_with_what_callers_put_into_them(database, registry, jobs, work):
    column = {"name": "x" * 128, "dtype": "float64", "mean": 0.5, "std": 1.0}
    wide = added(registry, columns=[column] * 1000, bytes=1)
    assert stored(database) > 170_000
    registry.delete_dataset("default", wide.id)
    assert stored(database) == 0

    job = claimed(jobs, work, request={"context": [0.25] * 10_000})
    assert stored(database) > 50_000
    for _ in range(100):
        work.add_message(job.id, job.attempt, "x" * 4000)
    assert stored(database) > 450_000
    target = {"log_density": "z1 " * 10_000}
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job, target=target))
    assert stored(database) > 480_000 + 660_000
    assert stored(database) == charged(database)


def test_a_small_quota_holds_however_many_rows_there_are(registry, jobs):
    added(registry)
    refused = 0
    for _ in range(100):
        try:
            jobs.submit(a_job(), max_bytes=50_000)
        except LimitError:
            refused += 1
    assert 50 < refused < 90


def test_unfinished_jobs_count_with_the_most_that_they_may_store(database, jobs, work):
    quota = 10_000
    first = jobs.submit(a_job(reserved_bytes=6000), max_bytes=quota).job
    with pytest.raises(LimitError):
        jobs.submit(a_job(reserved_bytes=6000), max_bytes=quota)
    jobs.submit(a_job(project="other", reserved_bytes=6000), max_bytes=quota)
    jobs.cancel("default", first.id)
    second = jobs.submit(a_job(reserved_bytes=6000), max_bytes=quota).job
    with pytest.raises(LimitError):
        jobs.resume("default", first.id, max_bytes=quota)
    assert jobs.get("default", first.id).state is JobState.CANCELLED
    job = work.claim("w", lease_s=LEASE_S)
    work.fail(job.id, job.attempt, code="oom", detail="")
    job = work.claim("w", lease_s=LEASE_S)
    work.fail(job.id, job.attempt, code="oom", detail="")
    assert jobs.resume("default", first.id, max_bytes=quota).state is JobState.QUEUED
    assert second.id != first.id
    assert stored(database) == charged(database)
    assert stored(database, "other") == charged(database, "other")


def test_submissions_that_race_do_not_pass_the_quota(database, jobs):
    with ThreadPoolExecutor(16) as pool:
        tries = [
            pool.submit(jobs.submit, a_job(reserved_bytes=10_000), max_bytes=55_000)
            for _ in range(32)
        ]
    accepted = [one for one in tries if one.exception() is None]
    refused = [one.exception() for one in tries if one.exception() is not None]
    assert len(accepted) == 5
    assert {type(error) for error in refused} == {LimitError}
    assert stored(database) == charged(database) < 55_000


def test_a_job_beyond_a_quota_that_was_lowered_fails_when_it_is_claimed(database, jobs, work):
    large, small = submitted(jobs, reserved_bytes=90_000), submitted(jobs)
    other = submitted(jobs, project="other")
    quota = 50_000
    found = {work.claim("w", lease_s=LEASE_S, max_project_bytes=quota).id for _ in range(2)}
    assert found == {small.id, other.id}
    failed = jobs.get("default", large.id)
    assert (failed.state, failed.error["code"]) == (JobState.FAILED, "quota_storage")
    assert jobs.resume("default", large.id, max_bytes=100_000).state is JobState.QUEUED
    assert stored(database) == charged(database)


@pytest.mark.parametrize(("kind", "of_two"), [(JobKind.TRAINING, 9_000), (JobKind.SCORING, 5_000)])
def test_checkpoints_count_as_long_as_a_job_names_them(
    database, jobs, work, kind, of_two, retention
):
    job = claimed(jobs, work, kind=kind)
    before = stored(database)
    for epoch, size in ((1, 3_000_000), (2, 4_000), (3, 5_000)):
        checkpoint = Checkpoint(
            key=f"jobs/{job.id}/1-{epoch}", sha256="d" * 64, epoch=epoch, step=epoch, bytes=size
        )
        work.record_epoch(
            job.id, job.attempt, lease_s=LEASE_S, metrics={}, progress={}, checkpoint=checkpoint
        )
    assert stored(database) == before + of_two
    jobs.cancel("default", job.id)
    work.cancelled(job.id, job.attempt)
    assert before + of_two < stored(database) < before + of_two + 3_000
    assert work.kept_checkpoints(job.id, job.attempt) == jobs.get("default", job.id).checkpoints

    assert retention.leftover(keep_s=3600, limit=9) == []
    assert retention.leftover(keep_s=0, limit=9) == [job.id]
    assert retention.forget_checkpoints(job.id, keep_s=3600) is None
    assert retention.forget_checkpoints(job.id, keep_s=0) == job.attempt
    assert retention.leftover(keep_s=0, limit=9) == []
    assert stored(database) == charged(database) < before + 3_000
    assert jobs.resume("default", job.id).checkpoints == []


def test_checkpoints_of_a_job_whose_dataset_is_gone_are_of_no_use(registry, jobs, work, retention):
    dataset = added(registry)
    job = claimed(jobs, work, dataset_id=dataset.id)
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={},
        progress={},
        checkpoint=a_checkpoint(job, 1),
    )
    work.fail(job.id, job.attempt, code="oom", detail="")
    assert retention.leftover(keep_s=3600, limit=9) == []
    registry.delete_dataset("default", dataset.id)
    assert retention.leftover(keep_s=3600, limit=9) == [job.id]
    assert retention.forget_checkpoints(job.id, keep_s=3600) == 1


def test_a_job_that_was_resumed_keeps_its_checkpoints(jobs, work, retention):
    job = claimed(jobs, work)
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={},
        progress={},
        checkpoint=a_checkpoint(job, 1),
    )
    work.fail(job.id, job.attempt, code="oom", detail="")
    assert retention.leftover(keep_s=0, limit=9) == [job.id]
    jobs.resume("default", job.id)
    assert retention.forget_checkpoints(job.id, keep_s=0) is None
    assert work.kept_checkpoints(job.id, job.attempt) is None
    assert len(work.claim("w", lease_s=LEASE_S).checkpoints) == 1


def test_an_upload_that_comes_twice_gives_the_first_dataset(registry):
    first = registry.add_dataset(a_dataset(), idempotency=KEY)
    assert registry.add_dataset(a_dataset(), idempotency=KEY) == first
    assert [one.id for one in registry.datasets("default", limit=10).items] == [first.id]
    with pytest.raises(IdempotencyReusedError):
        registry.add_dataset(a_dataset(), idempotency=Idempotency(key="k", fingerprint="g"))


def test_keys_of_projects_are_apart_and_end_with_their_dataset(registry):
    first = registry.add_dataset(a_dataset(), idempotency=KEY)
    other = registry.add_dataset(a_dataset(project="other"), idempotency=KEY)
    assert other.id != first.id
    registry.delete_dataset("default", first.id)
    again = registry.add_dataset(a_dataset(), idempotency=KEY)
    assert again.id != first.id
    assert registry.add_dataset(a_dataset(project="other"), idempotency=KEY) == other
    with pytest.raises(NotFoundError):
        registry.dataset("default", first.id)


def a_change(**tags: str | None) -> LabelChange:
    return LabelChange(describes=True, description="d" * 1000, tags=tags)


def test_labels_and_the_history_of_aliases_count(
    database, registry, jobs, work, aliases, monkeypatch
):
    monkeypatch.setattr(alias_changes, "MAX_CHANGES", 5)
    labels = Labels(database)
    job = claimed(jobs, work)
    version = work.finish(job.id, job.attempt, metrics={}, version=a_version(job))
    steps: list[Callable[[], object]] = [
        lambda: labels.job(PROJECT, job.id, a_change(a="x" * 200), any_state),
        lambda: labels.model(PROJECT, "shuttle", a_change(a="x" * 200), any_state),
        *(
            partial(aliases.set, PROJECT, "shuttle", "live", version=1, reason=letter * 400)
            for letter in "abcde"
        ),
    ]
    for step in steps:
        before = stored(database)
        step()
        assert stored(database) - before > 600
    full = stored(database)
    aliases.set(PROJECT, "shuttle", "live", version=1, reason="f" * 400)
    assert stored(database) == full == charged(database)
    aliases.delete(PROJECT, "shuttle", "live")
    registry.delete_version(PROJECT, "shuttle", version.version)
    jobs.delete(PROJECT, job.id)
    assert stored(database) == 0 == charged(database)


def test_beyond_the_quota_the_history_of_aliases_forgets_as_much_as_it_learns(database, jobs, work):
    job = claimed(jobs, work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job))
    free, full = Aliases(database), Aliases(database, max_bytes=1)
    for number in range(5):
        free.set(PROJECT, "shuttle", "live", version=1, reason=f"{number}" * 100)
    before = stored(database)
    for number in range(40):
        full.set(PROJECT, "shuttle", "live", version=1, reason=chr(97 + number % 26) * 500)
        assert stored(database) <= before
    full.delete(PROJECT, "shuttle", "live")
    changes = full.changes(PROJECT, "shuttle", limit=100).items
    assert changes[0].version is None
    assert stored(database) == charged(database) <= before
    full.set(PROJECT, "shuttle", "other", version=1)
    assert full.get(PROJECT, "shuttle", "other").version == 1


def database_bytes(database: Database) -> int:
    with database.read() as session:
        if database.is_server:
            return session.scalar(text("SELECT pg_database_size(current_database())")) or 0
        pages = session.scalar(text("PRAGMA page_count")) or 0
        return pages * (session.scalar(text("PRAGMA page_size")) or 0)


@pytest.mark.parametrize("value", ["", "x" * 256])
def test_tags_count_with_the_rows_of_their_index(
    database: Database, registry: Registry, value: str
) -> None:
    tags = {f"t{number}": value for number in range(64)}
    before = database_bytes(database)
    for _ in range(60):
        registry.add_dataset(a_dataset(bytes=0, tags=tags))
    assert stored(database) >= database_bytes(database) - before
    [first, *_] = registry.datasets(PROJECT, limit=1).items
    removed = LabelChange(tags=dict.fromkeys(tags))
    Labels(database).dataset(PROJECT, first.id, removed, any_state)
    assert stored(database) == charged(database)


def test_what_counted_less_before_never_counts_less_than_its_files(
    database: Database, registry: Registry
) -> None:
    tags = {f"t{number}": "" for number in range(64)}
    old = registry.add_dataset(a_dataset(bytes=5000, tags=tags))
    with database.write() as session:  # as before tags counted with their index
        session.execute(update(DatasetRow).values(charged_bytes=6500))
        session.execute(update(UsageRow).values(bytes=6500))
    removed = LabelChange(tags=dict.fromkeys(tags))
    Labels(database).dataset(PROJECT, old.id, removed, any_state)
    assert stored(database) == charged(database) >= 5000


def test_labels_beyond_the_quota_are_refused_and_can_be_removed(database, registry, jobs):
    added(registry)
    job = submitted(jobs)
    jobs.cancel(PROJECT, job.id)
    limit = stored(database) + 1200
    labels = Labels(database, max_bytes=lambda: limit)
    labels.job(PROJECT, job.id, a_change(), any_state)
    with pytest.raises(LimitError) as caught:
        labels.job(PROJECT, job.id, a_change(a="x" * 200, b="y" * 250), any_state)
    assert caught.value.slug == "quota-storage"
    assert jobs.get(PROJECT, job.id).tags == {}
    labels = Labels(database, max_bytes=lambda: 1)
    assert labels.job(PROJECT, job.id, LabelChange(describes=True), any_state).description is None


def test_labels_from_before_they_counted_can_be_removed_at_the_quota(database, jobs, work):
    job = claimed(jobs, work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job))
    labels = Labels(database)
    owners: list[Callable[..., Job | Model]] = [
        partial(labels.job, PROJECT, job.id),
        partial(labels.model, PROJECT, "shuttle"),
    ]
    for change in owners:
        change(a_change(a="x" * 200, b="y" * 200), any_state)
    with database.write() as session:
        for kind in (JobRow, ModelRow):
            session.execute(update(kind).values(charged_bytes=0))
        of_version = select(ModelVersionRow.charged_bytes).scalar_subquery()
        session.execute(update(UsageRow).values(bytes=of_version))
    labels._max_bytes = partial(stored, database)
    for change in owners:
        assert change(a_change(a=None), any_state).tags == {"b": "y" * 200}
        with pytest.raises(LimitError):
            change(a_change(c="z"), any_state)
    assert stored(database) == charged(database)


def test_changes_of_aliases_from_before_they_counted_free_nothing(
    database, jobs, work, aliases, monkeypatch
):
    monkeypatch.setattr(alias_changes, "MAX_CHANGES", 1)
    job = claimed(jobs, work)
    work.finish(job.id, job.attempt, metrics={}, version=a_version(job))
    aliases.set(PROJECT, "shuttle", "live", version=1, reason="a" * 400)
    with database.write() as session:
        session.scalars(select(ModelRow)).one().history_bytes = 0
    aliases.set(PROJECT, "shuttle", "live", version=1, reason="b")
    with database.read() as session:
        assert session.scalars(select(ModelRow)).one().history_bytes == 0
    assert stored(database) == charged(database)


def test_very_many_jobs_are_counted_once_a_second(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, usage = Clock(), Usage(database)
    monkeypatch.setattr(computed, "monotonic", clock.monotonic)
    monkeypatch.setattr(computed, "_MANY", 3)

    def counted() -> dict[str, int]:
        return usage.of_project(PROJECT).jobs

    submitted(jobs)
    assert counted() == {"queued": 1}
    submitted(jobs)
    assert counted() == {"queued": 2}, "few are counted each time"
    submitted(jobs)
    assert counted() == {"queued": 3}
    submitted(jobs)
    assert counted() == {"queued": 3}
    assert usage.of_project("other").jobs == {}
    clock.now += 1.0
    assert counted() == {"queued": 4}


def test_days_that_no_longer_count_are_forgotten(database: Database) -> None:
    usage = Usage(database)
    usage.add_rows({"default": 1, "other": 1})
    with database.write() as session:
        [today] = set(session.scalars(select(ComputedRow.day)))
        for age in (20, 31, 4000):
            session.add(ComputedRow(project="default", day=today - age, rows=10))
    usage.add_rows({"default": 5})
    with database.read() as session:
        days = set(session.scalars(select(ComputedRow.day)))
    assert min(days) == today - 20
    assert usage.of_project("default").rows_recently == 16
