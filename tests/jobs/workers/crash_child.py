"""An attempt at a job that dies at one write, in a process that is forked for it.

The supervisor is the real one; its trainer works in a thread of the same process, so that both are
gone at once, as when a machine loses its power. What is patched is the storage below them.
"""

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models_store.files.blobs
import models_store.jobs.leases
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.jobs.leases import JobWork
from workers.protocol import EpochDone, Message, Started, Task
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers
from workers.trainer.work import do, outcome_of

DIED = 77
_STOP_AFTER = 3


@dataclass(frozen=True)
class Point:
    """A call during which the process dies.

    Attributes:
        owner: of the function.
        name: of the function.
        after: the call is done first, otherwise it never happens.
        nth: which of the calls that count.
        counts: whether a call counts, by its arguments.
        stopping: the worker was asked to stop before.
    """

    owner: Any
    name: str
    after: bool
    nth: int = 1
    counts: Callable[..., bool] = lambda *_, **__: True
    stopping: bool = False

    def arm(self) -> None:
        """Have the process die there."""
        call, calls = getattr(self.owner, self.name), iter(range(1, 10_000))

        def deadly(*args: Any, **kwargs: Any) -> Any:
            due = self.counts(*args, **kwargs) and next(calls) == self.nth
            if due and not self.after:
                os._exit(DIED)
            answer = call(*args, **kwargs)
            if due:
                os._exit(DIED)
            return answer

        setattr(self.owner, self.name, deadly)


def _of(kind: str) -> Callable[..., bool]:
    """Whether a file of this kind is committed, or the folder of one is synced."""
    return lambda *at: str(at[-1]).startswith(f"{kind}/") or Path(at[-1]).parent.name == kind


def _to_success(_session: Any, _row: Any, to: str) -> bool:
    return to == "succeeded"


POINTS = {
    "before the claim": Point(JobWork, "claim", after=False),
    "after the claim": Point(JobWork, "claim", after=True),
    "before the checkpoint's rename": Point(
        Blobs, "commit", after=False, nth=2, counts=_of("jobs")
    ),
    "after the checkpoint's rename": Point(
        models_store.files.blobs, "_sync_folder", after=False, nth=2, counts=_of("jobs")
    ),
    "after the checkpoint": Point(Blobs, "commit", after=True, nth=2, counts=_of("jobs")),
    "before the row names it": Point(JobWork, "record_epoch", after=False, nth=2),
    "after the row names it": Point(JobWork, "record_epoch", after=True, nth=2),
    "before an old checkpoint goes": Point(Blobs, "delete", after=False),
    "after an old checkpoint went": Point(Blobs, "delete", after=True),
    "before the model's rename": Point(Blobs, "commit", after=False, counts=_of("models")),
    "after the model's rename": Point(
        models_store.files.blobs, "_sync_folder", after=False, counts=_of("models")
    ),
    "after the model": Point(Blobs, "commit", after=True, counts=_of("models")),
    "before the version": Point(JobWork, "finish", after=False),
    "between version and commit": Point(
        models_store.jobs.leases, "move", after=True, counts=_to_success
    ),
    "after the version": Point(JobWork, "finish", after=True),
    "before the release": Point(JobWork, "release", after=False, stopping=True),
    "after the release": Point(JobWork, "release", after=True, stopping=True),
}


class InlineTrainers(Trainers):
    """Trainers that are threads of this process, which has torch already, and storage that fails.

    Args:
        told: Called with each message.
    """

    def __init__(self, told: Callable[[Message], None] = lambda _: None) -> None:
        self._told = told

    def start(self, task: Task) -> "InlineTrainer":  # type: ignore[override]  # taken for a process
        return InlineTrainer(task, self._told)


class InlineTrainer:
    """Trainer in a thread."""

    at_end = False
    failure = None

    def __init__(self, task: Task, told: Callable[[Message], None]) -> None:
        self._task = task
        self._told = told
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._interrupted = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> list[Message]:
        """What a process would have sent."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return []
        self.at_end = message is None
        return [] if message is None else [message]

    def terminate(self) -> None:
        """Ask for a checkpoint and an end."""
        self._interrupted.set()

    kill = terminate

    def wait(self, timeout_s: float) -> int:
        """The exit status of a process that did all it should."""
        self._thread.join(timeout_s)
        return 0

    def close(self) -> None:
        """Wait for the end."""
        self._interrupted.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.send(Started())
            do(self._task, self.send, self._interrupted.is_set)
        except Exception as error:  # noqa: BLE001 - as the trainer does
            self.send(outcome_of(error, self._task))
        finally:
            self._messages.put(None)

    def send(self, message: Message) -> None:
        """Hand a message to the supervisor."""
        self._messages.put(message)
        self._told(message)


def settings_of(folder: Path) -> WorkerSettings:
    """A checkpoint an epoch, and a lease that the test moves."""
    return WorkerSettings(data_dir=folder, checkpoint_interval_s=0, lease_s=60)


def work_until(folder: Path, name: str) -> None:
    """Work on whatever waits, until the point."""
    settings, point = settings_of(folder), POINTS[name]

    def told(message: Message) -> None:
        ended = message.metrics.get("epoch") if isinstance(message, EpochDone) else None
        if point.stopping and ended == _STOP_AFTER:
            supervisor.stop()

    database = Database(settings.resolved_database_url)
    supervisor = Supervisor(database, settings, worker="crash_child", trainers=InlineTrainers(told))
    point.arm()
    supervisor.run_next()
