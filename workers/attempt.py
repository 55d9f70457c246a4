"""One attempt at one job: a trainer computes, this side does every database write.

The row is the truth and every write is fenced by the attempt, so a supervisor that was thought
dead changes nothing. The trainer may be killed at any moment: what it wrote is durable, and the
next attempt goes on from there.
"""

import logging
import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from models_store.blobs import BlobStore
from models_store.errors import BlobError, CancelledInsteadError
from models_store.job_states import Checkpoint, Job, JobResult
from models_store.job_work import JobWork
from models_store.registry import NewVersion
from workers.process import TrainerProcess
from workers.protocol import (
    CheckpointRef,
    EpochDone,
    Failed,
    Interrupted,
    Message,
    Note,
    Produced,
    Tick,
    Trained,
)
from workers.settings import WorkerSettings
from workers.writes import Writes

log = logging.getLogger(__name__)

_READ_S = 0.2
_POLL_S = 1.0
_EXIT_S = 5.0
# Importing torch from a cold disk takes a while; no batch can be expected before that.
_START_S = 120.0
_GIVE_UP_S = 2.0


class Ending(StrEnum):
    """Why this side ends a trainer that did not end by itself."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    STALLED = "stalled"


@dataclass(frozen=True)
class Stores:
    """Where a supervisor reads and writes."""

    work: JobWork
    blobs: BlobStore


class Attempt:
    """Follows one trainer from its first message to the last write about it.

    Args:
        job: the job as it was claimed.
        trainer: already spawned for it.
        stores: rows and files.
        settings: time limits.
        stopping: set when the worker is to end.
    """

    def __init__(
        self,
        job: Job,
        trainer: TrainerProcess,
        *,
        stores: Stores,
        settings: WorkerSettings,
        stopping: threading.Event,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._stores = stores
        self._settings = settings
        self._stopping = stopping
        self._writes = Writes()
        self._last: Message | None = None
        self._ending: Ending | None = None
        self._kill_at = float("inf")
        now = time.monotonic()
        self._alive_at = now + _START_S
        self._poll_at = now + _POLL_S

    def follow(self) -> None:
        """Run until the trainer is gone and the database knows the outcome.

        Raises:
            FencedError: another attempt holds the job, or it was ended; the trainer is dead.
        """
        try:
            while not self._trainer.at_end:
                for message in self._trainer.read(_READ_S):
                    self._receive(message)
                self._writes.flush()
                self._watch(time.monotonic())
            self._conclude(self._trainer.wait(_EXIT_S))
        finally:
            self._trainer.close()
        self._settle()

    def _receive(self, message: Message) -> None:
        self._alive_at = time.monotonic()
        self._last = message
        match message:
            case EpochDone() | Interrupted():
                self._writes.add(partial(self._record, message))
            case Note():
                self._writes.add(partial(self._note, message.text))
            case Tick() | Trained() | Produced() | Failed():
                pass

    def _watch(self, now: float) -> None:
        if now >= self._poll_at and not self._writes.waiting:
            self._poll_at = now + _POLL_S
            if self._renew() and self._ending is None:
                self._end(Ending.CANCELLED, now + self._settings.cancel_grace_s)
        if self._stopping.is_set() and self._ending is None:
            self._end(Ending.STOPPING, now + self._settings.stop_grace_s)
        if now - self._alive_at > self._settings.stall_timeout_s and self._ending is None:
            self._end(Ending.STALLED, now)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._trainer.kill()

    def _renew(self) -> bool:
        progress = self._last.progress if isinstance(self._last, Tick) else None
        renew = partial(
            self._stores.work.renew,
            self._job.id,
            self._job.attempt,
            lease_s=self._settings.lease_s,
            progress=progress,
        )
        return self._writes.now(renew) or False

    def _end(self, ending: Ending, kill_at: float) -> None:
        log.info("ending the trainer: %s", ending)
        self._ending = ending
        self._kill_at = kill_at
        self._trainer.terminate()

    def _record(self, message: EpochDone | Interrupted) -> None:
        dropped = self._stores.work.record_epoch(
            self._job.id,
            self._job.attempt,
            lease_s=self._settings.lease_s,
            metrics=message.metrics,
            progress=message.progress,
            checkpoint=None if message.checkpoint is None else _named(message.checkpoint),
        )
        for key in dropped:
            self._delete(key)

    def _note(self, text: str) -> None:
        self._stores.work.add_message(self._job.id, self._job.attempt, text)

    def _conclude(self, status: int) -> None:
        """Queue the last write; which one, the trainer's last message and our reason decide."""
        work, job_id, attempt = self._stores.work, self._job.id, self._job.attempt
        match self._last:
            case Trained() as trained:
                self._writes.add(partial(self._finish, trained))
            case Produced() as produced:
                self._writes.add(partial(self._finish_bulk, produced))
            case _ if self._ending is Ending.CANCELLED:
                self._writes.add(partial(work.cancelled, job_id, attempt))
            case Failed(code=code, detail=detail):
                self._writes.add(partial(work.fail, job_id, attempt, code=code, detail=detail))
            case Interrupted():
                self._writes.add(partial(self._release, crashed=False))
            case _ if self._ending is Ending.STOPPING:
                self._writes.add(partial(self._release, crashed=False))
            case _:
                self._note_crash(status)
                self._writes.add(partial(self._release, crashed=True))

    def _note_crash(self, status: int) -> None:
        if self._ending is Ending.STALLED:
            how = f"made no progress for {self._settings.stall_timeout_s:g} s and was killed"
        elif status < 0:
            how = f"was killed by signal {-status}"
        else:
            how = f"ended with status {status} and without a result"
        log.error("attempt %s: the trainer %s", self._job.attempt, how)
        self._writes.add(
            partial(self._note, f"Attempt {self._job.attempt}: the training process {how}.")
        )

    def _release(self, *, crashed: bool) -> None:
        state = self._stores.work.release(self._job.id, self._job.attempt, crashed=crashed)
        log.info("attempt %s released the job, which is now %s", self._job.attempt, state)

    def _finish(self, trained: Trained) -> None:
        version = NewVersion(**trained.version)
        try:
            registered = self._stores.work.finish(
                self._job.id, self._job.attempt, metrics=trained.metrics, version=version
            )
        except CancelledInsteadError:
            self._delete(version.checkpoint_key)
            raise
        log.info("registered version %s of model %s", registered.version, registered.name)
        self._delete_all_but(version.checkpoint_key)

    def _finish_bulk(self, produced: Produced) -> None:
        result = JobResult(**produced.result)  # type: ignore[typeddict-item]  # sent as one
        try:
            self._stores.work.finish_bulk(
                self._job.id, self._job.attempt, metrics=produced.metrics, result=result
            )
        except CancelledInsteadError:
            self._delete(result["key"])
            raise
        log.info("the result has %s bytes", result["bytes"])
        self._delete_all_but(result["key"])

    def _delete_all_but(self, kept: str) -> None:
        """Remove what the job needs no more: checkpoints, parts, the outcomes of lost attempts."""
        self._delete(f"jobs/{self._job.id}")
        for key in self._stores.blobs.keys(kept.rpartition("/")[0]):
            if key != kept:
                self._delete(key)

    def _delete(self, key: str) -> None:
        """Remove a file that no row names; one that stays is found by `densityd doctor`."""
        try:
            self._stores.blobs.delete(key)
        except (BlobError, OSError) as error:
            log.warning("could not delete %s: %s", key, error)

    def _settle(self) -> None:
        """Write what is left, however long the database is away; stop waiting when told to end."""
        give_up_at = float("inf")
        while not self._writes.flush():
            if self._stopping.is_set():
                give_up_at = min(give_up_at, time.monotonic() + _GIVE_UP_S)
            if time.monotonic() >= give_up_at:
                log.error("left without the last write; another attempt follows the lease")
                return
            time.sleep(_READ_S)


def _named(checkpoint: CheckpointRef) -> Checkpoint:
    return Checkpoint(key=checkpoint.key, sha256=checkpoint.sha256, epoch=checkpoint.epoch)
