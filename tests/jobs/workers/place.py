"""A place with a database, a blob store and jobs, and real processes that work there."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sqlalchemy import text

from densityd.service import private_redis
from models_store.database.database import Database, migrate
from models_store.database.ids import new_id
from models_store.files.blobs import Blobs, table_key
from models_store.files.store_address import StoreAddress
from models_store.job_states import Job, JobKind, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from models_store.quotas import stored_bytes
from models_store.records import Dataset, Version
from models_store.registry import Registry
from models_store.requests.accept_bulk import accept_sampling, accept_scoring, in_parts
from models_store.requests.accept_training import accept_training
from models_store.requests.bulk import SamplingRequest, ScoringRequest
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from tabular.columns import Column
from tests.api.serving import registered
from tests.store.makers import a_dataset, no_wait, submitted
from tests.support.servers import tied
from tests.support.waiting import wait_until
from workers.protocol import DatasetRef, EpochDone, Message, Task, Trained, TrainingTask
from workers.settings import WorkerSettings
from workers.supervisor import assignment
from workers.supervisor.attempt import as_product
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers
from workers.trainer.work import do

PROJECT = "default"
_FILE = "densityd.sqlite3"
TIMEOUT_S = 240.0

LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)

# Some fifty milliseconds an epoch, so that it can be caught in the middle.
FLOW = {"family": "realnvp", "layers": 2, "hidden": [8]}
ENDLESS: dict[str, Any] = {"max_epochs": 100_000, "patience": 100_000, "batch_size": 20, "seed": 1}


@cache
def _migrated() -> bytes:
    """Return the file of a migrated database without rows: a migration takes a tenth of a second."""
    with tempfile.TemporaryDirectory() as folder:
        migrate(f"sqlite:///{folder}/{_FILE}")
        return (Path(folder) / _FILE).read_bytes()


class Place:
    """One data directory and what is in it."""

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self.settings = WorkerSettings(
            data_dir=folder,
            database_url=database_url,
            lease_s=10,  # kept by a process that a busy machine lets wait
            checkpoint_interval_s=0,
            trainer_nice=0,
        )
        folder.mkdir(parents=True, exist_ok=True)
        if database_url is None and not (folder / _FILE).exists():
            (folder / _FILE).write_bytes(_migrated())
        self.database = Database(self.settings.resolved_database_url)
        self.jobs = Jobs(self.database)
        self.work = JobWork(self.database)
        self.registry = Registry(self.database)
        self.blobs = Blobs.in_folder(self.settings.blob_root)

    def with_settings(self, **changes: Any) -> WorkerSettings:
        return self.settings.model_copy(update=changes)

    def add_dataset(self, rows: int = 600, *, columns: int = 3, seed: int = 0) -> Dataset:
        table = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
        table[:, 1] += table[:, 0] ** 2
        return self.add_table(table)

    def add_table(self, table: NDArray[np.floating[Any]], types: Sequence[Column] = ()) -> Dataset:
        dataset_id = new_id("ds")
        with self.blobs.staged(".npy") as staged:
            with staged.open("wb") as file:
                np.save(file, table)
            blob = self.blobs.commit(staged, table_key(dataset_id))
        described = [
            {
                "name": f"x{index + 1}",
                "dtype": "float32",
                "mean": float(values.mean()),
                "std": float(values.std()),
                "min": float(values.min()),
                "max": float(values.max()),
                "distinct": len(np.unique(values)),
            }
            for index, column in enumerate(table.astype(np.float64).clip(-1e100, 1e100).T)
            for values in [column[~np.isnan(column)]]
        ]
        for fields, kind in zip(described, types, strict=bool(types)):
            fields.update(kind.to_dict())
        new = a_dataset(
            id=dataset_id,
            rows=len(table),
            dtype="float32",
            columns=described,
            source_format="npy",
            sha256=blob.sha256,
            bytes=blob.bytes,
        )
        return self.registry.add_dataset(new)

    def start(self, kind: JobKind, accepted: BaseModel, **changes: Any) -> str:
        """Submit a job of an accepted request."""
        request = accepted.model_dump(mode="json")
        values = {"model_name": "m", "dataset_id": request.get("dataset_id"), "request_id": "req-1"}
        return submitted(self.jobs, kind=kind, request=request, **{**values, **changes}).id

    def submit(self, dataset: Dataset, **optimisation: Any) -> str:
        fields: dict[str, Any] = {
            "model_name": "m",
            "dataset_id": dataset.id,
            "flow": optimisation.pop("flow", FLOW),
            "optimisation": {"seed": 1} | optimisation,
        }
        request = TrainingRequest.model_validate(fields)
        return self.start(JobKind.TRAINING, accept_training(request, dataset, limits=LIMITS))

    def add_model(self, **fields: Any) -> Version:
        """A version that no training made."""
        return registered(self.database, self.blobs, name="m", **fields)

    def submit_scoring(
        self, version: Version, dataset: Dataset, part_rows: int | None = None, **fields: Any
    ) -> str:
        body = {"model": version.ref, "dataset_id": dataset.id} | fields
        request = ScoringRequest.model_validate(body)
        accepted = accept_scoring(request, version, dataset, max_bytes=2**40)
        return self._start_bulk(JobKind.SCORING, version, accepted, dataset.rows, part_rows)

    def submit_sampling(
        self, version: Version, n: int, part_rows: int | None = None, **fields: Any
    ) -> str:
        body = {"model": version.ref, "n": n, "seed": 1} | fields
        request = SamplingRequest.model_validate(body)
        accepted = accept_sampling(request, version, None, max_bytes=2**40)
        return self._start_bulk(JobKind.SAMPLING, version, accepted, n, part_rows)

    def _start_bulk(
        self, kind: JobKind, version: Version, accepted: Any, rows: int, part_rows: int | None
    ) -> str:
        split = in_parts(accepted, version, rows=rows, part_rows=part_rows)
        at = {"model_name": version.name, "model_version": version.version}
        return self.start(kind, split or accepted, role=split and JobRole.PARENT, **at)

    def carry_out(self, order: int = 1) -> list[Job]:
        """Do the work that there is; that of jobs that wait at the same time in either order."""
        done: list[Job] = []
        while jobs := [*iter(partial(self.work.claim, "here", lease_s=600), None)][::order]:
            for job in jobs:
                self.finish(job)
            done += jobs
        return done

    def assigned(self, job: Job) -> Any:
        """The task of a claimed job."""
        return assignment.task_of(job, registry=self.registry, settings=self.settings)

    def finish(self, job: Job) -> dict[str, Any]:
        """Do the work of a claimed job, and finish it; return what it made."""
        last: Any = run(self.assigned(job))[-1]
        made: dict[str, Any] = last.version if isinstance(last, Trained) else last.result
        if job.role is JobRole.CHILD and not isinstance(last, Trained):
            made = as_product(last)
        kept: Any = {"product" if job.role is JobRole.CHILD else "result": made}
        self.work.finish(job.id, job.attempt, metrics=last.metrics, **kept)
        return made

    def stored_bytes(self) -> int:
        """What counts in the project's quota."""
        with self.database.read() as session:
            return stored_bytes(session, PROJECT)

    def part(self, job_id: str) -> int:
        return int((self.job(job_id).metrics or {}).get("part", 0))

    def job(self, job_id: str) -> Job:
        return self.jobs.get(PROJECT, job_id)

    def state(self, job_id: str) -> JobState:
        return self.job(job_id).state

    def epoch(self, job_id: str) -> int:
        return int((self.job(job_id).metrics or {}).get("epoch", 0))

    def messages(self, job_id: str) -> list[str]:
        events = self.jobs.events(PROJECT, job_id)
        return [event.data["text"] for event in events if event.event == "message"]

    def epochs(self, job_id: str) -> list[int]:
        events = self.jobs.events(PROJECT, job_id, limit=100_000)
        return [event.data["epoch"] for event in events if event.event == "epoch"]

    def version(self, job_id: str) -> Version:
        job = self.job(job_id)
        assert job.model_version is not None, job
        return self.registry.version(PROJECT, job.model_name, job.model_version)

    def no_wait(self, job_id: str) -> None:
        """Let the time pass that the job waits for after a failed attempt."""
        no_wait(self.database, job_id)

    def expire_lease(self, job_id: str) -> None:
        with self.database.write() as session:
            session.execute(
                text("UPDATE job SET lease_expires_at = '2000-01-01T00:00:00.000Z' WHERE id = :id"),
                {"id": job_id},
            )


