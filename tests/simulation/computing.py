"""What trainers do instead of computing: they sleep, and count what they have done."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import workers.supervisor.attempt
import workers.supervisor.fitness
import workers.supervisor.supervisor
import workers.trainer.__main__
import workers.trainer.bulk
import workers.trainer.checkpoints
import workers.trainer.devices
import workers.trainer.products
import workers.trainer.training
from flows import DivergedError, EpochReport, FitInterrupted, FitState
from flows.training.state import Json
from models_store.files.blobs import model_key, result_key
from models_store.files.local_blobs import LocalBlobs
from tests.models_store.makers import a_version
from tests.simulation.plan import JobPlan, Poison, Sickness
from tests.simulation.store import load_state, save_json, save_state
from tests.simulation.trainer import Died, SimulatedTrainer, TrainerPlans
from workers.errors import TrainingError
from workers.protocol import Passed, SelfTestTask, Task, Trained
from workers.trainer.data import open_table

_FOREVER_S = 1e6
_START_S = 5.0
_IMPORT_S = 0.3


class Computing:
    """Trainings and samplings as their jobs' plans have them."""

    def __init__(self, world: TrainerPlans) -> None:
        self._world = world
        self._kernel = world.kernel

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Put it under the real code of the trainer."""
        prepare, do = workers.trainer.__main__._prepare, workers.trainer.__main__._do

        def prepare_as_here(task: Task) -> None:
            self._kernel.sleep(_IMPORT_S)
            with pytest.MonkeyPatch.context() as here:
                if self._world.sickness(self._kernel.process) is Sickness.BROKEN_TORCH:
                    here.setitem(sys.modules, "torch", None)
                prepare(task)

        def do_as_planned(task: Task, *arguments: Any) -> None:
            if not isinstance(task, SelfTestTask) and self._plan.poison is Poison.AT_THE_START:
                raise Died
            do(task, *arguments)

        patch.setattr(workers.trainer.__main__, "_prepare", prepare_as_here)
        patch.setattr(workers.trainer.__main__, "_do", do_as_planned)
        patch.setattr(workers.trainer.__main__, "_limit_memory", lambda _bytes: None)
        for module in (workers.supervisor.supervisor, workers.supervisor.fitness):
            patch.setattr(module, "TrainerProcess", partial(SimulatedTrainer, self._world))
        patch.setattr(workers.trainer.devices, "prove", lambda _task, send: send(Passed()))
        patch.setattr(workers.supervisor.attempt, "_START_S", _START_S)
        patch.setattr(workers.supervisor.attempt, "out_of_memory_kills", lambda: 0)
        patch.setattr(torch, "set_num_threads", lambda _n: None)
        patch.setattr(torch, "set_flush_denormal", lambda _on: True)
        self._patch_training(patch)
        self._patch_sampling(patch)

    def _patch_training(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(workers.trainer.checkpoints, "save_state", save_state)
        patch.setattr(workers.trainer.checkpoints, "load_state", load_state)
        patch.setattr(workers.trainer.training, "fit", self.fit)
        patch.setattr(workers.trainer.training, "store", self.store)
        patch.setattr(workers.trainer.training, "load_parts", _load_parts)
        patch.setattr(workers.trainer.training, "_build", lambda *_: _Flow())
        patch.setattr(workers.trainer.training, "likelihoods", lambda *_, **__: {})
        patch.setattr(workers.trainer.training, "held_out_quantiles", lambda *_, **__: None)
        patch.setattr(workers.trainer.training, "summarise_training", lambda *_, **__: {})

    def _patch_sampling(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(workers.trainer.products, "_step_rows", lambda *_: 1)
        patch.setattr(
            workers.trainer.bulk, "load_model", lambda blobs, key, sha, **_: blobs.verify(key, sha)
        )
        patch.setattr(
            workers.trainer.bulk,
            "compile_flow",
            lambda *_, **__: SimpleNamespace(iter_sample=self.sample),
        )
        patch.setattr(workers.trainer.bulk, "result_key", self.result_key)

    @property
    def _plan(self) -> JobPlan:
        trainer: SimulatedTrainer = vars(self._kernel.process)["trainer"]
        return self._world.job_plan(trainer.task.request_id)

    def fit(
        self,
        flow: "_Flow",
        *_parts: object,
        state: FitState | None,
        on_batch: Callable[[int, int], None],
        interrupted: Callable[[], bool],
        on_state: Callable[[Callable[[], FitState]], None],
        **_options: object,
    ) -> Iterator[EpochReport]:
        """`flows.training.fit`: keeps what it has seen as a hash."""
        plan = self._plan
        at = _Position(plan, state)
        if at.batch == 0 and at.epoch == plan.epochs:
            flow.seen = at.seen
            yield at.report()
        while at.epoch < plan.epochs:
            while at.batch < plan.batches:
                self._step(plan, at.epoch * plan.batches + at.batch)
                at.advance()
                on_batch(at.batch, plan.batches)
                if interrupted():
                    raise FitInterrupted(at.state())
                on_state(at.state)
            at.end_epoch()
            flow.seen = at.seen
            yield at.report()

    def store(self, result: Any, task: Any, blobs: LocalBlobs) -> Trained:
        """`workers.trainer.__main__.checkpoints.store`, of what the training has seen."""
        self._poison_at_the_end()
        stored = save_json(blobs, model_key(task.job_id, task.attempt), result.flow.seen)
        job = SimpleNamespace(id=task.job_id, attempt=task.attempt, dataset_id=task.dataset.id)
        version = a_version(
            job,  # type: ignore[arg-type]  # what it reads of one
            metrics=result.metrics,
            checkpoint_sha256=stored.sha256,
            checkpoint_bytes=stored.bytes,
        )
        return Trained(metrics=result.metrics, version=vars(version))

    def sample(self, n: int, *, start: int, **_: object) -> Iterator[NDArray[np.float64]]:
        """A flow's samples: row by row, each known by its number."""
        for row in range(start, n):
            self._step(self._plan, row)
            yield sampled(row, row + 1)

    def result_key(self, job_id: str, attempt: int, *, suffix: str) -> str:
        """`models_store.files.blobs.result_key`, asked for when all rows are written."""
        self._poison_at_the_end()
        return result_key(job_id, attempt, suffix=suffix)

    def _step(self, plan: JobPlan, number: int) -> None:
        self._kernel.sleep(plan.epoch_s / plan.batches * self._kernel.random.uniform(0.8, 1.2))
        if number < plan.epochs // 2 * plan.batches:
            return
        match plan.poison:
            case Poison.IN_THE_MIDDLE:
                raise Died
            case Poison.DIVERGES if plan.samples:
                raise TrainingError("diverged", "It cannot be sampled from.")
            case Poison.DIVERGES:
                raise DivergedError(1)
            case Poison.STALLS:
                self._kernel.sleep(_FOREVER_S)
            case _:
                pass

    def _poison_at_the_end(self) -> None:
        if self._plan.poison is Poison.AT_THE_END:
            raise Died


