"""Several API processes on one port, started and restarted by a parent that only listens."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from app.http.upload_room import UploadCounts
from app.server.connection_shares import ConnectionShares
from app.server.listener import open_listeners
from app.server.shared_folder import SharedFolder, shared_folder
from app.settings import ApiSettings
from models_store.process.endings import ending_signals
from tables.sandbox.parent_death import die_with

_LISTENERS = "DENSITYD_LISTENERS"
_PARENT = "DENSITYD_LISTENER_PARENT"
_NUMBER = "DENSITYD_LISTENER_NUMBER"
_METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
_UPLOADS, _CONNECTIONS = "uploads", "connections"  # files beside those of the metrics
_LEAST_LIFE_S = 5.0
_POLL_S = 0.1
_PAUSE_S = 1.0

log = logging.getLogger(__name__)


class Processes:
    """A parent of `settings.api_processes` servers on one socket, which replaces those that end.

    A server that ends within seconds of its start is only replaced after a pause. The kernel kills
    the servers when the parent dies.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._children: dict[int, tuple[subprocess.Popen[bytes], float]] = {}  # by number
        self._stopping = False

    def run(self) -> int:
        """Serve until a signal asks for the end, and return the exit status."""
        for number in ending_signals():
            signal.signal(number, self._on_signal)
        processes = self._settings.api_processes
        with shared_folder() as folder:
            UploadCounts.create(folder.path / _UPLOADS, processes=processes)
            ConnectionShares.create(folder.path / _CONNECTIONS, processes=processes)
            # Closed at its end: callers are then refused once the last child listens no more.
            with ExitStack() as listening:
                sockets = open_listeners(self._settings.host, self._settings.port)
                for sock in sockets:
                    listening.enter_context(sock)
                while not self._stopping:
                    self._replace_dead(sockets, folder)
                    time.sleep(_POLL_S)
            for child, _ in self._children.values():
                child.terminate()
            for child, _ in self._children.values():
                child.wait()
        return 0

    def _replace_dead(self, sockets: list[socket.socket], folder: SharedFolder) -> None:
        for number, (child, born) in list(self._children.items()):
            if child.poll() is not None and time.monotonic() - born > _LEAST_LIFE_S:
                mark_process_dead(child.pid, str(folder.path))  # type: ignore[no-untyped-call]  # its gauges
                log.error("an API process ended with status %s; starting another", child.returncode)
                del self._children[number]
        try:
            for number in set(range(self._settings.api_processes)) - set(self._children):
                self._children[number] = _spawn(sockets, folder, number), time.monotonic()
        except OSError as error:  # a lack of memory or of process ids: temporary
            log.error("an API process cannot be started now: %s", error)  # noqa: TRY400 - one line
            time.sleep(_PAUSE_S)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True


def inherit_sockets() -> list[socket.socket] | None:
    """Return the listening sockets of the parent; None if there is no such parent."""
    numbers = os.environ.get(_LISTENERS)
    if numbers is None:
        return None
    die_with(int(os.environ[_PARENT]))
    return [socket.socket(fileno=int(number)) for number in numbers.split(",")]


def inherited_counts(processes: int) -> UploadCounts | None:
    """Return the counts of uploads that all processes share; None if there is no parent of several.

    Args:
        processes: Number of processes.
    """
    number = os.environ.get(_NUMBER)
    if number is None:
        return None
    file = Path(os.environ[_METRICS_DIR], _UPLOADS)
    return UploadCounts(file, processes=processes, index=int(number))


def inherited_shares() -> ConnectionShares | None:
    """Return the connections of all processes; None if there is no parent of several."""
    number = os.environ.get(_NUMBER)
    if number is None:
        return None
    return ConnectionShares(Path(os.environ[_METRICS_DIR], _CONNECTIONS), index=int(number))


def _spawn(
    sockets: list[socket.socket], folder: SharedFolder, number: int
) -> "subprocess.Popen[bytes]":
    numbers = [sock.fileno() for sock in sockets]
    environment = {
        **os.environ,
        _LISTENERS: ",".join(map(str, numbers)),
        _PARENT: str(os.getpid()),
        _NUMBER: str(number),
        _METRICS_DIR: str(folder.path),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "app"], env=environment, pass_fds=[*numbers, folder.lock]
    )
