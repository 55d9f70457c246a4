"""Fork server as the worker sees it: started beside the work, asked for trainers, replaced when it dies."""

import ctypes
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time

from workers.settings import WorkerSettings
from workers.supervisor.spawning import ForkedTrainer, environment_of, is_child, spawn
from workers.trainer.preloading import ARROW_THREADS, READY

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_MESSAGE_BYTES = 4096
# It forks in some hundredths of a second, on a busy machine in a second or two. Longer than this part
# of a lease nobody waits for it, as the lease is not renewed meanwhile.
_SHARE_OF_LEASE = 0.5
# Until another one is tried after one that was of no use.
_AGAIN_S = 60.0


class ForkServer:
    """Process that forks trainers, so that none of them has to import its libraries.

    Nothing depends on it: while there is none, or it is of no use, its methods say so, and the
    caller starts a process of its own. Safe to share between threads.

    Args:
        settings: Settings of the trainers.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._ready = False
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process id of the server; None if there is none."""
        process = self._process
        return None if process is None else process.pid

    def is_loading(self, timeout_s: float) -> bool:
        """Return whether a server is still loading after a time; start one if there is none.

        Args:
            timeout_s: Time to wait for it, in seconds.
        """
        with self._lock:
            return not self._look(timeout_s) and self._process is not None

    def fork(self, pipe: int, environment: dict[str, str]) -> ForkedTrainer | None:
        """Return a new trainer; None if it has to be started in another way.

        Args:
            pipe: Write end of the pipe for its messages.
            environment: Environment that it must have.
        """
        with self._lock:
            if not self._look(0) or environment != self._environment:
                return None
            read_end, stdin = os.pipe()
            try:
                pid = self._ask(read_end, pipe)
                if pid is not None:
                    return ForkedTrainer(pid, os.dup(stdin))
            finally:
                os.close(read_end)
                os.close(stdin)
        return None

    def close(self) -> None:
        """End the server, and start none again."""
        with self._lock:
            self._start_at = float("inf")
            self._end()
            _adopt_orphans(adopt=False)

    def _look(self, timeout_s: float) -> bool:
        """Return whether the server can be asked; start one where there is none."""
        if self._process is None and time.monotonic() >= self._start_at:
            self._start()
        if self._channel is None or self._process is None:
            return False
        if self._ready:
            if self._process.poll() is None:
                return True
            self._replace("it has ended")
            return False
        if not select.select([self._channel], [], [], timeout_s)[0]:
            return False
        told = self._receive()
        if told == READY:
            self._ready = True
            log.info("trainers are forked from process %s", self._process.pid)
            return True
        self._refuse(told.decode(errors="replace") or "its process ended while it was loading")
        return False

    def _start(self) -> None:
        if not _adopt_orphans(adopt=True):
            self._refuse("this system has no subreapers")
            return
        settings = self._settings
        self._environment = environment_of(
            threads=settings.trainer_threads, store=settings.store_address
        )
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = spawn(
                "fork-server",
                str(theirs.fileno()),
                settings.log_level,
                stdin=subprocess.DEVNULL,
                passed=theirs.fileno(),
                environment=self._environment | {ARROW_THREADS: "background_thread:false"},
            )
        except OSError as error:
            self._refuse(f"its process cannot be started: {error}")
        finally:
            theirs.close()

    def _ask(self, stdin: int, pipe: int) -> int | None:
        """Return the process id of a new trainer; None if the server cannot make one."""
        channel = self._channel
        if channel is None:  # pragma: no cover - it was looked at
            return None
        try:
            socket.send_fds(channel, [b"fork"], [stdin, 2, pipe])
            wait_s = self._settings.lease_s * _SHARE_OF_LEASE
            answers = select.select([channel], [], [], wait_s)[0]
        except OSError:
            answers = []
        told = self._receive() if answers else b""
        if not told:
            # A trainer that it may have made reads the end of its input, and ends.
            self._replace("it does not answer")
            return None
        number = int(told)
        if number < 0:  # a process of its own takes less memory to start
            log.warning("a trainer could not be forked: %s", os.strerror(-number))
            return None
        if not is_child(number):
            self._refuse("the kernel gives its trainers to another process")
            return None
        return number

    def _receive(self) -> bytes:
        """Return a message of the server; nothing if it has ended."""
        try:
            return b"" if self._channel is None else self._channel.recv(_MESSAGE_BYTES)
        except OSError:
            return b""

    def _replace(self, reason: str) -> None:
        log.warning("another process forks trainers from now on, the last one failed: %s", reason)
        self._end()
        self._start()

    def _refuse(self, reason: str) -> None:
        log.warning(
            "each trainer imports its libraries itself: no process can fork them, %s", reason
        )
        self._end()
        self._start_at = time.monotonic() + _AGAIN_S

    def _end(self) -> None:
        self._ready = False
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _adopt_orphans(*, adopt: bool) -> bool:
    """Make this process the parent of descendants whose own has ended, or no more; return whether it could."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) == 0)
