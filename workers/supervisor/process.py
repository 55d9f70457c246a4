"""Trainer process as its supervisor sees it: spawned, read from, ended."""

import logging
import os
import select
import signal
import subprocess
from pathlib import Path

from pydantic import ValidationError

from models_store.jobs.retries import AttemptEnd, Ending
from workers.protocol import MESSAGE, Message, Task
from workers.supervisor.fork_server import ForkServer
from workers.supervisor.spawning import ForkedTrainer, environment_of, spawn

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16
_OWN_SIGNALS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_VMSTAT = Path("/proc/vmstat")


class TrainerProcess:
    """Process of `workers.trainer`; never forked from this one, so none of its locks can hang in it.

    The task goes in on its standard input. Its messages come back on a pipe of their own, so
    that whatever it prints cannot be mistaken for one.

    Args:
        task: Task; its `parent_pid` must be this process.
        fork_server: Server that forks it; None, or one that cannot: it is a process started afresh.

    Raises:
        OSError: The system has no room for another process.
    """

    def __init__(self, task: Task, fork_server: ForkServer | None = None) -> None:
        self._pipe, write_end = os.pipe()
        try:
            self._process = _start(task, write_end, fork_server)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._rest = b""
        self.at_end = False
        self._hand_over(task)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def read(self, timeout_s: float) -> list[Message]:
        """Return the messages that arrive within `timeout_s`; set `at_end` at the end of the stream."""
        if self.at_end:
            return []
        if not self._poll.poll(timeout_s * 1000):
            return []
        data = os.read(self._pipe, _CHUNK_BYTES)
        if not data:
            self.at_end = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [message for line in lines if (message := _parse(line)) is not None]

    def terminate(self) -> None:
        """Ask for a checkpoint and an end (SIGTERM)."""
        self._process.terminate()

    def kill(self) -> None:
        """End the process now (SIGKILL)."""
        self._process.kill()

    def wait(self, timeout_s: float) -> int:
        """Return the exit status, negative for a signal; kill the process after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """Kill the process if it still runs, and release its resources."""
        self._process.kill()
        self._process.wait()
        os.close(self._pipe)

    def _hand_over(self, task: Task) -> None:
        stream = self._process.stdin
        if stream is None:  # pragma: no cover - Popen was given a pipe
            return
        try:
            with stream:
                stream.write(task.model_dump_json().encode())
        except BrokenPipeError:
            log.warning("trainer %s ended before it read its task", self.pid)


def _start(
    task: Task, pipe: int, fork_server: ForkServer | None
) -> "ForkedTrainer | subprocess.Popen[bytes]":
    environment = environment_of(threads=task.threads, store=task.store)
    forked = None if fork_server is None else fork_server.fork(pipe, environment)
    return forked or spawn(str(pipe), stdin=subprocess.PIPE, passed=pipe, environment=environment)


def _parse(line: bytes) -> Message | None:
    try:
        return MESSAGE.validate_json(line)
    except ValidationError:
        log.exception("a message of the trainer could not be read")
        return None


def end_of(
    status: int, *, started: bool, stalled_s: float | None, memory_ran_out: bool
) -> AttemptEnd | None:
    """Return the end of a trainer without a result; None if it was asked to end.

    Args:
        status: Exit status, negative for a signal.
        started: True once it has begun with its job; before that nothing is the job's fault.
        stalled_s: Seconds without progress after which it was killed; None if it was not.
        memory_ran_out: True if the kernel killed a process for memory meanwhile.
    """
    if status == -signal.SIGTERM:
        return None
    if stalled_s is not None:
        detail = f"the training process made no progress for {stalled_s:g} s and was killed"
        return _end(Ending.STALLED, detail, started=started)
    if status >= 0:
        detail = f"the training process ended with status {status} and without a result"
        return _end(Ending.CRASHED, detail, started=started)
    if -status in _OWN_SIGNALS:
        detail = f"the training process crashed with {_signal_name(-status)}"
        return _end(Ending.CRASHED, detail, started=started)
    detail = f"the training process was killed by {_signal_name(-status)}"
    if -status == signal.SIGKILL and memory_ran_out:
        detail += " of the kernel, whose memory had run out"
        return AttemptEnd(ending=Ending.OUT_OF_MEMORY, detail=detail)
    return AttemptEnd(ending=Ending.KILLED, detail=f"{detail}, from outside")


def out_of_memory_kills(vmstat: Path = _VMSTAT) -> int:
    """Return the number of processes that the kernel has killed for memory since it started."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = (line.split() for line in lines)
    return next((int(value) for name, value in counts if name == "oom_kill"), 0)


def _end(ending: Ending, detail: str, *, started: bool) -> AttemptEnd:
    if started:
        return AttemptEnd(ending=ending, detail=detail)
    return AttemptEnd(ending=Ending.NOT_STARTED, detail=f"{detail}, before it began")


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
