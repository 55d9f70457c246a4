"""Turn of a running job: what happens once it is over and a job of another project waits."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from workers.protocol import EpochDone, Interrupted, Message, Uninterruptible
from workers.supervisor.writes import Writes

log = logging.getLogger(__name__)

# Seconds between two looks for a job to give way to, after a job's turn.
_GIVE_WAY_S = 5.0


class Place:
    """Place of a worker, in which one job runs, and others beside it while it cannot be interrupted.

    They have the memory that the trainer of the first one leaves to them, and share the processor with it.
    Each of them has a place in this one, which is shared in the same way.

    Args:
        run: Function that runs the next job beside the first one, and returns whether there was one.
            None: the place is never shared.
        trainers: Process ids of the trainers of this place and of that in which it is, by the project of
            their job, in the order in which these began.

    Attributes:
        trainers: Process ids of the trainers of this place and of that in which it is.
    """

    def __init__(
        self, run: Callable[[], bool] | None, trainers: dict[str, int] | None = None
    ) -> None:
        self._run = run
        self.trainers = {} if trainers is None else trainers
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def can_be_shared(self) -> bool:
        """True if another job may run beside the first one."""
        return self._run is not None

    @property
    def is_shared(self) -> bool:
        """True while another job runs beside the first one."""
        return self._thread is not None and self._thread.is_alive()

    def share(self) -> None:
        """Run jobs beside the first one, until `end_sharing` or `close`.

        Raises:
            RuntimeError: No thread can be started.
        """
        self._closed.clear()
        thread = threading.Thread(target=self._work, name="shared-place", daemon=True)
        thread.start()
        self._thread = thread

    def end_sharing(self) -> None:
        """Begin no further job beside the first one, which can be interrupted again."""
        self._closed.set()

    def close(self) -> None:
        """Wait for the job that runs beside the first one, which has ended."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while self._run is not None and not self._closed.is_set():
            if not self._run():
                self._closed.wait(_GIVE_WAY_S)


class Turn:
    """Turn of a running job.

    Args:
        ends_at: Time at which it is over.
        place: Place of the job.
        should_give_way: Function that returns whether a job of another project should have its place, given
            whether that one is to run beside it.
    """

    def __init__(
        self, ends_at: float, *, place: Place, should_give_way: Callable[[bool], bool]
    ) -> None:
        self._ends_at = ends_at
        self._place = place
        self._should_give_way = should_give_way
        self._resumable = False
        # What precedes the first checkpoint, as the start of a mixture of Gaussians does, may take long.
        self._uninterruptible = True

    def received(self, message: Message) -> None:
        """Take note of where the trainer is."""
        match message:
            case EpochDone() | Interrupted():
                if message.checkpoint is not None:
                    self._resumable, self._uninterruptible = True, False
                    self._place.end_sharing()
                if isinstance(message, EpochDone) and message.computed:
                    self._resumable, self._uninterruptible = False, True
            case Uninterruptible():
                self._resumable, self._uninterruptible = False, True
            case _:
                pass

    def is_to_end(self, now: float, writes: Writes) -> bool:
        """Return whether the trainer is to make room for a job of another project that waits.

        Only one that can continue where it is: beside one that cannot be interrupted, the other job begins.
        One that can be interrupted again leaves its place to the job beside it once a third one waits, which
        that job then gives way to.

        Args:
            now: Present time.
            writes: Writes of the attempt.
        """
        shares = self._uninterruptible and self._place.can_be_shared
        if now < self._ends_at or writes.waiting or not (self._resumable or shares):
            return False
        if shares and self._place.is_shared:
            return False
        self._ends_at = now + _GIVE_WAY_S
        try:
            gives_way = writes.now(lambda: self._should_give_way(shares))
            if gives_way and shares:
                log.info("jobs of other projects run beside this one, which cannot be interrupted")
                self._place.share()
        except Exception:
            # It takes steps of others' jobs, whose faults are not this job's, and may start a thread.
            log.exception("could not look for a job to give way to")
            return False
        return bool(gives_way) and not shares


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has for itself; 0 if that is not told."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    told = status.partition("RssAnon:")[2].split()
    return 1024 * int(told[0]) if told else 0
