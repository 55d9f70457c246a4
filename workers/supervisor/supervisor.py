"""Supervisor that claims jobs and runs each with a trainer of its own."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from models_store.database.database import Database
from models_store.errors import DatabaseError, FencedError, NotFoundError
from models_store.files.blobs import Blobs
from models_store.job_states import Job
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import AttemptEnd, Ending
from models_store.process.logs import TRACEPARENT, log_context
from models_store.process.traces import TRACES
from models_store.registry import Registry
from workers.devices import Slots, devices_of, has_accelerator
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings
from workers.supervisor.assignment import task_of
from workers.supervisor.attempt import Attempt, Stores
from workers.supervisor.fitness import Fitness
from workers.supervisor.process import ForkServer, TrainerProcess
from workers.supervisor.reports import AttemptReports

log = logging.getLogger(__name__)

_DONE = "done"
_OWN_FAULT = AttemptEnd(ending=Ending.CRASHED, detail="the worker met a fault of its own")


class Supervisor:
    """Runner of jobs, one at a time in each thread that calls it.

    Args:
        database: Database of the jobs.
        settings: Settings with limits and devices.
        worker: Name of the worker, the same after a restart.
        tell: Called with each new reason for which the worker takes no jobs, None once it does, and
            with the memory of its trainers.
        metrics: Metrics that count attempts and checkpoints; None: they are not kept.
        on_claim: Called whenever a job was claimed.
        fork_server: Server that forks the trainers; None: one of its own.
    """

    def __init__(  # noqa: PLR0913 - the worker has all of it
        self,
        database: Database,
        settings: WorkerSettings,
        *,
        worker: str,
        tell: Callable[[str | None, int | None], None] = lambda _reason, _memory: None,
        metrics: WorkerMetrics | None = None,
        on_claim: Callable[[], None] = lambda: None,
        fork_server: ForkServer | None = None,
    ) -> None:
        self._registry = Registry(database)
        self._stores = Stores(work=JobWork(database), blobs=Blobs(settings.store_address))
        self._settings = settings
        self._worker = worker
        self._stopping = threading.Event()
        self._metrics = metrics or WorkerMetrics()
        self._running: set[tuple[str, int]] = set()
        self._slots = Slots(devices_of(settings))
        self._accelerator = has_accelerator(settings)
        self._fork_server = fork_server or ForkServer()
        self._on_claim = on_claim
        self._fitness = Fitness(
            database,
            settings,
            stopping=self._stopping,
            tell=tell,
            fork_server=self._fork_server,
        )

    def stop(self) -> None:
        """Let every trainer write a checkpoint and end, and claim no more jobs."""
        self._stopping.set()

    @property
    def running(self) -> int:
        """Return the number of jobs that this worker runs."""
        return len(self._running)

    @property
    def unfit(self) -> str | None:
        """Return the reason for which this worker takes no jobs; None: it takes them."""
        return self._fitness.reason

    @property
    def has_free_slot(self) -> bool:
        """Return whether this worker may run another job."""
        return self._slots.any_free

    def run_next(self) -> bool:
        """Claim the next job and run it; return False if there was none, no free slot, or the worker is not fit."""
        with self._slots.take() as device:
            return device is not None and self._run_one(device)

    def _run_one(self, device: str) -> bool:
        """Claim the next job and run it on a device; return False if there was none."""
        if self._stopping.is_set() or not self._fitness.check():
            return False
        asked_at = time.time()
        try:
            job = self._stores.work.claim(
                self._worker,
                lease_s=self._settings.lease_s,
                max_project_bytes=self._settings.max_project_bytes,
                accelerator=self._accelerator,
                memory_bytes=self._fitness.memory_bytes,
            )
        except DatabaseError as error:
            log.warning("could not look for a job: %s", error)
            return False
        if job is None:
            return False
        self._on_claim()
        told = log_context(request_id=job.request_id, job_id=job.id, traceparent=job.traceparent)
        with told, self._span(job, device):
            TRACES.record("claim", began=asked_at)
            self._carry_through(job, device)
        return True

    def _span(self, job: Job, device: str) -> AbstractContextManager[None]:
        """Return a context that is the span of an attempt, in the trace of the job's request."""
        attributes = {
            "densityd.job_id": job.id,
            "densityd.attempt": job.attempt,
            "densityd.worker": self._worker,
            "densityd.device": device,
        }
        name = f"{job.kind.value} attempt"
        parent = job.traceparent
        return TRACES.span(name, traceparent=parent, kind="consumer", attributes=attributes)

    def _carry_through(self, job: Job, device: str) -> None:
        log.info("attempt %s begins", job.attempt)
        began = time.monotonic()
        self._running.add((job.id, job.attempt))
        try:
            ending = self._end_of(job, device)
        finally:
            self._running.discard((job.id, job.attempt))
        self._metrics.observe_attempt(job.kind.value, ending, time.monotonic() - began)
        TRACES.describe({"densityd.ending": ending})

    def _end_of(self, job: Job, device: str) -> str:
        """Run an attempt, and return how it ended, whatever goes wrong."""
        ending = "lost"
        try:
            ending = self._attempt(job, device)
        except FencedError as error:
            log.warning("attempt %s ends without a further word: %s", job.attempt, error)
        except DatabaseError as error:
            log.warning("attempt %s ends, its lease will run out: %s", job.attempt, error)
        except Exception:
            # The job must not be lost to a fault of ours, nor the worker to one job.
            log.exception("attempt %s failed in the supervisor", job.attempt)
            self._give_back(job, _OWN_FAULT)
            ending = _OWN_FAULT.ending.value
        return ending

    def _attempt(self, job: Job, device: str) -> str:
        try:
            task = task_of(job, registry=self._registry, settings=self._settings)
        except NotFoundError:
            self._stores.work.fail(
                job.id, job.attempt, code="dataset_missing", detail="A dataset of the job is gone."
            )
            return _DONE
        chosen: dict[str, Any] = {
            "store": self._settings.store_address,
            "store_id": self._fitness.store_id,
            "device": device,
            "traceparent": TRACEPARENT.get(),
        }
        attempt = Attempt(
            job,
            TrainerProcess(task.model_copy(update=chosen), self._fork_server),
            stores=self._stores,
            settings=self._settings,
            stopping=self._stopping,
            reports=AttemptReports(job.kind.value, self._metrics),
            should_give_way=partial(
                self._stores.work.should_give_way,
                job,
                self._worker,
                accelerator=self._accelerator,
                memory_bytes=self._fitness.memory_bytes,
            ),
        )
        end = attempt.follow()
        self._fitness.judge(end)
        return _DONE if end is None else end.ending.value

    def _give_back(self, job: Job, failed: AttemptEnd) -> None:
        try:
            self._stores.work.release(job.id, job.attempt, failed=failed)
        except (DatabaseError, FencedError) as error:
            log.warning("could not release the job, its lease will run out: %s", error)
