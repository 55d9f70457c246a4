"""Processes of trainers: their environment, and the two ways in which one is started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import IO

from models_store.files.store_address import CREDENTIAL_PREFIXES, StoreAddress
from tabular.sandbox.child_environment import child_environment

_POLL_FIRST_S = 0.0005
_POLL_MOST_S = 0.05


def environment_of(*, threads: int, store: StoreAddress) -> dict[str, str]:
    """Return the environment of a trainer.

    Args:
        threads: Number of its threads, which the libraries read when they are imported.
        store: Store, whose credentials are part of it where it is a bucket.
    """
    count = str(threads)
    return child_environment(
        OMP_NUM_THREADS=count,
        MKL_NUM_THREADS=count,
        OPENBLAS_NUM_THREADS=count,
        **_store_variables(store),
    )


def spawn(
    *arguments: str,
    stdin: int,
    passed: int,
    environment: Mapping[str, str],
) -> "subprocess.Popen[bytes]":
    """Start `python -m workers.trainer`.

    Args:
        *arguments: Arguments of the command.
        stdin: Standard input, as `subprocess.Popen` takes it.
        passed: Descriptor that the process inherits.
        environment: Environment of the process.

    Raises:
        OSError: The system has no room for another process.
    """
    # The trainer inherits this thread's mask: SIGTERM waits until it has a handler.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            # -P: a file named like a module in the current folder must not shadow it.
            [sys.executable, "-P", "-m", "workers.trainer", *arguments],
            stdin=stdin,
            pass_fds=(passed,),
            env=environment,
            # Ctrl-C at a terminal is the worker's to handle.
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ForkedTrainer:
    """Child of this process that a fork server made; its methods are those of `subprocess.Popen`.

    Args:
        pid: Process id.
        stdin: Write end of its standard input.
    """

    def __init__(self, pid: int, stdin: int) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = os.fdopen(stdin, "wb")
        self._status: int | None = None

    def terminate(self) -> None:
        """Send SIGTERM, unless the process has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        self._send(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: The process still runs after `timeout` seconds.
        """
        if timeout is None:
            return self._reap(0) or 0
        give_up_at = time.monotonic() + timeout
        pause_s = _POLL_FIRST_S
        while (status := self._reap(os.WNOHANG)) is None:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired(["workers.trainer"], timeout)
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _POLL_MOST_S)
        return status

    def _send(self, number: signal.Signals) -> None:
        # The id belongs to the process until it has been waited for.
        if self._reap(os.WNOHANG) is None:
            os.kill(self.pid, number)

    def _reap(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid == self.pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


def is_child(pid: int) -> bool:
    """Return whether a process is a child of this one, which it has not waited for."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _store_variables(store: StoreAddress) -> dict[str, str]:
    """Return the credentials of a bucket; a trainer whose store is a folder has none.

    The client makes a thread a processor, each with memory that counts in the trainer's limit.
    """
    if not store.is_remote:
        return {}
    found = {
        name: value for name, value in os.environ.items() if name.startswith(CREDENTIAL_PREFIXES)
    }
    return {**found, "TOKIO_WORKER_THREADS": "2"}
