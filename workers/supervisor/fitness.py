"""Fitness of a worker: it takes jobs only while it has what any job needs."""

import logging
import threading
import time

from models_store.database.database import Database
from models_store.errors import BlobError, DatabaseError, WrongStoreError
from models_store.files.blobs import Blobs
from models_store.files.store_identity import known_identity
from models_store.jobs.retries import QUOTA_STORAGE, AttemptEnd, Ending
from workers.protocol import Failed, Message, Passed, SelfTestTask, Unfit
from workers.settings import WorkerSettings
from workers.supervisor.assignment import common_fields, memory_limit_bytes
from workers.supervisor.trainers import Trainers

log = logging.getLogger(__name__)

_UNTESTED = "Its self-test has not passed yet."
_READ_S = 0.2
_LIMIT_S = 180.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
# Ends after which this side may be the cause.
_DOUBTFUL = frozenset({Ending.CRASHED, Ending.NOT_STARTED, Ending.ENVIRONMENT})


class Fitness:
    """Tests of a worker, repeated with back-off while they fail; safe to share between threads.

    Attributes:
        reason: Reason for which the worker takes no jobs; None if it takes them.
        look_at: Time before which it is not tested again, by `time.monotonic`.
        store_id: Identity of the store that belongs to the database; None if not known yet.
        memory_bytes: Memory of a trainer, that of its accelerator if it has one; None: not known.
    """

    def __init__(
        self,
        database: Database,
        settings: WorkerSettings,
        *,
        stopping: threading.Event,
        trainers: Trainers,
    ) -> None:
        self._database = database
        self._settings = settings
        self._blobs = Blobs(settings.store_address)
        self._stopping = stopping
        self._trainers = trainers
        self._lock = threading.Lock()
        # On a CPU the first job is the test, as what an idle worker does not need is not loaded.
        self._tested = settings.device == "cpu"
        self.reason = None if self._tested else _UNTESTED
        self._failures = 0
        self.look_at = 0.0
        self.store_id: str | None = None
        self.memory_bytes = memory_limit_bytes(settings)

    def check(self) -> bool:
        """Return whether the worker is fit to take a job; what a failed job made doubtful is tested first."""
        with self._lock:
            if time.monotonic() < self.look_at:
                return False
            try:
                # The look at the store costs next to nothing.
                reason = self._fault_of_store() or (
                    None if self._tested else self._fault_of_trainer()
                )
            except DatabaseError:
                self.look_at = time.monotonic() + _FIRST_WAIT_S
                return self._tested  # without it there is nothing to claim either
            if self._stopping.is_set():
                return False
            if reason is not None:
                self._put_out(reason)
                return False
            self._tested = True
            if self.reason is not None:
                log.info("this worker takes jobs")
                self.reason = None
            return True

    def judge(self, failed: AttemptEnd | None) -> None:
        """Record the end of an attempt: its failure, or None after success.

        After some failures the worker is tested before it takes another job, and waits longer
        each time that its environment fails.
        """
        with self._lock:
            if failed is None:
                self._failures = 0
            elif failed.ending in _DOUBTFUL and failed.code != QUOTA_STORAGE:
                self._tested = False
                if failed.ending is not Ending.CRASHED:
                    self._put_out(f"{failed.detail}.")

    def _put_out(self, reason: str) -> None:
        self._tested = False
        self.look_at = time.monotonic() + min(
            _FIRST_WAIT_S * 2.0 ** min(self._failures, 30), _LONGEST_WAIT_S
        )
        self._failures += 1
        if reason != self.reason:
            log.error("this worker takes no jobs: %s", reason)
            self.reason = reason

    def _fault_of_store(self) -> str | None:
        if self.store_id is None:
            self.store_id = known_identity(self._database)
        if self.store_id is None:
            return None  # the API has not started yet; there are no jobs
        try:
            self._blobs.check_identity(self.store_id)
        except (WrongStoreError, BlobError) as error:
            return str(error)
        return None

    def _fault_of_trainer(self) -> str | None:
        """Run the self-test in a trainer."""
        fields = common_fields(self._settings) | {"store_id": self.store_id}
        trainer = self._trainers.start(
            SelfTestTask(
                job_id="selftest", attempt=0, request_id=None, request={}, checkpoints=[], **fields
            )
        )
        last: Message | None = None
        give_up_at = time.monotonic() + _LIMIT_S
        try:
            while not trainer.at_end:
                for message in trainer.read(_READ_S):
                    last = message
                if self._stopping.is_set() or time.monotonic() > give_up_at:
                    trainer.kill()
            status = trainer.wait(_READ_S)
        finally:
            trainer.close()
        match last:
            case Passed(device_bytes=device_bytes):
                self.memory_bytes = device_bytes or self.memory_bytes
                return None
            case Unfit(detail=detail):
                return detail
            case Failed(code=code, detail=detail):
                return f"The self-test failed with {code}: {detail or 'see the log'}."
            case _ if trainer.failure is not None:
                return f"No training process can be started: {trainer.failure}."
            case _:
                return f"The self-test's process ended with status {status}."
