"""Trainings whose batches several processes share, on the CPU."""

import logging
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models_store.files.checkpoints import load_model
from models_store.job_states import JobState
from models_store.records import Dataset
from tabular.columns import Column
from tests.waiting import wait_until
from tests.workers.place import ENDLESS, Place, Running, children_of
from tests.workers.trainer.tasks import result, run, task_of
from workers.protocol import Interrupted, Message
from workers.trainer import __main__ as trainer, helpers

FLOW = {"family": "maf", "layers": 2, "hidden": [512, 512], "batch_norm": None}
OPTIONS = {"seed": 1, "max_epochs": 2, "batch_size": 120}
TYPES = [
    Column(name="x1"),
    Column(name="x2", type="category", levels=("a", "b")),
    Column(name="x3"),
]
Supervise = Callable[..., Running]


def request(flow: dict[str, Any] = FLOW, **options: Any) -> dict[str, Any]:
    return {"flow": flow, "optimisation": OPTIONS | options}


def weights(place: Place, messages: list[Message]) -> np.ndarray[Any, Any]:
    version = result(messages).version
    flow = load_model(place.blobs, version["checkpoint_key"], version["checkpoint_sha256"])
    return np.concatenate([part.detach().numpy().ravel() for part in flow.parameters()])


def mixed(place: Place) -> Dataset:
    random = np.random.default_rng(0)
    table = random.normal(size=(600, 3))
    table[:, 1] = random.choice([0.0, 1.0], 600)
    return place.add_table(table, TYPES)


ADAM: dict[str, Any] = {"learning_rate": 1e-4, "robust": False}
NVP = {"family": "realnvp", "layers": 2, "hidden": [256, 256], "batch_norm": None}
CASES: dict[str, tuple[Callable[[Place], Dataset], dict[str, Any], dict[str, Any], float]] = {
    "compiled steps": (Place.add_dataset, request(**ADAM), {}, 1e-4),
    "steps by autograd": (
        Place.add_dataset,
        request(optimiser="sgd", learning_rate=0.01, robust=False),
        {},
        1e-5,
    ),
    # 64 million products of weights and rows for a batch of 240, more than 2^26 for one of 300.
    "batches smaller than allowed": (
        Place.add_dataset,
        request(NVP, batch_size=300, **ADAM),
        {"threads": 2},
        1e-4,
    ),
    "a context": (
        Place.add_dataset,
        request(**ADAM) | {"context_columns": ["x1"]},
        {},
        1e-4,
    ),
    "a mixed table": (
        mixed,
        request({"family": "nsf", "layers": 2, "hidden": [256, 256]}, **ADAM),
        {},
        1e-4,
    ),
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are shared though it takes longer."""
    monkeypatch.setattr("flows.training.data_parallel._LEAST", {"cpu": 2**24, "cuda": 2**31})
    monkeypatch.setattr("flows.training.data_parallel._FEWEST_ROWS", 50)


@pytest.mark.long
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_model_that_one_does(
    place: Place, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    table, body, options, error = CASES[case]
    dataset = table(place)
    caplog.set_level(logging.INFO)
    alone, shared = (
        run(
            task_of(place, dataset, request=body, attempt=attempt, helpers=helpers).model_copy(
                update=options
            )
        )
        for attempt, helpers in ((1, []), (2, ["cpu"]))
    )
    torch.set_num_threads(1)
    assert "2 processes compute the gradients" in caplog.text
    assert weights(place, shared) == pytest.approx(weights(place, alone), abs=error)
    one, other = (result(messages).metrics for messages in (alone, shared))
    for name in ("train_log_likelihood", "validation_log_likelihood"):
        assert other[name] == pytest.approx(one[name], abs=1e-3)


@pytest.mark.long
@pytest.mark.usefixtures("eager")
def test_a_shared_training_resumes_bit_for_bit(place: Place) -> None:
    dataset = place.add_dataset()
    body = request(robust=True, weight_average=0.9, max_gradient_norm=1.0)
    whole = run(task_of(place, dataset, request=body, helpers=["cpu"]))
    asked = iter(range(1, 100))

    messages = run(task_of(place, dataset, request=body, helpers=["cpu"]), lambda: next(asked) == 6)

    last = messages[-1]
    assert isinstance(last, Interrupted)
    assert last.checkpoint is not None
    again = {"attempt": 2, "checkpoints": [last.checkpoint]}
    resumed = run(task_of(place, dataset, request=body, helpers=["cpu"], **again))
    version = result(resumed).version
    assert version["checkpoint_sha256"] == result(whole).version["checkpoint_sha256"]


def test_a_small_flow_trains_without_help(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.trainer.helpers._start", None)
    task = task_of(place, place.add_dataset(), helpers=["cpu"])
    assert result(run(task)).metrics["epoch"] > 0


@pytest.mark.long
@pytest.mark.parametrize("victim", ["helper", "trainer"])
def test_helper_and_trainer_end_together_and_the_job_goes_on(
    place: Place,
    supervise: Supervise,
    victim: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # found anew
    options = ENDLESS | {"max_epochs": 20, "batch_size": 1000}
    job_id = place.submit(place.add_dataset(1250), **options, flow=FLOW)
    running = supervise(devices_per_job=2, checkpoint_interval_s=0)
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [helper] = children_of(trainer)
    assert [*temporary.glob("densityd-helpers-*/*")]

    os.kill(helper if victim == "helper" else trainer, signal.SIGKILL)
    running.join()

    wait_until(lambda: not Path(f"/proc/{helper}").exists())
    assert not [*temporary.glob("densityd-helpers-*")]
    assert place.state(job_id) is JobState.QUEUED
    assert "was killed by signal 9 (SIGKILL), from outside" in place.messages(job_id)[-1]
    reached = place.epoch(job_id)
    place.no_wait(job_id)
    supervise(devices_per_job=2).join()
    assert place.state(job_id) is JobState.SUCCEEDED
    assert place.epochs(job_id)[reached:] == list(range(reached + 1, 21))


def test_a_helper_without_memory_is_a_training_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve() -> None:
        raise MemoryError

    monkeypatch.setattr(helpers, "serve", serve)
    status = trainer._help()
    ended = subprocess.Popen(["/bin/sh", "-c", f"exit {status}"])  # noqa: S603 - our own number
    with pytest.raises(MemoryError):
        helpers._end_like([ended])
