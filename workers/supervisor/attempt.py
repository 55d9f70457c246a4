"""Attempt at a job: the trainer computes, the supervisor does every database write.

The row is the truth and every write is fenced by the attempt, so a supervisor that was thought
dead changes nothing. The trainer may be killed at any moment: what it wrote is durable, and the
next attempt continues from there.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

from models_store.errors import DatabaseError
from models_store.files.blobs import Blobs
from models_store.files.job_files import delete_leftovers, delete_unneeded
from models_store.job_states import Checkpoint, Job, JobResult, JobRole
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import AttemptEnd, Ending
from models_store.records import NewVersion
from workers.metrics import AttemptReports
from workers.protocol import (
    EpochDone,
    Failed,
    Interrupted,
    Message,
    Note,
    Passed,
    Produced,
    Started,
    Tick,
    Trained,
    Unfit,
)
from workers.settings import WorkerSettings
from workers.supervisor.trainers import Trainer, end_of, out_of_memory_kills
from workers.supervisor.writes import Writes

log = logging.getLogger(__name__)

_READ_S = 0.2
_POLL_S = 1.0
# Epochs without a checkpoint that end within this time share a transaction: each costs as much as
# hundreds of steps of a small flow.
_RELAY_S = 0.25
_EXIT_S = 5.0
_CANCEL_GRACE_S, _STOP_GRACE_S = 2.0, 6.0
# Seconds between two looks for a job to give way to, after a job's turn.
_GIVE_WAY_S = 5.0
# Importing torch from a cold disk takes a while; no batch can be expected before that.
_START_S = 120.0
_GIVE_UP_S = 2.0
_TIME_LIMIT = (
    "It ran for {seconds:g} s over all attempts, the most that a job may. Its last checkpoint is kept;"
    " resuming it gives it as much again."
)


class Order(StrEnum):
    """Reason of this side for ending a trainer that did not end by itself."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    STALLED = "stalled"
    TIME_LIMIT = "time limit"
    TURN_OVER = "turn over"


