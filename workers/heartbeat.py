"""Signs that a worker's loops turn: a file for this host's health checks, a row for everybody."""

import logging
import math
import os
import socket
import threading
import time
from pathlib import Path

from models_store.errors import DatabaseError, StorageFullError
from models_store.jobs.live_workers import LIVE_S, Workers
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

STALE_S = 45.0

_TELL_S = LIVE_S / 6


class Heartbeat:
    """One worker's file, as young as its last sign of life.

    It holds the process id, and on a line of its own why the worker takes no jobs, if so.

    Args:
        path: where; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writable = True

    def beat(self, *, unfit: str | None = None) -> None:
        """Give a sign of life.

        Args:
            unfit: why the worker takes no jobs; None: it does.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = [str(os.getpid()), *([] if unfit is None else [unfit])]
            self._path.write_text("\n".join(lines), encoding="utf-8")
        except OSError as error:
            if self._writable:
                log.warning("no heartbeat can be written: %s", error)
            self._writable = False
        else:
            self._writable = True

    def age_s(self) -> float | None:
        """Seconds since the last sign of life; None if there was none or its process is gone."""
        try:
            written = self._path.stat().st_mtime
            os.kill(int(self._lines()[0]), 0)
        except (OSError, ValueError, IndexError):
            return None
        return max(0.0, time.time() - written)

    def unfit(self) -> str | None:
        """Why the worker takes no jobs; None: it does, or there is none."""
        try:
            return " ".join(self._lines()[1:]) or None
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Say that the worker has ended."""
        self._path.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        return self._path.read_text(encoding="utf-8").splitlines()


class LifeSigns:
    """A worker's signs of life, for this host and for the others.

    Args:
        settings: name the worker.
        workers: those of all hosts.
        unfit: why the worker takes no jobs yet; None: it does.
    """

    def __init__(self, settings: WorkerSettings, workers: Workers, *, unfit: str | None) -> None:
        self._name = worker_label(settings)
        self._file = heartbeat_of(settings)
        self._workers = workers
        self._unfit = unfit
        self._lock = threading.Lock()
        self._told_at = -math.inf

    def beat(self) -> None:
        """Give a sign of life."""
        with self._lock:
            self._file.beat(unfit=self._unfit)
            if time.monotonic() - self._told_at >= _TELL_S:
                self._tell_others()

    def tell(self, unfit: str | None) -> None:
        """Say why the worker takes no jobs from now on; None: it does."""
        with self._lock:
            self._unfit = unfit
            self._file.beat(unfit=unfit)
            self._tell_others()

    def remove(self) -> None:
        """Say that the worker has ended."""
        with self._lock:
            self._file.remove()
            try:
                self._workers.remove(self._name)
            except DatabaseError as error:
                log.info("the database does not know that this worker ends: %s", error)

    def _tell_others(self) -> None:
        try:
            self._workers.beat(self._name, unfit=self._unfit)
        except (DatabaseError, StorageFullError) as error:
            log.info("the database does not know that this worker lives: %s", error)
        else:
            self._told_at = time.monotonic()


def heartbeat_of(settings: WorkerSettings) -> Heartbeat:
    """The heartbeat of the worker with these settings on this host."""
    return Heartbeat(settings.data_dir / "workers" / f"{worker_label(settings)}.heartbeat")


def worker_label(settings: WorkerSettings) -> str:
    """The worker's name, the host's unless it was given one."""
    return settings.worker_name or socket.gethostname()
