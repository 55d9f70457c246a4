"""Heartbeat of a worker: a file for this host's health checks, and a row of the database."""

import logging
import math
import os
import socket
import threading
import time
from pathlib import Path

from models_store.errors import DatabaseError, StorageFullError
from models_store.jobs.live_workers import LIVE_S, Workers
from workers.devices import has_accelerator
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

STALE_S = 45.0

_TELL_S = LIVE_S / 6


class Heartbeat:
    """Heartbeat file of one worker, written again at each beat.

    It holds the process id, and on a second line the reason if the worker takes no jobs.

    Args:
        path: Path of the file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writable = True

    def beat(self, *, unfit: str | None = None) -> None:
        """Write a heartbeat.

        Args:
            unfit: Reason for which the worker takes no jobs; None if it takes them.
        """
        try:
            lines = [str(os.getpid()), *([] if unfit is None else [unfit])]
            self._write("\n".join(lines))
        except OSError as error:
            if self._writable:
                log.warning("no heartbeat can be written: %s", error)
            self._writable = False
        else:
            self._writable = True

    def age_s(self) -> float | None:
        """Return the seconds since the last beat; None if there was none or its process is gone."""
        try:
            written = self._path.stat().st_mtime
            os.kill(int(self._lines()[0]), 0)
        except (OSError, ValueError, IndexError):
            return None
        return max(0.0, time.time() - written)

    def unfit(self) -> str | None:
        """Return the reason for which the worker takes no jobs; None if it takes them or is gone."""
        try:
            return " ".join(self._lines()[1:]) or None
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Remove the heartbeat of a worker that ends."""
        self._path.unlink(missing_ok=True)

    def _write(self, text: str) -> None:
        try:
            self._path.write_text(text, encoding="utf-8")
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(text, encoding="utf-8")

    def _lines(self) -> list[str]:
        return self._path.read_text(encoding="utf-8").splitlines()


class LifeSigns:
    """Heartbeats of a worker, in its file and in the database.

    Args:
        settings: Settings that name the worker.
        workers: Rows of the workers of all hosts.
        unfit: Reason for which the worker takes no jobs yet; None if it takes them.
    """

    def __init__(self, settings: WorkerSettings, workers: Workers, *, unfit: str | None) -> None:
        self._name = worker_label(settings)
        self._file = heartbeat_of(settings)
        self._workers = workers
        self._unfit = unfit
        self._accelerator = has_accelerator(settings)
        self._memory_bytes: int | None = None
        self._lock = threading.Lock()
        self._told_at = -math.inf

    def beat(self) -> None:
        """Write a heartbeat."""
        with self._lock:
            self._file.beat(unfit=self._unfit)
            if time.monotonic() - self._told_at >= _TELL_S:
                self._tell_others()

    def tell(self, unfit: str | None, memory_bytes: int | None) -> None:
        """Write what changed.

        Args:
            unfit: Reason for which the worker takes no jobs from now on; None if it takes them.
            memory_bytes: Memory of each of its trainers; None: not known.
        """
        with self._lock:
            self._unfit, self._memory_bytes = unfit, memory_bytes
            self._file.beat(unfit=unfit)
            self._tell_others()

    def remove(self) -> None:
        """Remove the heartbeat of a worker that ends."""
        with self._lock:
            self._file.remove()
            try:
                self._workers.remove(self._name)
            except DatabaseError as error:
                log.info("the database does not know that this worker ends: %s", error)

    def _tell_others(self) -> None:
        try:
            self._workers.beat(
                self._name,
                unfit=self._unfit,
                accelerator=self._accelerator,
                memory_bytes=self._memory_bytes,
            )
        except (DatabaseError, StorageFullError) as error:
            log.info("the database does not know that this worker lives: %s", error)
        else:
            self._told_at = time.monotonic()


def heartbeat_of(settings: WorkerSettings) -> Heartbeat:
    """Return the heartbeat of the worker with these settings on this host."""
    return Heartbeat(settings.data_dir / "workers" / f"{worker_label(settings)}.heartbeat")


def worker_label(settings: WorkerSettings) -> str:
    """Return the worker's name, the host's unless it was given one."""
    return settings.worker_name or socket.gethostname()