def is_at_work(place: Place, name: str | None = None) -> bool:
    """Return whether a worker gave a sign of life; None: any."""
    return any(worker.name == (name or worker.name) for worker in Workers(place.database).alive())


class Running:
    """A supervisor at work on one job, in a thread as Celery's pool would have it."""

    def __init__(
        self, database: Database, settings: WorkerSettings, trainers: Trainers | None = None
    ) -> None:
        self.supervisor = Supervisor(database, settings, worker="tester", trainers=trainers)
        self._thread = threading.Thread(target=self.supervisor.run_next)
        self._thread.start()

    def trainer_pid(self) -> int:
        found: list[int] = []

        def look() -> bool:
            found[:] = trainers_of(os.getpid())
            return bool(found)

        wait_until(look)
        return found[0]

    def join(self, timeout_s: float = TIMEOUT_S) -> float:
        """Wait for its end; the seconds that it took."""
        began = time.monotonic()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()
        return time.monotonic() - began

    def end(self) -> None:
        self.supervisor.stop()
        self._thread.join(TIMEOUT_S)


def trainers_of(pid: int) -> list[int]:
    """The trainers that a process has."""
    servers = fork_servers_of(pid)
    return [
        child for one in servers for child in children_of(one) if _text(child, "comm") == "trainer"
    ]


