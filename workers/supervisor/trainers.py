"""Trainer processes as their supervisor sees them: forked from a server, read from, ended."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from pydantic import ValidationError

from models_store.jobs.retries import AttemptEnd, Ending
from workers.protocol import MESSAGE, Message, Task
from workers.trainer.main import run

log = logging.getLogger(__name__)

_IDLE_S = 300.0
_LOST = 255  # exit status of a process whose fork server has died
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


class Trainers:
    """Process that has imported what any job needs, and forks a trainer for each; safe to share between threads.

    It is started with the first trainer, replaced when it has died, and ended when none ran for five minutes.
    """

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["workers.trainer.preloaded"])
        self._lock = threading.Lock()
        self._running = 0
        self._used_at = 0.0
        self._pid: int | None = None

    def start(self, task: Task) -> "Trainer":
        """Return a trainer that begins with a task as soon as the server has loaded its libraries."""
        return Trainer(task, self)

    def fork(self, task: Task) -> tuple[ForkServerProcess, Connection]:
        """Return a new process, and the pipe for its messages.

        Raises:
            OSError: The system has no room for another process.
            EOFError: So says the server, which has died of it.
        """
        reader, writer = self._context.Pipe(duplex=False)
        arguments = task.model_dump_json(), writer
        with writer, self._lock:
            process = self._context.Process(target=run, args=arguments, daemon=True)
            process.start()
            self._running += 1
            self._pid = _parent_of(process.pid)
        return process, reader

    def ended(self) -> None:
        """Count a process that has ended."""
        with self._lock:
            self._running -= 1
            self._used_at = time.monotonic()

    def end_if_idle(self, after_s: float = _IDLE_S) -> None:
        """End the server if no trainer ran for a while; the next one starts another."""
        if not self._lock.acquire(blocking=False):
            return  # a trainer is being started, for which a server may load for a while
        try:
            is_idle = self._running == 0 and time.monotonic() - self._used_at >= after_s
            if self._pid is not None and is_idle:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGTERM)
                self._pid = None
        finally:
            self._lock.release()


def _parent_of(pid: int | None) -> int | None:
    """Return the parent of a process; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1])


class Trainer:
    """Process that does a task, and dies with this one.

    It is started in a thread, as the fork server may have to load its libraries first: `read` waits for it, too.
    One that is killed meanwhile counts as ended, and ends as soon as it is there.

    Args:
        trainers: Server that forks it.

    Attributes:
        failure: Why it could not be started; None: it was, or not yet.
        at_end: True once no message can come any more.
    """

    def __init__(self, task: Task, trainers: Trainers) -> None:
        self._trainers = trainers
        self._lock = threading.Lock()
        self._signal: signal.Signals | None = None
        self._process: ForkServerProcess | None = None
        self._reader: Connection | None = None
        self._is_left = False
        self.failure: Exception | None = None
        self.at_end = False
        self._starting = threading.Thread(target=self._start, args=(task,), daemon=True)
        self._starting.start()

    def read(self, timeout_s: float) -> list[Message]:
        """Return the messages that arrive within `timeout_s`; set `at_end` at the end of the stream."""
        if self._starting.is_alive():
            self._starting.join(timeout_s)
            self.at_end = self._signal is signal.SIGKILL
            return []
        reader, messages = self._reader, list[Message]()
        if reader is None or self.at_end:
            self.at_end = True
            return []
        try:
            while reader.poll(0 if messages else timeout_s):
                messages += _parse(reader.recv_bytes())
        except (EOFError, OSError):
            self.at_end = True
        return messages

    def terminate(self) -> None:
        """Ask for a checkpoint and an end (SIGTERM)."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the process now (SIGKILL)."""
        self._send(signal.SIGKILL)

    def wait(self, timeout_s: float) -> int:
        """Return the exit status, negative for a signal; kill the process after `timeout_s`."""
        if self._starting.is_alive():
            return -signal.SIGKILL
        if self._process is None:
            return 1
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
        status = self._process.exitcode
        # The fork server was killed, and all trainers with it.
        return -signal.SIGKILL if status in {None, _LOST} else int(status or 0)

    def close(self) -> None:
        """Kill the process if it still runs, and release its resources."""
        self.kill()
        with self._lock:
            self._is_left = True
            process, self._process = self._process, None
        if process is not None:
            self._release(process)

    def _release(self, process: ForkServerProcess) -> None:
        process.join()
        process.close()
        self._trainers.ended()
        if self._reader is not None:
            self._reader.close()

    def _start(self, task: Task) -> None:
        try:
            process, reader = self._trainers.fork(task)
        except (OSError, EOFError) as error:
            self.failure = error
            log.warning("no trainer can be started: %s", error)
            return
        with self._lock:
            self._reader = reader
            if self._signal is not None:
                _signal(process, self._signal)
            if not self._is_left:
                self._process = process
                return
        self._release(process)

    def _send(self, number: signal.Signals) -> None:
        with self._lock:
            self._signal = number
            if self._process is not None:
                _signal(self._process, number)


def _signal(process: ForkServerProcess, number: signal.Signals) -> None:
    if process.exitcode is None:
        process.kill() if number is signal.SIGKILL else process.terminate()


def _parse(text: bytes) -> list[Message]:
    try:
        return [MESSAGE.validate_json(text)]
    except ValidationError:
        log.exception("a message of the trainer could not be read")
        return []


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
