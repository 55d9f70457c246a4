"""Variational jobs by the shared protocol: a supervisor and its real trainers."""

from collections.abc import Callable
from typing import Any

import pytest

from models_store.job_states import JobState
from tests.waiting import is_alive, wait_until
from tests.workers.place import Place, Running
from workers.protocol import Message, Trained
from workers.supervisor.assignment import variational_task
from workers.trainer.variational import infer

Supervise = Callable[..., Running]

RING = {"potential": "U1"}
REPORT, ITERATIONS = 20, 200
# Some ten milliseconds an iteration, so that it can be caught in the middle.
MEDIUM: dict[str, Any] = {
    "flow": {"family": "realnvp", "layers": 4, "hidden": [32], "batch_norm": None},
    "optimisation": {"iterations": ITERATIONS, "report_every": REPORT, "batch_size": 2000},
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model that MEDIUM gives as a plain call that nobody disturbs."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.submit_variational(RING, **MEDIUM)
    job = place.work.claim("plain call", lease_s=60)
    assert job is not None
    messages: list[Message] = []
    task = variational_task(job, registry=place.registry, settings=place.settings)
    infer(task, messages.append, interrupted=lambda: False)
    place.database.dispose()
    last = messages[-1]
    assert isinstance(last, Trained)
    return str(last.version["checkpoint_sha256"])


@pytest.mark.long  # a cancelled training goes the same way
def test_a_cancelled_job_stops_within_five_seconds_and_resumes_to_the_same_model(
    place: Place, supervise: Supervise, undisturbed: str
) -> None:
    job_id = place.submit_variational(RING, **MEDIUM)
    running = supervise()
    trainer = running.trainer_pid()
    wait_until(lambda: place.iteration(job_id) >= 2 * REPORT)
    place.jobs.cancel("default", job_id)
    running.join()
    job = place.job(job_id)
    assert job.state is JobState.CANCELLED
    assert not is_alive(trainer)
    assert place.blobs.keys("models") == []
    at = job.checkpoints[0]["epoch"]
    assert at > place.iteration(job_id) or at % REPORT == 0, "iterations since the report are lost"

    place.jobs.resume("default", job_id)
    supervise().join()
    job = place.job(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2), job.error
    assert place.iterations(job_id) == list(range(REPORT, ITERATIONS + 1, REPORT))
    version = place.version(job_id)
    assert version.checkpoint_sha256 == undisturbed
    assert version.target == RING
    assert (version.dataset_id, version.dataset_sha256) == (None, None)
    assert job.metrics == version.metrics
    assert place.blobs.keys("jobs") == []
