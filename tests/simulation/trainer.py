"""A trainer process: the real one from its first task to its last message, without the numbers."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import workers.attempt
import workers.files
import workers.supervisor
import workers.trainer
import workers.training
from flows import DivergedError, EpochReport, FitInterrupted, FitState
from models_store.blobs import BlobStore, model_key
from tests.models_store.makers import a_version
from tests.simulation.kernel import Kernel, Process, Wait
from tests.simulation.plan import JobPlan, Poison, Sickness
from tests.simulation.store import load_state, save_json, save_state
from workers.data import open_table
from workers.errors import UnfitError
from workers.protocol import Message, Task, Trained

_SIGNAL_TERM, _SIGNAL_KILL, _SIGNAL_SEGV = 15, 9, 11
_FOREVER_S = 1e6
_START_S = 5.0
_IMPORT_S = 0.3


class Died(BaseException):
    """The trainer ends by itself, without a word."""


class TrainerPlans:
    """What a trainer asks of the world; see `World`."""

    kernel: Kernel
    boot_s: float

    def job_plan(self, request_id: str | None) -> JobPlan:
        """How a job's training goes."""
        raise NotImplementedError

    def sickness(self, process: Process) -> Sickness | None:
        """What the worker of a trainer has."""
        raise NotImplementedError

    def spawned(self, trainer: "SimulatedTrainer") -> None:
        """Note a new trainer.

        Raises:
            OSError: it cannot be started.
        """
        raise NotImplementedError


class SimulatedTrainer:
    """Stands where `workers.process.TrainerProcess` stands, with a thread for the process."""

    def __init__(self, world: TrainerPlans, task: Task) -> None:
        self.task = task
        self.at_end = False
        self.status: int | None = None
        self.pid = 0
        self._world = world
        self._kernel = world.kernel
        self._booted = False
        self._interrupted = False
        self._messages: list[Message] = []
        self._reader: Wait | None = None
        worker = self._kernel.process
        world.spawned(self)
        self.process = Process(f"trainer of {task.request_id} #{task.attempt}", worker)
        vars(self.process)["trainer"] = self
        self._kernel.spawn(self.process, self._main)

    def read(self, timeout_s: float) -> list[Message]:
        """Messages that arrive within a time; at their end sets `at_end`."""
        if not self._messages and self.running:
            self._reader = self._kernel.here()
            self._kernel.wait(timeout_s)
        else:
            self._kernel.check_alive()
        messages, self._messages = self._messages, []
        self.at_end = not messages and not self.running
        return messages

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.status is None

    def terminate(self) -> None:
        """Ask for a checkpoint and an end (SIGTERM)."""
        self._kernel.check_alive()
        self.signal(_SIGNAL_TERM)

    def kill(self) -> None:
        """End it now (SIGKILL)."""
        self._kernel.check_alive()
        self.signal(_SIGNAL_KILL)

    def wait(self, timeout_s: float) -> int:
        """The exit status; kills a process that outstays a time."""
        if self.status is None:
            self._reader = self._kernel.here()
            self._kernel.wait(timeout_s)
        if self.status is None:
            self.signal(_SIGNAL_KILL)
        assert self.status is not None
        return self.status

    def close(self) -> None:
        """End what still runs."""
        self.kill()

    def signal(self, number: int) -> None:
        """What the kernel does with a signal."""
        if self.status is not None:
            return
        if number == _SIGNAL_TERM and self._booted:
            self._interrupted = True
        else:
            self._end(-number)

    def _main(self) -> None:
        kernel = self._kernel
        try:
            kernel.sleep(kernel.random.uniform(0.05, self._world.boot_s))
            self._booted = True
            failure = workers.trainer._work(
                self.task,
                self,  # type: ignore[arg-type]  # it has what a channel has
                lambda: self._interrupted,  # type: ignore[arg-type]  # as above
            )
            if failure is not None:
                self.send(failure)
            self._end(0)
        except Died:
            self._end(-_SIGNAL_SEGV)

    def send(self, message: Message) -> None:
        """Write to the pipe."""
        self._kernel.check_alive()
        self._messages.append(message)
        self._tell()

    def _end(self, status: int) -> None:
        self.status = status
        self._kernel.kill(self.process)
        self._tell()

    def _tell(self) -> None:
        if self._reader is not None:
            self._kernel.wake(self._reader)
            self._reader = None


