"""Child processes: started, watched, restarted and ended together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_HEALTHY_S = 30.0
_LOG_BYTES = 16 * 2**20
_TAIL_BYTES = 16_000


class Child:
    """A child process that is restarted whenever it ends.

    The kernel kills it when the thread that called `start` ends, which must be the main one.

    Args:
        name: Name for people.
        command: Absolute path of the program, and its arguments.
        log_path: File for its output; None for this process's standard error.
    """

    def __init__(self, name: str, command: Sequence[str], *, log_path: Path | None) -> None:
        self.name = name
        self.failures = 0
        self._command = list(command)
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None

    @property
    def running(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def restart_at(self) -> float | None:
        """Time of the next start, by the monotonic clock; None while it runs."""
        return self._restart_at

    def start(self) -> str | None:
        """Start the process now; return None, or why it cannot be, and plan the next try."""
        self._restart_at = None
        self._started_at = time.monotonic()
        try:
            self._spawn()
        except OSError as error:
            return f"cannot be started: {error.strerror or error}; {self._plan_restart()}"
        return None

    def _spawn(self) -> None:
        tied = [
            sys.executable,
            "-P",
            "-m",
            "densityd.service.launch",
            str(os.getpid()),
            *self._command,
        ]
        # A session of its own: Ctrl-C at the terminal reaches this process alone, which ends the
        # others in order.
        if self._log_path is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                tied, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
            )
            return
        with self._log_path.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                tied,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

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
        self._restart_at = now + pause
        return f"it starts again in {pause:g} s"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, deadline: float, *, pause: Callable[[float], None]) -> bool:
        """Wait for the end until `deadline`; return True if it has ended."""
        while self.running and time.monotonic() < deadline:
            pause(0.05)
        return not self.running

    def read_last_message(self) -> str:
        """Return the message in the last line of the log, or the line; empty without a log."""
        if self._log_path is None or not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as file:
            file.seek(max(0, self._log_path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return _extract_message(lines[-1]) if lines else ""

    def trim_log(self) -> None:
        """Move a log that is too long to a second file, replacing the one before.

        On a disk without room for it, it begins anew, and on one that cannot be written, it stays.
        """
        path = self._log_path
        if path is None:
            return
        aside = path.with_suffix(".log.1")
        with suppress(OSError):  # as where there is none
            if path.stat().st_size < _LOG_BYTES:
                return
            # The process appends, so it continues at the beginning of the truncated file.
            try:
                shutil.copyfile(path, aside)
            except OSError:
                aside.unlink(missing_ok=True)  # a part of it would keep the room that is left
            os.truncate(path, 0)


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
        for child in group:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while any(child.running for child in group) and time.monotonic() < deadline:
            if hurry():
                break
            pause(0.1)
        for child in group:
            if child.running:
                child.send(signal.SIGKILL)
        for child in group:
            child.wait(time.monotonic() + 1.0, pause=pause)
