"""Work of a trainer: what it sets up, the function of each kind of task, and what an error says of the job."""

import errno
import logging
import mmap
import resource
from collections.abc import Callable

import numpy as np
import torch

from models_store.errors import BlobError, DiskKeptError, StorageFullError, WrongStoreError
from models_store.files.blobs import Blobs
from models_store.jobs.retries import QUOTA_STORAGE
from workers.errors import TrainingError, UnfitError
from workers.protocol import (
    EnsembleTask,
    Failed,
    ImputationTask,
    SamplingTask,
    ScoringTask,
    SelfTestTask,
    Send,
    Task,
    TrainingTask,
    Unfit,
    VariationalTask,
)
from workers.trainer import bulk, devices, ensembles, training, variational

log = logging.getLogger(__name__)

_NO_THREAD = "can't start new thread"
_STACK_BYTES = 9 * 2**20  # as is usual on Linux, and the rest of a thread
_OF_SYSTEM = (StorageFullError, BlobError, OSError)
_DEVICE_FAULTS = ("CUDA error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS", "NCCL error")
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "out of memory",
    "could not allocate",
)


def prepare(task: Task) -> None:
    """Check and set up what any job needs.

    Raises:
        UnfitError: This worker lacks some of it.
    """
    # Forks share the state of generators; Python seeds its own itself.
    np.random.seed()  # noqa: NPY002
    torch.default_generator.seed()
    devices.find_device(task.device)
    _check_store(task)
    if task.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = task.memory_bytes if hard == resource.RLIM_INFINITY else min(task.memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
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
            Blobs(task.store).check_identity(task.store_id)
    except WrongStoreError as error:
        raise UnfitError("wrong_store", str(error)) from error
    except BlobError as error:
        raise UnfitError("storage_unavailable", str(error)) from error


def do(task: Task, send: Send, interrupted: Callable[[], bool]) -> None:
    """Do a task, and send what it comes to."""
    match task:
        case TrainingTask():
            training.train(task, send, interrupted=interrupted)
        case EnsembleTask():
            ensembles.assemble(task, send, interrupted=interrupted)
        case VariationalTask():
            variational.infer(task, send, interrupted=interrupted)
        case ScoringTask() | SamplingTask() | ImputationTask():
            bulk.produce(task, send, interrupted=interrupted)
        case SelfTestTask():
            devices.prove(task, send)


def outcome_of(error: Exception, task: Task) -> Failed | Unfit:
    """Return the message for an error: the job cannot succeed, or not on this worker."""
    match error:
        case UnfitError():
            return Unfit(code=error.code, detail=str(error))
        case TrainingError():
            return _believed(error, task)
        case _ if _is_out_of_memory(error) or (str(error) == _NO_THREAD and not _has_stack()):
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


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` tells of an allocation that failed, in any of the spellings in use."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)


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
