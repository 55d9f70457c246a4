"""Jobs as callers see them, on both databases."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.ids import new_id
from models_store.database.schema import IdempotencyRow
from models_store.errors import (
    BlobCorruptError,
    BlobMissingError,
    CancelledInsteadError,
    CheckpointMismatchError,
    ConflictError,
    LimitError,
    NotFoundError,
    RequestError,
)
from models_store.files.blobs import Blobs, next_table_key, part_key, parts_key
from models_store.files.job_files import ResultPart, load_list, save_list
from models_store.job_states import EventKind, Idempotency, Job, JobKind, JobResult, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.records import Dataset, Version
from models_store.registry import Registry
from models_store.requests.accept_bulk import accept_imputation, accept_sampling, accept_scoring
from models_store.requests.bulk import ImputationRequest, SamplingRequest, ScoringRequest
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
    record,
    refused,
    submitted,
)

KEY = Idempotency(key="once", fingerprint="f" * 64)


def test_a_submitted_job_waits_in_the_queue(jobs: Jobs) -> None:
    submission = jobs.submit(a_job(request_id="req-1", traceparent="00-a-b-01"))
    job = submission.job
    assert not submission.replayed
    assert job == jobs.get(PROJECT, job.id)
    assert (job.state, job.attempt, job.final) == (JobState.QUEUED, 0, False)
    assert (job.request_id, job.traceparent) == ("req-1", "00-a-b-01")
    assert job.request == a_job().request
    assert (job.error, job.metrics, job.progress, job.checkpoints) == (None, None, None, [])
    assert abs(job.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert [event.data for event in jobs.events(PROJECT, job.id)] == [
        {"state": "queued", "attempt": 0}
    ]


def test_a_request_comes_back_as_it_was_in_order_and_in_text(jobs: Jobs) -> None:
    request = {
        "z": 1,
        "a": [1.5, None, True],
        "text": "\u202e \U0001f600 \x00 ' \ud800",
        "n": 2**53,
    }
    job = submitted(jobs, request=request)
    assert json.dumps(jobs.get(PROJECT, job.id).request) == json.dumps(request)


def test_an_unknown_job_is_not_found_whatever_its_id(jobs: Jobs) -> None:
    for bad in ("job_x", "", "job_" + "0" * 32, "a\0b", "x" * 100_000, "ds_" + "0" * 32):
        for look in (jobs.get, jobs.cancel, jobs.resume, jobs.events):
            with pytest.raises(NotFoundError, match="job"):
                look(PROJECT, bad)


def test_a_job_needs_all_its_datasets_in_its_own_project(jobs: Jobs, registry: Registry) -> None:
    ours, theirs = added(registry), added(registry, project="theirs")
    for wanted in (
        {"dataset_id": new_id("ds")},
        {"dataset_id": theirs.id},
        {"dataset_id": "nul\0"},
        {"dataset_id": ours.id, "held_out_ids": (theirs.id,)},
    ):
        with pytest.raises(NotFoundError, match="dataset"):
            submitted(jobs, **wanted)
    assert jobs.list(PROJECT, limit=10).items == []
    assert submitted(jobs, dataset_id=ours.id, held_out_ids=(ours.id,)).dataset_id == ours.id


def test_a_full_queue_refuses_and_keeps_what_it_accepted(jobs: Jobs) -> None:
    kept = [jobs.submit(a_job(), max_queued=2).job.id for _ in range(2)]
    with pytest.raises(LimitError) as caught:
        jobs.submit(a_job(), max_queued=2, idempotency=KEY)
    assert caught.value.slug == "limit-queued-jobs"
    jobs.submit(a_job(project="theirs"), max_queued=2)
    jobs.cancel(PROJECT, kept[0])
    # A refused request leaves no trace of its key.
    assert not jobs.submit(a_job(), max_queued=2, idempotency=KEY).replayed


def test_a_repeated_request_gets_its_first_answer_again(jobs: Jobs, work: JobWork) -> None:
    first = jobs.submit(a_job(), idempotency=KEY)
    held = claimed(work)
    work.finish(held.id, held.attempt, metrics={}, version=a_version(held))
    again = jobs.submit(a_job(), idempotency=KEY)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.job == first.job
    assert len(jobs.list(PROJECT, limit=10).items) == 1


def test_a_key_is_forgotten_after_its_day(jobs: Jobs, database: Database) -> None:
    first = jobs.submit(a_job(), idempotency=KEY)
    for other in ("a", "b"):
        jobs.submit(a_job(), idempotency=Idempotency(key=other, fingerprint=""))
    with database.read() as session:
        age = session.scalars(
            select(IdempotencyRow.key).where(
                IdempotencyRow.expires_at > db_now(24 * 3600 - 60),
                IdempotencyRow.expires_at < db_now(24 * 3600 + 60),
            )
        )
        assert len(age.all()) == 3
    with database.write() as session:
        session.execute(update(IdempotencyRow).values(expires_at=db_now(-1)))
    assert jobs.submitted(PROJECT, KEY) is None
    again = jobs.submit(a_job(), idempotency=Idempotency(key=KEY.key, fingerprint="new"))
    assert not again.replayed
    assert again.job.id != first.job.id
    with database.read() as session:
        assert session.scalars(select(IdempotencyRow.key)).all() == [KEY.key]


def kinds(jobs: Jobs, job: Job) -> list[str]:
    return [event.event for event in jobs.events(PROJECT, job.id)]


def test_cancelling_a_running_job_asks_its_worker(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work)
    assert work.renew(job.id, job.attempt, lease_s=LEASE_S) is False
    for _ in range(2):
        asked = jobs.cancel(PROJECT, job.id)
        assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert work.renew(job.id, job.attempt, lease_s=LEASE_S) is True
    work.cancelled(job.id, job.attempt)
    assert jobs.get(PROJECT, job.id).state is JobState.CANCELLED
    assert kinds(jobs, job) == ["state", "state", "message", "state", "end"]


def test_a_cancelled_or_failed_job_resumes_behind_the_others(jobs: Jobs, work: JobWork) -> None:
    failed = submitted(jobs)
    held = claimed(work)
    work.fail(failed.id, held.attempt, code="diverged", detail=None)
    assert jobs.get(PROJECT, failed.id).error == {
        "code": "diverged",
        "detail": "An unexpected fault of the service; its log tells more.",
    }
    cancelled, waiting = submitted(jobs), submitted(jobs)
    jobs.cancel(PROJECT, cancelled.id)
    for job in (failed, cancelled):
        resumed = jobs.resume(PROJECT, job.id)
        assert (resumed.state, resumed.cancel_requested) == (JobState.QUEUED, False)
        assert (resumed.error, resumed.finished_at) == (None, None)
    order = [waiting.id, failed.id, cancelled.id]
    assert [getattr(work.claim("w", lease_s=LEASE_S), "id", None) for _ in order] == order


def test_a_job_is_resumed_only_where_it_may_be_queued(jobs: Jobs) -> None:
    cancelled = submitted(jobs)
    jobs.cancel(PROJECT, cancelled.id)
    waiting = submitted(jobs)
    with pytest.raises(LimitError) as caught:
        jobs.resume(PROJECT, cancelled.id, max_queued=1)
    assert caught.value.slug == "limit-queued-jobs"
    assert jobs.get(PROJECT, cancelled.id).state is JobState.CANCELLED
    jobs.cancel(PROJECT, waiting.id)
    assert jobs.resume(PROJECT, cancelled.id, max_queued=1).state is JobState.QUEUED


def test_a_dataset_stays_while_a_job_needs_it(jobs, registry, work):
    dataset, held_out = added(registry), added(registry)
    job = submitted(jobs, dataset_id=dataset.id, held_out_ids=(held_out.id,))
    for wanted in (dataset, held_out):
        with refused("dataset-in-use"):
            registry.delete_dataset(PROJECT, wanted.id)
    held = claimed(work)
    with refused("dataset-in-use"):
        registry.delete_dataset(PROJECT, held_out.id)
    version = finished(work, held)
    assert registry.delete_dataset(PROJECT, dataset.id).id == dataset.id
    # What was made from it still says so.
    assert registry.version(PROJECT, "shuttle", version.version).dataset_id == dataset.id
    assert jobs.get(PROJECT, job.id).dataset_id == dataset.id


def test_a_job_whose_dataset_got_other_types_cannot_be_resumed(jobs, registry, retention, work):
    dataset, held_out, other = (added(registry) for _ in range(3))
    both = submitted(jobs, dataset_id=dataset.id, held_out_ids=(held_out.id,))
    apart = submitted(jobs, dataset_id=other.id)
    for job in (both, apart):
        running = claimed(work)
        record(work, running, 1, checkpoint=a_checkpoint(running, 1) | {"bytes": 100})
        jobs.cancel(PROJECT, job.id)
        work.cancelled(job.id, 1)
    new = replace(a_dataset(id=held_out.id), key=next_table_key(held_out.id), sha256="e" * 64)
    registry.retype_dataset(held_out, new)
    with pytest.raises(ConflictError, match="types of a dataset"):
        jobs.resume(PROJECT, both.id)
    forgotten = retention.forget_checkpoints(keep_s=3600, limit=9)
    assert forgotten == [(both.id, 1)], "its checkpoints are of no use"
    assert jobs.resume(PROJECT, apart.id).state is JobState.QUEUED
    assert submitted(jobs, dataset_id=held_out.id).state is JobState.QUEUED
    assert jobs.delete(PROJECT, both.id) == [both.id]


def test_a_job_whose_dataset_was_given_the_types_that_it_had_can_be_resumed(jobs, registry):
    column = {"name": "x", "type": "number", "reason": "Its cells are numbers."}
    dataset = added(registry, columns=[column])
    job = submitted(jobs, dataset_id=dataset.id)
    jobs.cancel(PROJECT, job.id)
    stated = [{**column, "reason": "It was stated."}]
    key = next_table_key(dataset.id)
    same = a_dataset(id=dataset.id, columns=stated, key=key)
    again = registry.retype_dataset(dataset, same)
    assert jobs.resume(PROJECT, job.id).state is JobState.QUEUED
    jobs.cancel(PROJECT, job.id)
    other = replace(same, columns=[{**column, "type": "integer"}], key=next_table_key(dataset.id))
    registry.retype_dataset(again, other)
    with pytest.raises(ConflictError, match="types of a dataset"):
        jobs.resume(PROJECT, job.id)


def test_events_are_paged_by_number(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work)
    for number in range(5):
        work.add_message(job.id, job.attempt, f"{number}\0\ud800" + "x" * 10_000)
    events = jobs.events(PROJECT, job.id)
    assert [event.seq for event in events] == list(range(1, 8))
    assert [event.seq for event in jobs.events(PROJECT, job.id, after=2, limit=3)] == [3, 4, 5]
    assert jobs.events(PROJECT, job.id, after=7) == []
    assert jobs.events(PROJECT, job.id, after=10**30) == []
    assert len(jobs.events(PROJECT, job.id, after=-(10**30))) == 7
    assert len(events[-1].data["text"]) == 4000


def test_events_of_a_kind_are_spread_evenly(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work)
    spread = partial(jobs.spread_events, PROJECT, job.id, EventKind.EPOCH)
    assert spread(most=5) == []
    for number in range(1, 13):
        told = {"epoch": number}
        work.record_epoch(job.id, job.attempt, lease_s=LEASE_S, metrics=told, progress={})
    work.add_message(job.id, job.attempt, "over")
    assert [data["epoch"] for data in spread(most=5)] == [1, 3, 6, 9, 12]
    assert [data["epoch"] for data in spread(most=2)] == [1, 12]
    assert [data["epoch"] for data in spread(most=100)] == [*range(1, 13)]
    for project, job_id in (("other", job.id), (PROJECT, "job_0")):
        with pytest.raises(NotFoundError):
            jobs.spread_events(project, job_id, EventKind.EPOCH, most=5)


@pytest.fixture
def served(jobs: Jobs, registry: Registry) -> Jobs:
    """The jobs, beside three versions that they may use."""
    job = submitted(jobs)
    jobs.cancel(PROJECT, job.id)
    for _ in range(3):
        registry.add_version(PROJECT, "shuttle", a_version(job))
    return jobs


def a_bulk_job(jobs: Jobs, work: JobWork, *, lease_s: float = LEASE_S) -> Job:
    submitted(jobs, kind=JobKind.SCORING, model_version=3)
    return claimed(work, lease_s=lease_s)


def a_result(job: Job, **changes: Any) -> JobResult:
    values: dict[str, Any] = {
        "key": f"results/{job.id}/{job.attempt}.parquet",
        "sha256": "e" * 64,
        "bytes": 2**40,
        "rows": 10,
        "media_type": "application/vnd.apache.parquet",
        **changes,
    }
    return JobResult(**values)  # type: ignore[typeddict-item, no-any-return]  # a whole one


def test_a_result_ends_the_job_and_makes_no_version(served, work, database):
    job = a_bulk_job(served, work)
    record(work, job, 1, metrics={"part": 1, "rows": 5})
    for _ in range(2):  # the second time as after an answer that was lost
        work.finish(job.id, job.attempt, metrics={"rows": 10}, result=a_result(job))
    now = served.get(PROJECT, job.id)
    assert (now.state, now.result, now.metrics) == (JobState.SUCCEEDED, a_result(job), {"rows": 10})
    assert (now.checkpoints, now.lease_expires_at, now.model_version) == ([], None, 3)
    assert kinds(served, job) == ["state", "state", "epoch", "state", "end"]
    assert Registry(database).model(PROJECT, "shuttle").latest_version == 3


def test_an_attempt_whose_answer_was_lost_has_ended_it_whatever_became_of_the_result(served, work):
    job = a_bulk_job(served, work)
    work.finish(job.id, job.attempt, metrics={"rows": 10}, result=a_result(job))
    served.delete_result(PROJECT, job.id)
    work.finish(job.id, job.attempt, metrics={"rows": 10}, result=a_result(job))
    assert served.get(PROJECT, job.id).result is None


def test_the_newest_scoring_of_a_dataset_by_a_version_is_found(served, work, registry):
    scored: dict[str, str] = {}
    version = registry.version(PROJECT, "shuttle", 3)
    for dataset_id in [added(registry).id for _ in "ab"] * 2:
        submitted(served, kind=JobKind.SCORING, model_version=3, dataset_id=dataset_id)
        job = claimed(work)
        assert served.scored(version, dataset_id) == scored.get(dataset_id), "it has not ended"
        work.finish(job.id, job.attempt, metrics={"rows": 10}, result=a_result(job))
        scored[dataset_id] = job.id
    assert [served.scored(version, dataset_id) for dataset_id in scored] == [*scored.values()]
    assert served.scored(registry.version(PROJECT, "shuttle", 2), dataset_id) is None


def test_a_cancel_request_comes_before_a_result(served: Jobs, work: JobWork) -> None:
    job = a_bulk_job(served, work)
    served.cancel(PROJECT, job.id)
    with pytest.raises(CancelledInsteadError):
        work.finish(job.id, job.attempt, metrics={}, result=a_result(job))
    assert served.get(PROJECT, job.id).state is JobState.CANCELLED


def test_a_list_of_parts_is_read_back_only_if_it_is_whole(tmp_path: Path) -> None:
    blobs = Blobs.in_folder(tmp_path)
    parts = [
        ResultPart(key=part_key("job_1", 1, number=n), sha256="a" * 64, rows=n) for n in (1, 2)
    ]
    stored = save_list(blobs, parts_key("job_1", 1, number=2), parts)
    assert load_list(blobs, stored.key, stored.sha256) == parts
    with pytest.raises(BlobCorruptError):
        load_list(blobs, stored.key, "0" * 64)
    with blobs.staged(".json") as path:
        path.write_text('{"format": 1, "kind": "state"}')
        other = blobs.commit(path, parts_key("job_1", 1, number=3))
    with pytest.raises(CheckpointMismatchError):
        load_list(blobs, other.key, other.sha256)
    blobs.delete(stored.key)
    with pytest.raises(BlobMissingError):
        load_list(blobs, stored.key, stored.sha256)


@pytest.fixture
def version(jobs: Jobs, work: JobWork) -> Version:
    """Of `shuttle`: columns a and b given c."""
    submitted(jobs)
    job = claimed(work)
    return finished(work, job, context_columns=["c"])


@pytest.fixture
def dataset(database: Database) -> Dataset:
    columns = [{"name": name} for name in ("c", "d", "b", "a")]
    return added(Registry(database), columns=columns, rows=100)


def test_the_context_of_a_conditional_model_is_part_of_its_columns(version, dataset):
    request = ScoringRequest(model="shuttle", dataset_id=dataset.id)
    accepted = accept_scoring(request, version, dataset, max_bytes=1_600)
    assert (accepted.model, accepted.columns) == (version.ref, ["a", "b", "c"])
    less = replace(dataset, columns=dataset.columns[1:])
    with pytest.raises(RequestError, match=r"lacks 1 of the 3 .* first is 'c'") as error:
        accept_scoring(request, version, less, max_bytes=1_600)
    assert (error.value.slug, error.value.pointer) == ("unknown-column", "/dataset_id")
    gaps = ImputationRequest(model="shuttle", dataset_id=dataset.id)
    with pytest.raises(RequestError, match="context columns") as error:
        accept_imputation(gaps, version, dataset, max_bytes=10**9)
    assert (error.value.slug, error.value.pointer) == ("question-unavailable", "/model")


def test_a_result_that_is_too_large_is_refused(version: Version, dataset: Dataset) -> None:
    for parts, width in ((False, 6), (True, 8)):
        request = ScoringRequest(
            model="shuttle", dataset_id=dataset.id, include_rows=True, parts=parts
        )
        accept_scoring(request, version, dataset, max_bytes=100 * width * 8)
        with pytest.raises(RequestError) as error:
            accept_scoring(request, version, dataset, max_bytes=100 * width * 8 - 1)
        assert error.value.slug == "limit-result"
    draw = SamplingRequest(model="shuttle", n=100)
    with pytest.raises(RequestError) as error:
        accept_sampling(draw, version, [[1.0]], max_bytes=100 * 2 * 8 - 1)
    assert (error.value.slug, error.value.pointer) == ("limit-result", "/n")
