"""The end of a bulk job, the list of its parts, and what a request for one may ask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models_store.database.database import Database
from models_store.errors import (
    BlobCorruptError,
    BlobMissingError,
    CancelledInsteadError,
    CheckpointMismatchError,
    RequestError,
)
from models_store.files.blobs import Blobs, part_key, parts_key
from models_store.files.job_files import ResultPart, load_list, save_list
from models_store.job_states import Job, JobKind, JobResult, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.records import Dataset, Version
from models_store.registry import Registry
from models_store.requests.accept_bulk import accept_sampling, accept_scoring
from models_store.requests.bulk import SamplingRequest, ScoringRequest
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_version,
    added,
    claimed,
    finished,
    submitted,
)

METRICS = {"rows": 10}


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    """The jobs, beside three versions that they may use."""
    jobs = Jobs(database)
    job = submitted(jobs)
    jobs.cancel(PROJECT, job.id)
    for _ in range(3):
        Registry(database).add_version(PROJECT, "shuttle", a_version(job))
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


def record_part(work: JobWork, job: Job, part: int) -> None:
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={"part": part, "rows": 5 * part},
        progress={},
        checkpoint=a_checkpoint(job, part),
    )


def test_a_result_ends_the_job_and_makes_no_version(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    job = a_bulk_job(jobs, work)
    record_part(work, job, 1)
    for _ in range(2):  # the second time as after an answer that was lost
        work.finish(job.id, job.attempt, metrics=METRICS, result=a_result(job))
    now = jobs.get(PROJECT, job.id)
    assert (now.state, now.result, now.metrics) == (JobState.SUCCEEDED, a_result(job), METRICS)
    assert (now.checkpoints, now.lease_expires_at, now.model_version) == ([], None, 3)
    told = [event.event for event in jobs.events(PROJECT, job.id)]
    assert told == ["state", "state", "epoch", "state", "end"]
    assert Registry(database).model(PROJECT, "shuttle").latest_version == 3


def test_an_attempt_whose_answer_was_lost_has_ended_it_whatever_became_of_the_result(
    jobs: Jobs, work: JobWork
) -> None:
    job = a_bulk_job(jobs, work)
    work.finish(job.id, job.attempt, metrics=METRICS, result=a_result(job))
    jobs.delete_result(PROJECT, job.id)
    work.finish(job.id, job.attempt, metrics=METRICS, result=a_result(job))
    assert jobs.get(PROJECT, job.id).result is None


def test_a_cancel_request_comes_before_a_result(jobs: Jobs, work: JobWork) -> None:
    job = a_bulk_job(jobs, work)
    jobs.cancel(PROJECT, job.id)
    with pytest.raises(CancelledInsteadError):
        work.finish(job.id, job.attempt, metrics=METRICS, result=a_result(job))
    now = jobs.get(PROJECT, job.id)
    assert (now.state, now.result) == (JobState.CANCELLED, None)


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


def test_the_context_of_a_conditional_model_is_part_of_its_columns(
    version: Version, dataset: Dataset
) -> None:
    request = ScoringRequest(model="shuttle", dataset_id=dataset.id)
    accepted = accept_scoring(request, version, dataset, max_bytes=1_600)
    assert (accepted.model, accepted.columns) == (version.ref, ["a", "b", "c"])
    less = replace(dataset, columns=dataset.columns[1:])
    with pytest.raises(
        RequestError, match=r"lacks 1 of the 3 columns .* the first is 'c'"
    ) as error:
        accept_scoring(request, version, less, max_bytes=1_600)
    assert (error.value.slug, error.value.pointer) == ("unknown-column", "/dataset_id")


def test_a_result_that_is_too_large_is_refused(version: Version, dataset: Dataset) -> None:
    request = ScoringRequest(model="shuttle", dataset_id=dataset.id, include_rows=True)
    accept_scoring(request, version, dataset, max_bytes=100 * 6 * 8)
    with pytest.raises(RequestError) as error:
        accept_scoring(request, version, dataset, max_bytes=100 * 6 * 8 - 1)
    assert error.value.slug == "limit-result"
    draw = SamplingRequest(model="shuttle", n=100)
    with pytest.raises(RequestError) as error:
        accept_sampling(draw, version, [[1.0]], max_bytes=100 * 2 * 8 - 1)
    assert (error.value.slug, error.value.pointer) == ("limit-result", "/n")
