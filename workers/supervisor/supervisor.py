"""Supervisor that claims jobs and runs each with a trainer of its own."""

import logging
import threading
import time
from collections.abc import Callable
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
from workers.devices import devices_of, has_accelerator
from workers.metrics import AttemptReports, WorkerMetrics
from workers.settings import WorkerSettings
from workers.supervisor.assignment import task_of
from workers.supervisor.attempt import Attempt
from workers.supervisor.fitness import Fitness
from workers.supervisor.trainers import Trainers

log = logging.getLogger(__name__)

_DONE = "done"
_OWN_FAULT = AttemptEnd(ending=Ending.CRASHED, detail="the worker met a fault of its own")


class Supervisor:
    """Runner of jobs, one at a time in each thread that calls it.

    Args:
        settings: Settings with limits and devices.
        worker: Name of the worker, the same after a restart.
        trainers: What starts trainers; None: a server that forks them.
        metrics: Metrics that count attempts and checkpoints; None: they are not kept.
        on_claim: Called whenever a job was claimed.
    """

    def __init__(
        self,
        database: Database,
        settings: WorkerSettings,
        *,
        worker: str,
        trainers: Trainers | None = None,
        metrics: WorkerMetrics | None = None,
        on_claim: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = Registry(database)
        self._work = JobWork(database)
        self._blobs = Blobs(settings.store_address)
        self._settings = settings
        self._worker = worker
        self._stopping = threading.Event()
        self._metrics = metrics or WorkerMetrics()
        self._free = devices_of(settings)[::-1]
        self._slots = len(self._free)
        self._accelerator = has_accelerator(settings)
        self._trainers = trainers or Trainers()
        self._on_claim = on_claim
        self._fitness = Fitness(
            database, settings, stopping=self._stopping, trainers=self._trainers
        )

    def stop(self) -> None:
        """Let every trainer write a checkpoint and end, and claim no more jobs."""
        self._stopping.set()

    @property
    def has_free_device(self) -> bool:
        """Return whether this worker may run another job."""
        return bool(self._free)

    @property
    def is_idle(self) -> bool:
        """Return whether this worker neither runs a job nor looks for one."""
        return len(self._free) == self._slots

    @property
    def unfit(self) -> str | None:
        """Return the reason for which this worker takes no jobs; None: it takes them."""
        return self._fitness.reason

    @property
    def memory_bytes(self) -> int | None:
        """Return the memory of a trainer, that of its accelerator if it has one; None: not known."""
        return self._fitness.memory_bytes

    def run_next(self) -> bool:
        """Claim the next job and run it; return False if there was none, no free device, or the worker is not fit."""
        try:
            device = self._free.pop()
        except IndexError:
            return False
        try:
            return self._run_one(device)
        finally:
            self._free.append(device)

    def _run_one(self, device: str) -> bool:
        """Claim the next job and run it on a device; return False if there was none."""
        if self._stopping.is_set() or not self._fitness.check():
            return False
        asked_at = time.time()
        try:
            job = self._work.claim(
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
        span = TRACES.span(
            f"{job.kind.value} attempt",
            traceparent=job.traceparent,
            kind="consumer",
            attributes={
                "densityd.job_id": job.id,
                "densityd.attempt": job.attempt,
                "densityd.worker": self._worker,
                "densityd.device": device,
            },
        )
        with told, span, self._metrics.running.track_inprogress():
            TRACES.record("claim", began=asked_at)
            log.info("attempt %s begins", job.attempt)
            began = time.monotonic()
            ending = self._end_of(job, device)
            self._metrics.observe_attempt(job.kind.value, ending, time.monotonic() - began)
            TRACES.describe({"densityd.ending": ending})
        return True

    def _end_of(self, job: Job, device: str) -> str:
        """Run an attempt, and return how it ended, whatever goes wrong."""
        try:
            return self._attempt(job, device)
        except (FencedError, DatabaseError) as error:
            log.warning("attempt %s ends without a further word: %s", job.attempt, error)
            return "lost"
        except Exception:
            # The job must not be lost to a fault of ours, nor the worker to one job.
            log.exception("attempt %s failed in the supervisor", job.attempt)
            try:
                self._work.release(job.id, job.attempt, failed=_OWN_FAULT)
            except (DatabaseError, FencedError) as error:
                log.warning("could not release the job, its lease will run out: %s", error)
            return _OWN_FAULT.ending.value

    def _attempt(self, job: Job, device: str) -> str:
        try:
            task = task_of(job, registry=self._registry, settings=self._settings)
        except NotFoundError:
            self._work.fail(
                job.id, job.attempt, code="dataset_missing", detail="A dataset of the job is gone."
            )
            return _DONE
        chosen: dict[str, Any] = {
            "store_id": self._fitness.store_id,
            "device": device,
            "traceparent": TRACEPARENT.get(),
        }
        attempt = Attempt(
            job,
            self._trainers.start(task.model_copy(update=chosen)),
            work=self._work,
            blobs=self._blobs,
            settings=self._settings,
            stopping=self._stopping,
            reports=AttemptReports(job.kind.value, self._metrics),
            should_give_way=partial(
                self._work.should_give_way,
                job,
                accelerator=self._accelerator,
                memory_bytes=self._fitness.memory_bytes,
            ),
        )
        end = attempt.follow()
        self._fitness.judge(end)
        return _DONE if end is None else end.ending.value