class Training:
    """What trainers do instead of computing."""

    def __init__(self, world: TrainerPlans) -> None:
        self._world = world
        self._kernel = world.kernel

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Put it under the real code of the trainer."""
        prepare, begin = workers.trainer._prepare, workers.trainer._do

        def prepared(task: Task) -> None:
            self._kernel.sleep(_IMPORT_S)
            if self._world.sickness(self._kernel.process) is Sickness.BROKEN_TORCH:
                raise UnfitError("imports", "libtorch_cpu.so: cannot open shared object file")
            prepare(task)

        def do(*arguments: Any) -> None:
            if self._plan.poison is Poison.AT_THE_START:
                raise Died
            begin(*arguments)

        patch.setattr(workers.trainer, "_prepare", prepared)
        patch.setattr(workers.trainer, "_do", do)
        patch.setattr(workers.trainer, "_limit_memory", lambda _bytes: None)
        patch.setattr(
            workers.supervisor, "TrainerProcess", lambda task: SimulatedTrainer(self._world, task)
        )
        patch.setattr(workers.attempt, "_START_S", _START_S)
        patch.setattr(torch, "set_num_threads", lambda _n: None)
        patch.setattr(torch, "set_flush_denormal", lambda _on: True)
        patch.setattr(workers.files, "save_state", save_state)
        patch.setattr(workers.files, "load_state", load_state)
        patch.setattr(workers.training, "fit", self.fit)
        patch.setattr(workers.training, "store", self.store)
        patch.setattr(workers.training, "load_parts", _load_parts)
        patch.setattr(workers.training, "_build", lambda *_: _Flow())
        patch.setattr(workers.training, "_likelihoods", lambda *_, **__: {})
        patch.setattr(workers.training, "_held_out", lambda *_, **__: None)

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
        on_state: Callable[[Callable[[], FitState]], None],
        interrupted: Callable[[], bool],
        **_options: object,
    ) -> Iterator[EpochReport]:
        """`flows.fit`: sleeps, and counts what it has seen in a hash."""
        plan = self._plan
        at: dict[str, Any] = {"epoch": 0, "batch": 0, "seen": ""}
        at |= {} if state is None else state.meta["at"]  # type: ignore[arg-type]  # as `_state` made it
        if at["epoch"] == plan.epochs:
            flow.seen = at["seen"]
            yield _report(at, plan)
        while at["epoch"] < plan.epochs:
            while at["batch"] < plan.batches:
                self._kernel.sleep(
                    plan.epoch_s / plan.batches * self._kernel.random.uniform(0.8, 1.2)
                )
                self._poison(plan, at)
                at["batch"] += 1
                at["seen"] = seen(at["seen"], at["epoch"], at["batch"])
                on_batch(at["batch"], plan.batches)
                if interrupted():
                    raise FitInterrupted(_state(at, plan))
                on_state(partial(_state, at, plan))
            at |= {"epoch": at["epoch"] + 1, "batch": 0}
            flow.seen = at["seen"]
            yield _report(at, plan)

    def store(self, result: Any, task: Any, blobs: BlobStore) -> Trained:
        """`workers.files.store`, of what the training has seen."""
        if self._plan.poison is Poison.AT_THE_END:
            raise Died
        stored = save_json(blobs, model_key(task.job_id, task.attempt), result.flow.seen)
        job = SimpleNamespace(id=task.job_id, attempt=task.attempt, dataset_id=task.dataset.id)
        version = a_version(
            job,  # type: ignore[arg-type]  # what it reads of one
            metrics=result.metrics,
            checkpoint_sha256=stored.sha256,
            checkpoint_bytes=stored.bytes,
        )
        return Trained(metrics=result.metrics, version=vars(version))

    def _poison(self, plan: JobPlan, at: dict[str, Any]) -> None:
        if at["epoch"] < plan.epochs // 2:
            return
        match plan.poison:
            case Poison.IN_THE_MIDDLE:
                raise Died
            case Poison.DIVERGES:
                raise DivergedError(at["epoch"] + 1)
            case Poison.STALLS:
                self._kernel.sleep(_FOREVER_S)
            case _:
                pass


class _Flow:
    seen = ""

    def to(self, _device: object) -> "_Flow":
        return self


def _load_parts(task: Any, blobs: BlobStore, **_: object) -> Any:
    open_table(blobs, task.dataset)
    parts = SimpleNamespace(train=None, validation=None, test=None)
    parts.to = lambda _device: parts
    return parts


def _state(at: dict[str, Any], plan: JobPlan) -> FitState:
    progress: dict[str, Any] = {
        "epoch": at["epoch"] + (at["batch"] > 0),
        "batches": at["batch"],
        "best_epoch": at["epoch"],
        "seconds": plan.epoch_s * at["epoch"],
    }
    return FitState(
        tensors={}, meta={"at": dict(at), "batches": plan.batches, "progress": progress}
    )


def _report(at: dict[str, Any], plan: JobPlan) -> EpochReport:
    state = _state(at, plan)
    return EpochReport(
        epoch=at["epoch"],
        train_log_likelihood=0.0,
        validation_log_likelihood=0.0,
        robust_validation_log_likelihood=0.0,
        best_epoch=at["epoch"],
        best_validation_log_likelihood=0.0,
        rows_per_second=1.0,
        seconds=plan.epoch_s * at["epoch"],
        restarts=0,
        stop_reason="max_epochs" if at["epoch"] == plan.epochs else None,
        _state=lambda: state,
    )


def seen(before: str, epoch: int, batch: int) -> str:
    """The hash of one more batch, for the bit-identity of what is resumed."""
    return hashlib.sha256(f"{before} {epoch} {batch}".encode()).hexdigest()[:16]


def all_seen(plan: JobPlan) -> str:
    """The hash of a training that nobody disturbed."""
    before = ""
    for epoch in range(plan.epochs):
        for batch in range(1, plan.batches + 1):
            before = seen(before, epoch, batch)
    return before