def children_of(pid: int) -> list[int]:
    """Return the children of a process; the kernel lists them by thread."""
    children: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, listed.read_text().split())
    return children


def fork_servers_of(pid: int) -> list[int]:
    """The processes of a process that fork its trainers."""
    return [child for child in children_of(pid) if "workers.trainer" in _text(child, "cmdline")]


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().strip()
    except OSError:
        return ""


class PlaceRedis:
    """A real Redis on the socket of a place."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            tied(*private_redis.build_command(self._settings.redis_socket)),
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: private_redis.is_up(self._settings.redis_socket))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


EPOCHS = 4


def ref(dataset: Dataset) -> DatasetRef:
    types = [column.to_dict() for column in dataset.column_types]
    return DatasetRef(id=dataset.id, key=dataset.key, sha256=dataset.sha256, types=types)


def attempt_fields(place: Place) -> dict[str, Any]:
    """Fields that tasks of all kinds share, for a first attempt on the CPU."""
    return {
        "job_id": "job_" + "1" * 32,
        "attempt": 1,
        "request_id": None,
        "log_level": "INFO",
        "store": StoreAddress(url=str(place.blobs.root)),
        "checkpoints": [],
        "device": "cpu",
        "threads": 1,
        "nice": 0,
        "memory_bytes": None,
        "checkpoint_interval_s": 0.0,
        "long_epoch_s": 600,
    }


def task_of(place: Place, dataset: Dataset, **changes: Any) -> TrainingTask:
    fields: dict[str, Any] = {
        "model_name": "m",
        "dataset_id": dataset.id,
        "flow": FLOW,
        "optimisation": {"seed": 1, "max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 50},
    } | changes.pop("request", {})
    accepted = accept_training(TrainingRequest.model_validate(fields), dataset, limits=LIMITS)
    return TrainingTask(
        **attempt_fields(place),
        request=accepted.model_dump(mode="json"),
        dataset=ref(dataset),
        validation_dataset=None,
        test_dataset=None,
    ).model_copy(update=changes)


def run(task: Task, interrupted: Callable[[], bool] = lambda: False) -> list[Any]:
    """Do a task here; return what it sends."""
    messages: list[Message] = []
    do(task, messages.append, interrupted)
    return messages


def result(messages: list[Message]) -> Trained:
    last = messages[-1]
    assert isinstance(last, Trained), last
    return last


def epochs(messages: list[Message]) -> list[EpochDone]:
    return [message for message in messages if isinstance(message, EpochDone)]
