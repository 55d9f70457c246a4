"""Trainer process: one task in, messages out on a pipe of its own.

It has no database, and no network but that of a store in a bucket. It dies with its supervisor, it
cannot take more memory than it was given, and SIGTERM makes it write a checkpoint at the next batch
and end.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from models_store.process.logs import configure_logging, log_context
from tabular.parent_death import die_with
from workers.protocol import TASK, Interrupted, Message, Send, Started, Task, Unfit

_OOM_SCORE = "600"


class Interruption:
    """Handler of SIGTERM."""

    def __init__(self) -> None:
        self._arrived = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __call__(self) -> bool:
        """Return whether the trainer should stop."""
        return self._arrived

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._arrived = True


def run(text: str, connection: Connection) -> None:
    """Run a task in a process of its own; every expected outcome is a message and exit status 0."""
    os.setsid()  # Ctrl-C at a terminal is the worker's to handle
    Path("/proc/self/comm").write_text("trainer", encoding="ascii")
    die_with(os.getppid())
    # The fork server outlives a worker that is killed, as long as it has trainers.
    threading.Thread(target=_end_with_worker, daemon=True).start()
    interrupted = Interruption()
    os.dup2(2, 1)
    task = TASK.validate_json(text)
    configure_logging(task.log_level, "trainer")
    os.nice(task.nice)
    # When the machine runs out of memory, this process goes first: the job resumes, others live.
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")

    def send(message: Message) -> None:
        try:
            connection.send_bytes(message.model_dump_json().encode())
        except BrokenPipeError:  # without a supervisor there is nothing left to do
            os._exit(1)

    with log_context(request_id=task.request_id, job_id=task.job_id, traceparent=task.traceparent):
        last = _work(task, send, interrupted)
    if last is not None:
        send(last)


def _end_with_worker() -> None:
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)


def _work(task: Task, send: Send, interrupted: Interruption) -> Message | None:
    """Do the task; return the last message, where the result did not send it."""
    nothing = Interrupted(metrics={}, progress={}, checkpoint=None)
    if interrupted():
        return nothing
    # Late: the task is read and the parent is watched before seconds go into these imports.
    try:
        from workers.trainer import work  # noqa: PLC0415
    except (ImportError, OSError) as error:
        return Unfit(code="imports", detail=f"A library cannot be loaded: {error}")
    try:
        work.prepare(task)
        if interrupted():
            return nothing
        send(Started())
        work.do(task, send, interrupted)
    except Exception as error:  # noqa: BLE001 - each of them ends in a message
        return work.outcome_of(error, task)
    return None
