"""Trainer process: one task in, messages out on a pipe of its own.

It has no database, and no network but that of a store in a bucket. It dies with its supervisor, it
cannot take more memory than it was given, and SIGTERM makes it write a checkpoint at the next batch
and end.
"""

import errno
import logging
import mmap
import multiprocessing
import os
import resource
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from models_store.errors import BlobError, DiskKeptError, StorageFullError, WrongStoreError
from models_store.files.blobs import Blobs, check_identity
from models_store.jobs.retries import QUOTA_STORAGE
from models_store.process.logs import configure_logging, log_context
from tabular.parent_death import die_with
from workers.errors import TrainingError, UnfitError
from workers.protocol import (
    TASK,
    EnsembleTask,
    Failed,
    Interrupted,
    Message,
    SamplingTask,
    ScoringTask,
    SelfTestTask,
    Started,
    Task,
    TrainingTask,
    Unfit,
    VariationalTask,
)

log = logging.getLogger(__name__)

_OOM_SCORE = "600"
_NO_THREAD = "can't start new thread"
_STACK_BYTES = 9 * 2**20  # as is usual on Linux, and the rest of a thread
_OF_SYSTEM = (StorageFullError, BlobError, OSError)
_DEVICE_FAULTS = ("CUDA error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS", "NCCL error")


