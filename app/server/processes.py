"""Several API processes on one port, started and restarted by a parent that only listens."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from types import FrameType

from app.http.upload_room import UploadCounts
from app.metrics import SHARED_METRICS, make_shared_metrics, share_metrics
from app.server.connection_shares import ConnectionShares
from app.server.listener import open_listeners
from app.server.shared_folder import SharedFolder, shared_folder
from app.server.shared_memory import make_shared
from app.settings import ApiSettings
from models_store.process.endings import ending_signals
from tabular.sandbox.parent_death import die_with

_LISTENERS = "DENSITYD_LISTENERS"
_PARENT = "DENSITYD_LISTENER_PARENT"
_NUMBER = "DENSITYD_LISTENER_NUMBER"
_UPLOADS, _CONNECTIONS = "DENSITYD_LISTENER_UPLOADS", "DENSITYD_LISTENER_CONNECTIONS"
_LEAST_LIFE_S = 5.0
_POLL_S = 0.1
_PAUSE_S = 1.0
_END_S = 12.0  # beyond the time that requests have: the audit trail may wait for its disk for ten

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
        shared = {
            _UPLOADS: make_shared(UploadCounts.size(processes)),
            _CONNECTIONS: make_shared(ConnectionShares.size(processes)),
        }
        with ExitStack() as metrics:
            folder = _metrics_folder(metrics)
            # Closed at its end: callers are then refused once the last child listens no more.
            with ExitStack() as listening:
                sockets = open_listeners(self._settings.host, self._settings.port)
                for sock in sockets:
                    listening.enter_context(sock)
                while not self._stopping:
                    self._replace_dead(sockets, shared, folder)
                    time.sleep(_POLL_S)
            self._end()
        return 0

    def _replace_dead(
        self, sockets: list[socket.socket], shared: dict[str, int], folder: SharedFolder | None
    ) -> None:
        for number, (child, born) in list(self._children.items()):
            if child.poll() is not None and time.monotonic() - born > _LEAST_LIFE_S:
                log.error("an API process ended with status %s; starting another", child.returncode)
                del self._children[number]
        try:
            for number in set(range(self._settings.api_processes)) - set(self._children):
                child = _spawn(sockets, shared, folder, number)
                self._children[number] = child, time.monotonic()
        except OSError as error:  # a lack of memory or of process ids: temporary
            log.error("an API process cannot be started now: %s", error)  # noqa: TRY400 - one line
            time.sleep(_PAUSE_S)

    def _end(self) -> None:
        """End all servers, those last and by force that are stopped, or hang."""
        self._tell()
        until = time.monotonic() + self._settings.drain_delay_s + self._settings.drain_s + _END_S
        for child, _ in self._children.values():
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("an API process did not end; it is killed")
                child.kill()
                child.wait()

    def _tell(self) -> None:
        for child, _ in self._children.values():
            child.terminate()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            self._tell()  # once more, which ends the first part of a drain
        self._stopping = True


def _metrics_folder(stack: ExitStack) -> SharedFolder | None:
    """Return the folder of the metrics until the end of a stack; None if there is no room for one."""
    try:
        return stack.enter_context(shared_folder())
    except OSError as error:
        log.warning("each API process has metrics of its own: %s", error)
        return None


def inherit_sockets() -> list[socket.socket] | None:
    """Return the listening sockets of the parent; None if there is no such parent."""
    numbers = os.environ.get(_LISTENERS)
    if numbers is None:
        return None
    die_with(int(os.environ[_PARENT]))
    return [socket.socket(fileno=int(number)) for number in numbers.split(",")]


def inherit_metrics() -> None:
    """Keep the metrics of this process where those of all processes are, if there is a parent of several."""
    number = os.environ.get(_NUMBER)
    if number is not None:
        share_metrics(int(number))


def inherited_counts(processes: int) -> UploadCounts | None:
    """Return the counts of uploads that all processes share; None if there is no parent of several.

    Args:
        processes: Number of processes.
    """
    number = os.environ.get(_NUMBER)
    if number is None:
        return None
    return UploadCounts(int(os.environ[_UPLOADS]), processes=processes, index=int(number))


def inherited_shares() -> ConnectionShares | None:
    """Return the connections of all processes; None if there is no parent of several."""
    number = os.environ.get(_NUMBER)
    if number is None:
        return None
    return ConnectionShares(int(os.environ[_CONNECTIONS]), index=int(number))


def _spawn(
    sockets: list[socket.socket], shared: dict[str, int], folder: SharedFolder | None, number: int
) -> "subprocess.Popen[bytes]":
    numbers = [sock.fileno() for sock in sockets]
    environment = {
        **os.environ,
        _LISTENERS: ",".join(map(str, numbers)),
        _PARENT: str(os.getpid()),
        _NUMBER: str(number),
        **{name: str(memory) for name, memory in shared.items()},
    }
    passed = [*numbers, *shared.values()]
    if folder is not None:
        passed.append(folder.lock)
        try:
            make_shared_metrics(folder.path, number)
        except OSError as error:
            log.warning("an API process has metrics of its own: %s", error)
        else:
            environment[SHARED_METRICS] = str(folder.path)
    return subprocess.Popen([sys.executable, "-P", "-m", "app"], env=environment, pass_fds=passed)
