"""Bulk jobs whose children compute the rows and one writes the file, the same as a job alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models_store.consistency import compare
from models_store.job_states import Job, JobKind, JobRole, JobState, NewJob
from models_store.records import Dataset
from models_store.requests.accept_bulk import accept_sampling, accept_scoring, in_parts
from models_store.requests.bulk import AcceptedBulk, SamplingRequest, ScoringRequest
from tests.api.serving import registered
from tests.jobs.workers.place import PROJECT, Place
from workers.leftovers import sweep
from workers.protocol import Produced
from workers.supervisor.assignment import task_of
from workers.supervisor.attempt import as_product
from workers.trainer import products
from workers.trainer.bulk import produce

ROWS, PART_ROWS = 1_000, 300
NAMES = ["x1", "x2", "x3"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(products, "_CPU_STEP_ROWS", 256)
    monkeypatch.setattr("tabular.writers._GROUP_ROWS", 300)
    threads = torch.get_num_threads()
    place = Place(tmp_path / "data")
    yield place
    torch.set_num_threads(threads)
    place.database.dispose()


def submit(place: Place, kind: JobKind, accepted: AcceptedBulk) -> str:
    new = NewJob(
        project=PROJECT,
        kind=kind,
        model_name="people",
        model_version=1,
        dataset_id=accepted.model_dump().get("dataset_id"),
        request=accepted.model_dump(mode="json"),
        role=None if accepted.part_rows is None else JobRole.PARENT,
    )
    return place.jobs.submit(new).job.id


def scoring(place: Place, dataset: Dataset, part_rows: int, **fields: Any) -> str:
    version = place.registry.version(PROJECT, "people", 1)
    body = {"model": "people:1", "dataset_id": dataset.id, **fields}
    request = ScoringRequest.model_validate(body)
    accepted = accept_scoring(request, version, dataset, max_bytes=10**9)
    split = in_parts(accepted, version, rows=dataset.rows, part_rows=part_rows) or accepted
    return submit(place, JobKind.SCORING, split)


def sampling(place: Place, part_rows: int, **fields: Any) -> str:
    version = place.registry.version(PROJECT, "people", 1)
    request = SamplingRequest.model_validate({"model": "people:1", "n": ROWS, "seed": 7, **fields})
    accepted = accept_sampling(request, version, None, max_bytes=10**9)
    split = in_parts(accepted, version, rows=ROWS, part_rows=part_rows) or accepted
    return submit(place, JobKind.SAMPLING, split)


def carry_out(place: Place, order: int = 1) -> list[Job]:
    """Do the work that there is; that of jobs that wait at the same time in either order."""
    done: list[Job] = []
    while claimed := list(iter(lambda: place.work.claim("here", lease_s=600), None)):
        for job in claimed[::order]:
            messages: list[Any] = []
            task: Any = task_of(job, registry=place.registry, settings=place.settings)
            produce(task, messages.append, interrupted=lambda: False)
            last = messages[-1]
            assert isinstance(last, Produced)
            result: Any = last.result
            end = (job.id, job.attempt)
            if job.role is JobRole.CHILD:
                product = as_product(result)
                place.work.finish(*end, metrics=last.metrics, product=product)
            else:
                place.work.finish(*end, metrics=last.metrics, result=result)
            done.append(job)
    return done


def result_of(place: Place, job_id: str) -> tuple[bytes, Job]:
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None
    return place.blobs.verify(job.result["key"], job.result["sha256"]).read_bytes(), job


@pytest.mark.parametrize(
    ("what", "output"),
    [
        ("scores", "npy"),
        ("rows and scores", "csv"),
        ("rows and scores", "parquet"),
        ("samples", "csv"),
    ],
)
def test_the_file_is_that_of_a_job_alone(place: Place, output: str, what: str) -> None:
    registered(place.database, place.blobs, columns=NAMES)
    dataset = place.add_dataset(ROWS)

    def start(part_rows: int) -> str:
        if what == "samples":
            return sampling(place, part_rows, output=output)
        rows = what == "rows and scores"
        return scoring(place, dataset, part_rows, output=output, include_rows=rows)

    alone, split = start(10**6), start(PART_ROWS)
    done = carry_out(place, order=-1)
    assert sum(job.role is JobRole.CHILD for job in done) == 5
    expected, one = result_of(place, alone)
    found, other = result_of(place, split)
    assert found == expected
    assert one.metrics is not None
    assert other.metrics == {**one.metrics, "rows": ROWS}
    assert other.progress is not None
    assert (other.progress["rows"], other.progress["fraction"]) == (ROWS, 1.0)


def test_parts_are_deleted_once_the_file_is_there(place: Place) -> None:
    registered(place.database, place.blobs, columns=NAMES)
    job_id = sampling(place, PART_ROWS, output="npy")
    carry_out(place)
    sweep(place.database, place.blobs, keep_s=600)
    content, job = result_of(place, job_id)
    children = place.jobs.list(PROJECT, limit=50, parent_id=job_id).items
    assert len(children) == 5
    files = [file.key for file in place.blobs.files() if file.key.startswith(("results", "jobs"))]
    assert job.result is not None
    assert files == [job.result["key"]]
    comparison = compare(place.database, place.blobs, deep=True, grace_s=0.0)
    assert (comparison.unusable, comparison.orphans) == ([], [])
    assert np.isfinite(np.frombuffer(content[-8 * ROWS :], np.float64)).all()


def test_a_part_that_fails_ends_the_job_for_its_reason_and_is_resumed(place: Place) -> None:
    registered(place.database, place.blobs, columns=NAMES)
    job_id = sampling(place, PART_ROWS, output="npy")
    claimed = place.work.claim("here", lease_s=600)
    assert claimed is not None
    place.work.fail(claimed.id, claimed.attempt, code="model_unusable", detail="It is gone.")
    carry_out(place)
    failed = place.job(job_id)
    assert (failed.state, failed.error) == (
        JobState.FAILED,
        {"code": "model_unusable", "detail": "It is gone."},
    )
    place.jobs.resume(PROJECT, job_id)
    done = carry_out(place)
    assert [job.request.get("span") for job in done] == [[0, PART_ROWS], None]
    result_of(place, job_id)


def test_a_changed_part_is_told(place: Place) -> None:
    registered(place.database, place.blobs, columns=NAMES)
    sampling(place, 600, output="npy")
    for _ in range(2):
        job = place.work.claim("here", lease_s=600)
        assert job is not None
        messages: list[Any] = []
        task: Any = task_of(job, registry=place.registry, settings=place.settings)
        produce(task, messages.append, interrupted=lambda: False)
        product = as_product(messages[-1].result)
        place.work.finish(job.id, job.attempt, metrics={}, product=product)
        place.blobs.path(product["checkpoint_key"]).write_bytes(b"")
    last = place.work.claim("here", lease_s=600)
    assert last is not None
    task = task_of(last, registry=place.registry, settings=place.settings)
    with pytest.raises(Exception, match="Part 1 cannot be read"):
        produce(task, lambda _message: None, interrupted=lambda: False)


def test_few_rows_have_no_parts_and_many_rows_or_a_long_request_few(place: Place) -> None:
    registered(place.database, place.blobs, columns=NAMES)
    version = place.registry.version(PROJECT, "people", 1)
    request = SamplingRequest(model="people:1", n=2**40, seed=1)
    for length, rows, part_rows, most in (
        (1, 1000, None, 0),
        (1, 2**40, None, 64),
        (1000, 2**24, 2**16, 64),
        (4_000_000, 2**24, 2**16, 4),
        (9_000_000, 2**24, 2**16, 0),
    ):
        accepted = accept_sampling(request, version, [["x" * length]], max_bytes=2**60)
        split = in_parts(accepted, version, rows=rows, part_rows=part_rows)
        parts = 0.0 if split is None or split.part_rows is None else rows / split.part_rows
        assert parts <= most
        assert (parts == 0) == (most == 0)
