"""A file that shows that a worker's loops turn, for health checks without a port."""

import logging
import os
import socket
import time
from pathlib import Path

from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

STALE_S = 45.0


class Heartbeat:
    """One worker's file: its process id, as young as its last sign of life.

    Args:
        path: where; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writable = True

    def beat(self) -> None:
        """Give a sign of life."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(os.getpid()), encoding="ascii")
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
            os.kill(int(self._path.read_text(encoding="ascii")), 0)
        except (OSError, ValueError):
            return None
        return max(0.0, time.time() - written)

    def remove(self) -> None:
        """Say that the worker has ended."""
        self._path.unlink(missing_ok=True)


def heartbeat_of(settings: WorkerSettings) -> Heartbeat:
    """The heartbeat of the worker with these settings on this host."""
    return Heartbeat(settings.data_dir / "workers" / f"{worker_label(settings)}.heartbeat")


def worker_label(settings: WorkerSettings) -> str:
    """The worker's name, the host's unless it was given one."""
    return settings.worker_name or socket.gethostname()
