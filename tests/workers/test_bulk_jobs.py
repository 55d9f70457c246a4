"""Bulk jobs by the shared protocol: a supervisor and its real trainers."""

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models_store.job_states import JobState
from models_store.records import Dataset, Version
from tests.models_store.makers import refused
from tests.waiting import wait_until
from tests.workers.place import Place, Running
from workers.protocol import Message, Produced
from workers.supervisor.assignment import task_of
from workers.trainer import bulk

Supervise = Callable[..., Running]

STEP = 4_096
ROWS = 20 * STEP + 5
COLUMNS = ["x3", "x1", "x2"]


@pytest.fixture
def version(place: Place) -> Version:
    quantiles = np.linspace(-40, -5, 1001).tolist()
    return place.add_model(columns=COLUMNS, held_out={"rows": 50, "quantiles": quantiles})


@pytest.fixture
def dataset(place: Place) -> Dataset:
    return place.add_dataset(ROWS)


def undisturbed(place: Place, job_id: str) -> dict[str, Any]:
    """What the waiting job gives as a plain call; it goes back to the queue after."""
    job = place.work.claim("plain call", lease_s=60)
    assert job is not None
    assert job.id == job_id
    messages: list[Message] = []
    task = task_of(job, registry=place.registry, settings=place.settings)
    settings = {"checkpoints": [], "checkpoint_interval_s": 60.0}
    bulk.produce(
        task.model_copy(update=settings),  # type: ignore[arg-type]  # of a bulk job
        messages.append,
        interrupted=lambda: False,
    )
    last = messages[-1]
    assert isinstance(last, Produced)
    place.work.release(job.id, job.attempt)
    return last.result


def assert_whole(place: Place, job_id: str, wanted: dict[str, Any]) -> None:
    """The job has the file of an undisturbed one, and left nothing else."""
    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.result is not None
    known = {"sha256", "bytes", "rows", "media_type"}
    assert {name: dict(job.result)[name] for name in known} == {
        name: wanted[name] for name in known
    }
    place.blobs.verify(job.result["key"], job.result["sha256"])
    assert place.blobs.keys("jobs") == []
    assert place.blobs.keys("results") == [job.result["key"]]
    assert job.checkpoints == []
    assert job.model_version == 1


@pytest.mark.long
def test_a_killed_scoring_goes_on_from_its_last_part(
    place: Place, supervise: Supervise, version: Version, dataset: Dataset
) -> None:
    job_id = place.submit_scoring(version, dataset, include_rows=True)
    wanted = undisturbed(place, job_id)
    running = supervise()
    wait_until(lambda: place.part(job_id) >= 3)
    os.kill(running.trainer_pid(), signal.SIGKILL)
    running.join()
    assert place.state(job_id) is JobState.QUEUED
    with refused("dataset-in-use"):
        place.registry.delete_dataset("default", dataset.id)

    place.no_wait(job_id)
    supervise().join()

    assert_whole(place, job_id, wanted)
    told = [
        event.data["part"]
        for event in place.jobs.events("default", job_id, limit=1000)
        if event.event == "epoch"
    ]
    assert told == list(range(1, 22))
    metrics = place.job(job_id).metrics
    assert metrics is not None
    assert (metrics["rows"], metrics["non_finite"]) == (ROWS, 0)
    assert np.isfinite(metrics["mean_log_prob"])
    place.registry.delete_dataset("default", dataset.id)