class Channel:
    """Pipe for messages to the supervisor.

    Args:
        connection: Its write end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Message) -> None:
        """Send a message; without a supervisor there is nothing left to do, so the process ends."""
        try:
            self._connection.send_bytes(message.model_dump_json().encode())
        except BrokenPipeError:
            os._exit(1)


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
    """Run a task in a process of its own; every expected outcome is a message and exit status 0.

    Args:
        text: Task as JSON.
        connection: Write end of the pipe for messages.
    """
    os.setsid()  # Ctrl-C at a terminal is the worker's to handle
    Path("/proc/self/comm").write_text("trainer", encoding="ascii")
    die_with(os.getppid())
    # The fork server outlives a worker that is killed, as long as it has trainers.
    threading.Thread(target=_end_with_worker, daemon=True).start()
    interrupted = Interruption()
    os.dup2(2, 1)
    channel, task = Channel(connection), TASK.validate_json(text)
    configure_logging(task.log_level, "trainer")
    _yield_to_others(task.nice)
    with log_context(request_id=task.request_id, job_id=task.job_id, traceparent=task.traceparent):
        last = _work(task, channel, interrupted)
    if last is not None:
        channel.send(last)


def _end_with_worker() -> None:
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os._exit(1)


def load_libraries() -> None:
    """Import what any job needs.

    Raises:
        ImportError: A library is missing or broken.
        OSError: A library cannot be loaded.
    """
    import torch  # noqa: F401, PLC0415

    from workers.trainer import (  # noqa: F401, PLC0415
        bulk,
        devices,
        ensembles,
        training,
        variational,
    )


def _yield_to_others(nice: int) -> None:
    os.nice(nice)
    # When the machine runs out of memory, this process goes first: the job resumes, others live.
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _limit_memory(limit_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


def _work(task: Task, channel: Channel, interrupted: Interruption) -> Message | None:
    """Do the task; return the last message, where the result did not send it."""
    try:
        if not interrupted():
            _prepare(task)
        if interrupted():
            return Interrupted(metrics={}, progress={}, checkpoint=None)
        channel.send(Started())
        _do(task, channel, interrupted)
    except Exception as error:  # noqa: BLE001 - each of them ends in a message
        return outcome_of(error, task)
    return None


def _prepare(task: Task) -> None:
    """Check and set up what any job needs.

    Raises:
        UnfitError: This worker lacks some of it.
    """
    # Late: the task is read and the parent is watched before seconds go into these imports.
    try:
        load_libraries()
    except (ImportError, OSError) as error:
        raise UnfitError("imports", f"A library cannot be loaded: {error}") from error
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from workers.trainer import devices  # noqa: PLC0415

    # Forks share the state of generators; Python seeds its own itself.
    np.random.seed()  # noqa: NPY002
    torch.default_generator.seed()
    devices.find_device(task.device)
    _check_store(task)
    if task.memory_bytes is not None:
        _limit_memory(task.memory_bytes)
    if isinstance(task, TrainingTask | VariationalTask):
        # As `fit` does, but before torch begins the threads that take this over.
        torch.set_flush_denormal(True)


def _check_store(task: Task) -> None:
    """Make sure that the store is the one of the database.

    Raises:
        UnfitError: The store is missing, or belongs to another database.
    """
    try:
        if task.store_id is not None:
            check_identity(Blobs(task.store), task.store_id)
    except WrongStoreError as error:
        raise UnfitError("wrong_store", str(error)) from error
    except BlobError as error:
        raise UnfitError("storage_unavailable", str(error)) from error


def _do(task: Task, channel: Channel, interrupted: Interruption) -> None:
    from workers.trainer import bulk, devices, ensembles, training, variational  # noqa: PLC0415

    match task:
        case TrainingTask():
            training.train(task, channel.send, interrupted=interrupted)
        case EnsembleTask():
            ensembles.assemble(task, channel.send, interrupted=interrupted)
        case VariationalTask():
            variational.infer(task, channel.send, interrupted=interrupted)
        case ScoringTask() | SamplingTask():
            bulk.produce(task, channel.send, interrupted=interrupted)
        case SelfTestTask():
            devices.prove(task, channel.send)


def outcome_of(error: Exception, task: Task) -> Failed | Unfit:
    """Return the message for an error: the job cannot succeed, or not on this worker."""
    match error:
        case UnfitError():
            return Unfit(code=error.code, detail=str(error))
        case TrainingError():
            return _believed(error, task)
        case _ if is_out_of_memory(error) or (str(error) == _NO_THREAD and not _has_stack()):
            return Failed(code="oom", detail=_out_of_memory(task))
        case _ if isinstance(error, _OF_SYSTEM) or str(error) == _NO_THREAD:
            return _of_system(error)
        case RuntimeError() if any(sign in str(error) for sign in _DEVICE_FAULTS):
            log.error("the device failed", exc_info=error)
            return Unfit(code="device_failed", detail=f"The device {task.device} failed.")
        case _:
            log.error("the %s failed", task.kind, exc_info=error)
            return Failed(code="internal", detail=None)


def _of_system(error: Exception) -> Unfit:
    if isinstance(error, DiskKeptError):
        return Unfit(code=QUOTA_STORAGE, detail=str(error))
    if isinstance(error, StorageFullError):
        return Unfit(code="storage_full", detail="The blob store has no space left.")
    if str(error) == _NO_THREAD or getattr(error, "errno", None) == errno.EAGAIN:
        log.error("no process or thread can be started", exc_info=error)
        return Unfit(code="process_limit", detail="No further process or thread can be started.")
    log.error("the blob store failed", exc_info=error)
    return Unfit(code="storage_unavailable", detail="The blob store cannot be used.")


def _believed(error: TrainingError, task: Task) -> Failed | Unfit:
    """Return a failure of the job, unless its store went away meanwhile: then nothing is known of it."""
    try:
        _check_store(task)
    except UnfitError as unfit:
        return Unfit(code=unfit.code, detail=str(unfit))
    return Failed(code=error.code, detail=str(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` tells of an allocation that failed, in any of the spellings in use."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in (
            "DefaultCPUAllocator: can't allocate memory",
            "DefaultCPUAllocator: not enough memory",
            "std::bad_alloc",
            "out of memory",
            "could not allocate",
        )
    )


def _has_stack() -> bool:
    """Return whether there is memory for the stack of a thread, without which none is started either."""
    try:
        mmap.mmap(-1, _STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True


def _out_of_memory(task: Task) -> str:
    if task.memory_bytes is None:
        return "Training needs more memory than there is."
    return f"Training needs more than the {task.memory_bytes // 2**20} MiB a trainer may use."