class Attempt:
    """Supervision of one trainer, from its first message to the last write about it.

    After its turn it asks `should_give_way` whether a job of another project should have its place.
    """

    def __init__(  # noqa: PLR0913 - the supervisor has all of it
        self,
        job: Job,
        trainer: Trainer,
        *,
        work: JobWork,
        blobs: Blobs,
        settings: WorkerSettings,
        stopping: threading.Event,
        reports: AttemptReports,
        should_give_way: Callable[[], bool],
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._work = work
        self._blobs = blobs
        self._settings = settings
        self._stopping = stopping
        self._reports = reports
        self._should_give_way = should_give_way
        self._resumable = False
        self._writes = Writes()
        self._unrecorded: list[EpochDone | Interrupted] = []
        self._last: Message | None = None
        self._order: Order | None = None
        self._kill_at = float("inf")
        now = time.monotonic()
        self._alive_at = now + _START_S
        self._poll_at = now + _POLL_S
        self._relay_at = now
        self._turn_ends_at = now + settings.turn_s
        self._time_limit_at = now + settings.max_job_s - job.run_seconds
        self._started = False
        self._kills_before = out_of_memory_kills()
        self._failed: AttemptEnd | None = None
        self._made: str | None = None

    def follow(self) -> AttemptEnd | None:
        """Run until the trainer is gone and the database knows the outcome.

        Returns:
            The end of an attempt that failed without a verdict on the job.

        Raises:
            FencedError: Another attempt holds the job, or it was ended; the trainer is dead.
        """
        try:
            self._follow()
        finally:
            self._tidy()
        return self._failed

    def _follow(self) -> None:
        try:
            while not self._trainer.at_end:
                for message in self._trainer.read(_READ_S):
                    self._receive(message)
                if time.monotonic() >= self._relay_at:
                    self._relay()
                self._writes.flush()
                self._watch(time.monotonic())
            self._relay()
            self._conclude(self._trainer.wait(_EXIT_S))
            self._reports.record("end")
        finally:
            self._trainer.close()
        self._settle()

    def _receive(self, message: Message) -> None:
        if not isinstance(message, Started):  # loading what it works on may take a while
            self._alive_at = time.monotonic()
        self._last = message
        match message:
            case EpochDone() | Interrupted():
                self._unrecorded.append(message)
                # What follows the last epoch or row has no checkpoint, and is not interrupted for others.
                at_end = isinstance(message, EpochDone) and message.computed
                self._resumable = not at_end and (self._resumable or message.checkpoint is not None)
                if message.checkpoint is not None:
                    self._relay()
            case Note():
                self._relay()
                self._writes.add(partial(self._note, message.text))
            case Started():
                self._started = True
                self._reports.record("start")
            case Tick() | Trained() | Produced() | Passed() | Failed() | Unfit():
                pass

    def _watch(self, now: float) -> None:
        if now >= self._poll_at and not self._writes.waiting:
            self._poll_at = now + _POLL_S
            if self._renew() and self._order is None:
                self._end(Order.CANCELLED, now + _CANCEL_GRACE_S)
        if self._order is None and (order := self._due_order(now)) is not None:
            grace_s = 0.0 if order is Order.STALLED else _STOP_GRACE_S
            self._end(order, now + grace_s)
        if now >= self._kill_at:
            self._trainer.kill()
            self._kill_at = float("inf")

    def _due_order(self, now: float) -> Order | None:
        if self._stopping.is_set():
            return Order.STOPPING
        if now - self._alive_at > self._settings.stall_timeout_s:
            return Order.STALLED
        if now >= self._time_limit_at:
            return Order.TIME_LIMIT
        if now >= self._turn_ends_at and self._resumable:
            self._turn_ends_at = now + _GIVE_WAY_S
            if self._writes.now(self._should_give_way):
                return Order.TURN_OVER
        return None

    def _renew(self) -> bool:
        progress = self._last.progress if isinstance(self._last, Tick) else None
        renew = partial(
            self._work.renew,
            self._job.id,
            self._job.attempt,
            lease_s=self._settings.lease_s,
            progress=progress,
        )
        return self._writes.now(renew) or False

    def _end(self, order: Order, kill_at: float) -> None:
        log.info("ending the trainer: %s", order)
        self._order = order
        self._kill_at = kill_at
        self._trainer.terminate()

    def _relay(self) -> None:
        """Queue the write of the epochs that have ended."""
        if self._unrecorded:
            self._reports.advanced(self._unrecorded)
            self._writes.add(partial(self._record, self._unrecorded))
            self._unrecorded = []
            self._relay_at = time.monotonic() + _RELAY_S

    def _record(self, messages: list[EpochDone | Interrupted]) -> None:
        *earlier, last = messages
        checkpoint: Any = None  # a `Checkpoint`
        if last.checkpoint is not None:
            checkpoint = last.checkpoint.model_dump(exclude={"seconds"}, exclude_none=True)
        dropped = self._work.record_epoch(
            self._job.id,
            self._job.attempt,
            lease_s=self._settings.lease_s,
            metrics=last.metrics,
            progress=last.progress,
            checkpoint=checkpoint,
            earlier=[message.metrics for message in earlier],
        )
        delete_unneeded(self._blobs, *dropped)

    def _note(self, text: str) -> None:
        self._work.add_message(self._job.id, self._job.attempt, text)

    def _conclude(self, status: int) -> None:
        """Queue the last write, as the trainer's last message and the reason to end it decide."""
        work, job_id, attempt = self._work, self._job.id, self._job.attempt
        match self._last:
            case Trained() | Produced() as made:
                self._writes.add(partial(self._finish, made))
            case _ if self._order is Order.CANCELLED:
                self._writes.add(partial(work.cancelled, job_id, attempt))
            case Failed(code=code, detail=detail):
                self._writes.add(partial(work.fail, job_id, attempt, code=code, detail=detail))
            case _ if self._order is Order.TIME_LIMIT:
                told = _TIME_LIMIT.format(seconds=self._settings.max_job_s)
                self._writes.add(
                    partial(work.fail, job_id, attempt, code="time_limit", detail=told)
                )
            case _:
                self._failed = self._failure(status)
                self._writes.add(self._release)

    def _failure(self, status: int) -> AttemptEnd | None:
        """Return the end of the attempt; None if the trainer was asked to end."""
        last = self._last
        if isinstance(last, Unfit):
            return AttemptEnd(
                ending=Ending.ENVIRONMENT, detail=last.detail.rstrip("."), code=last.code
            )
        if isinstance(last, Interrupted) or self._order in {Order.STOPPING, Order.TURN_OVER}:
            return None
        if self._trainer.failure is not None:
            detail = f"no training process could be started ({self._trainer.failure})"
            return AttemptEnd(ending=Ending.NOT_STARTED, detail=detail)
        stalled = self._order is Order.STALLED
        return end_of(
            status,
            started=self._started,
            stalled_s=self._settings.stall_timeout_s if stalled else None,
            memory_ran_out=out_of_memory_kills() > self._kills_before,
        )

    def _release(self) -> None:
        failed, gives_way = self._failed, self._order is Order.TURN_OVER
        state = self._work.release(
            self._job.id, self._job.attempt, failed=failed, gives_way=gives_way
        )
        if failed is not None:
            log.error("attempt %s failed: %s", self._job.attempt, failed.detail)
        log.info("attempt %s released the job, which is now %s", self._job.attempt, state)

    def _finish(self, message: Trained | Produced) -> None:
        job_id, attempt, metrics = self._job.id, self._job.attempt, message.metrics
        if self._job.role is JobRole.CHILD:
            product = message.version if isinstance(message, Trained) else as_product(message)
            self._work.finish(job_id, attempt, metrics=metrics, product=product)
            self._made = product["checkpoint_key"]
        elif isinstance(message, Trained):
            version = NewVersion(**message.version)
            number = self._work.finish(job_id, attempt, metrics=metrics, version=version)
            log.info("registered version %s of model %s", number, self._job.model_name)
            self._made = version.checkpoint_key
        else:
            result = JobResult(**message.result)  # type: ignore[typeddict-item]  # sent as one
            self._work.finish(
                job_id, attempt, metrics=metrics, result=result, counts=message.counts
            )
            log.info("the result has %s bytes", result["bytes"])
            self._made = result["key"]

    def _tidy(self) -> None:
        """Remove the files of a job that has ended that nothing needs: all but what it made or resumes from."""
        job_id, attempt = self._job.id, self._job.attempt
        if self._made is not None:
            kept: list[Checkpoint] | None = [Checkpoint(key=self._made, sha256="", epoch=0)]
        else:
            try:
                kept = self._work.kept_checkpoints(job_id, attempt)
            except DatabaseError as error:
                log.warning("files that job %s may not need stay for now: %s", job_id, error)
                return
        if kept is not None:
            delete_leftovers(self._blobs, job_id, attempt=attempt, kept=kept)

    def _settle(self) -> None:
        """Write what is left, however long the database is unavailable; stop waiting when asked to end."""
        give_up_at = float("inf")
        while not self._writes.flush():
            if self._stopping.is_set():
                give_up_at = min(give_up_at, time.monotonic() + _GIVE_UP_S)
            if time.monotonic() >= give_up_at:
                log.error("left without the last write; another attempt follows the lease")
                return
            time.sleep(_READ_S)


def as_product(message: Produced) -> dict[str, Any]:
    """Return a file, with the counts of its rows, as what a child gives to its parent."""
    result = message.result
    return {
        "checkpoint_key": result["key"],
        "checkpoint_sha256": result["sha256"],
        "checkpoint_bytes": result["bytes"],
        "rows": result["rows"],
        "result": result,
        "counts": message.counts,
    }
