"""Child processes: started, watched, restarted and ended together, and the signals that end a wait for them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from models_store.process.endings import ending_signals

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 30.0
_LOG_BYTES = 16 * 2**20
_TAIL_BYTES = 16_000


class Child:
    """A child process that is restarted whenever it ends.

    The kernel kills it when the thread that called `start` ends, which must be the main one.

    Args:
        command: Absolute path of the program, and its arguments.
        log_path: File for its output; None for this process's standard error.

    Attributes:
        failures: Number of ends in a row, each soon after its start.
        restart_at: Time of the next start, by the monotonic clock; None while it runs.
    """

    def __init__(self, name: str, command: Sequence[str], *, log_path: Path | None) -> None:
        self.name = name
        self.failures = 0
        self.restart_at: float | None = None
        self._command = list(command)
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str | None:
        """Start the process now; return None, or why it cannot be, and plan the next try."""
        self.restart_at = None
        self._started_at = time.monotonic()
        tied = [sys.executable, "-P", "-m", "densityd.service.launch", str(os.getpid())]
        try:
            output = None if self._log_path is None else _open_log(self._log_path)
            # A session of its own: Ctrl-C at the terminal reaches this process alone, which ends the
            # others in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                [*tied, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if output is None else output,
                stderr=output,
                start_new_session=True,
            )
            if output is not None:
                os.close(output)
        except OSError as error:
            return f"cannot be started: {error.strerror or error}; {self._plan_restart()}"
        return None

    def check_end(self) -> str | None:
        """Plan the next start if the process has ended; return how it ended, or None."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._process = None
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{how}; {self._plan_restart()}"

    def _plan_restart(self) -> str:
        now = time.monotonic()
        self.failures = 1 if now - self._started_at > _HEALTHY_S else self.failures + 1
        pause = min(_FIRST_PAUSE_S * 2 ** min(self.failures - 1, 10), _LONGEST_PAUSE_S)
        self.restart_at = now + pause
        return f"it starts again in {pause:g} s"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def read_last_message(self) -> str:
        """Return the message in the last line of the log, or the line; empty without a log."""
        if self._log_path is None or not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as file:
            file.seek(max(0, self._log_path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return _extract_message(lines[-1]) if lines else ""


def _open_log(path: Path) -> int:
    """Open a log to append to; one that is long is put aside first."""
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _extract_message(line: str) -> str:
    try:
        logged = json.loads(line)
    except ValueError:
        return line
    if not isinstance(logged, dict):
        return line
    *_, reason = str(logged.get("exception", "")).splitlines() or [""]
    return ": ".join(part for part in (str(logged.get("message", line)), reason) if part)


def end_all(
    order: Sequence[Sequence[Child]],
    *,
    grace_s: Sequence[float],
    pause: Callable[[float], None],
    hurry: Callable[[], bool],
) -> None:
    """End children group after group: SIGTERM, a grace period, SIGKILL.

    Args:
        order: Groups; the children of a group end at the same time.
        grace_s: Grace period of each group in seconds.
        pause: Sleeps for some seconds.
        hurry: Returns True to end the grace period.
    """
    for group, grace in zip(order, grace_s, strict=True):
        for number, longest_s in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
            for child in group:
                child.send(number)
            deadline = time.monotonic() + longest_s
            while any(child.running for child in group) and time.monotonic() < deadline:
                if number is signal.SIGTERM and hurry():
                    break
                pause(0.1)


class Signals:
    """A context in which some signals ask for the end, and SIGCHLD ends a wait.

    Attributes:
        asked_to_end: Number of signals that asked for the end.
    """

    def __init__(self) -> None:
        self.asked_to_end = 0
        self._ending = ending_signals()
        self._all = {*self._ending, signal.SIGCHLD}

    def __enter__(self) -> Self:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while signal.sigtimedwait(self._all, 0) is not None:
            pass  # it has been heeded
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal or for `timeout_s` seconds, and count the signals."""
        found = signal.sigtimedwait(self._all, max(0.0, timeout_s))
        while found is not None:
            self.asked_to_end += found.si_signo in self._ending
            found = signal.sigtimedwait(self._all, 0)