class _Flow:
    seen = ""

    def to(self, _device: object) -> "_Flow":
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return its only weights: what it has seen."""
        return {"seen": torch.tensor(list(self.seen.encode()), dtype=torch.uint8)}


class _Position:
    """Progress of a training, with states like those of `flows.training.fit`."""

    def __init__(self, plan: JobPlan, state: FitState | None) -> None:
        self._plan = plan
        self.epoch = 0
        self.batch = 0
        self.seen = ""
        if state is not None:
            progress: Any = state.meta["progress"]
            self.batch = progress["batches"]
            self.epoch = progress["epoch"] - (self.batch > 0)
            self.seen = str(state.meta["seen"])

    def advance(self) -> None:
        """A batch is done."""
        self.batch += 1
        self.seen = _seen(self.seen, self.epoch, self.batch)

    def end_epoch(self) -> None:
        """An epoch is done."""
        self.epoch += 1
        self.batch = 0

    def state(self) -> FitState:
        """Return the position to continue from."""
        progress: dict[str, Json] = {
            "epoch": self.epoch + (self.batch > 0),
            "batches": self.batch,
            "best_epoch": self.epoch,
            "seconds": self.epoch * self._plan.epoch_s,
        }
        meta: dict[str, Json] = {
            "batches": self._plan.batches,
            "progress": progress,
            "seen": self.seen,
        }
        return FitState(tensors={}, meta=meta)

    def report(self) -> EpochReport:
        """What is told of the epoch that is done."""
        state = self.state()
        return EpochReport(
            epoch=self.epoch,
            train_log_likelihood=0.0,
            validation_log_likelihood=0.0,
            robust_validation_log_likelihood=0.0,
            best_epoch=self.epoch,
            best_validation_log_likelihood=0.0,
            best_robust_validation_log_likelihood=0.0,
            rows_per_second=1.0,
            seconds=self._plan.epoch_s * self.epoch,
            restarts=0,
            stop_reason="max_epochs" if self.epoch == self._plan.epochs else None,
            _state=lambda: state,
        )


def _load_parts(task: Any, blobs: LocalBlobs, **_: object) -> Any:
    open_table(blobs, task.dataset)
    parts = SimpleNamespace(train=None, validation=None, test=None, sample=None)
    parts.to = lambda _device, **_: parts
    return parts


def _seen(before: str, epoch: int, batch: int) -> str:
    return hashlib.sha256(f"{before} {epoch} {batch}".encode()).hexdigest()[:16]


def all_seen(plan: JobPlan) -> str:
    """What a training that nobody disturbed has seen."""
    seen = ""
    for epoch in range(plan.epochs):
        for batch in range(1, plan.batches + 1):
            seen = _seen(seen, epoch, batch)
    return seen


def sampled(first: int, stop: int) -> NDArray[np.float64]:
    """The rows of a sampling."""
    return np.arange(2 * first, 2 * stop, dtype=np.float64).reshape(-1, 2)
