"""One pool of processes for work that may crash, hang or swell: reading files of strangers, plots, checks.

The processes are forked from a server that has the libraries loaded and an environment without secrets; they give
way to those that answer requests, and end with the process that asks.
"""

import math
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from threading import Lock, Timer
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from tabular.errors import SandboxCrashError, SandboxKilledError, SandboxLimitError
from tabular.parent_death import die_with

MEMORY_BYTES = 1 << 30
"""Most private memory of a process, if the caller states no other."""

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # gives back what it does not need; others hoard
    "MALLOC_ARENA_MAX": "1",
}
# Of the environment, what programs, the loader, the locale and the libraries of numbers read: no secret of ours.
_INHERITED = frozenset(
    {"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "XDG_CACHE_HOME"}
)
_INHERITED_PREFIXES = (
    *("CUBLAS_", "CUDA_", "CUDNN_", "KMP_", "MKL_", "NCCL_", "NUMBA_", "NVIDIA_", "OMP_"),
    *("OPENBLAS_", "PYTHON", "PYTORCH_", "TORCH"),
)
# pyarrow imports pandas where it is installed, which takes longer than reading a small file.
_PRELOADED = ["numpy", "pandas", "pyarrow.csv", "pyarrow.parquet", "tabular.ingest.storing"]
_TASKS = 50  # of a process that stays
_IDLE_S = 60.0
_NO_MEMORY = 77  # exit status
# What a program that a file leads astray does to itself; other signals come from outside.
_OF_ITS_OWN = {
    *(signal.SIGABRT, signal.SIGFPE, signal.SIGILL),
    *(signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP),
}
# What libraries of C, C++, Rust and Python say when memory, or the stack of a thread, is refused.
_REFUSALS = (
    *("allocate memory", "bad_alloc", "can't start new thread", "cannot map zero-fill pages"),
    *("failed to map segment", "memory allocation", "memoryerror", "out of memory"),
    *("resource temporarily unavailable", "failed to launch worker thread", "malloc of size"),
)

_Result = TypeVar("_Result")


def run(
    function: Callable[..., _Result],
    *args: Any,  # noqa: ANN401 - those of the function
    timeout_s: float = 300.0,
    memory_bytes: int = MEMORY_BYTES,
    alone: bool = False,
) -> _Result:
    """Call a function in a process of the pool, and return its result. It blocks: call it in a thread.

    Args:
        *args: Its arguments, which pickle can copy, as it must be able to copy the result.
        timeout_s: Most seconds that it may take, by the clock.
        memory_bytes: Most private memory that the process may have meanwhile.
        alone: True for a process that does nothing else before or after, as for files that are kept.

    Raises:
        SandboxLimitError: It needed more time or memory.
        SandboxCrashError: A signal of its own making ended the process.
        SandboxKilledError: Somebody else ended it.
        Exception: What the function raises.
    """
    with _pools.using(alone=alone) as pool:
        future = pool.schedule(_limited, (function, args, memory_bytes), timeout=timeout_s)
        try:
            result: _Result = future.result()  # type: ignore[assignment] # pebble does not know its type
        except FutureTimeoutError:
            text = f"Reading the file took longer than the {timeout_s:g} s allowed."
            raise SandboxLimitError("dataset-too-large", text) from None
        except ProcessExpired as error:
            raise _ended(error.exitcode or 0) from None
    return result


def lacks_memory(text: str) -> bool:
    """Return whether what an exception says tells of memory that was refused."""
    lower = text.lower()
    return any(words in lower for words in _REFUSALS)


def close() -> None:
    """End all processes of the pool; the next call starts others."""
    _pools.close()


class _Pools:
    """Pools of processes that stay for some tasks, and that do one each; they end when they are idle."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pools: dict[bool, ProcessPool] = {}
        self._users = 0
        self._idle: Timer | None = None

    @contextmanager
    def using(self, *, alone: bool) -> Iterator[ProcessPool]:
        with self._lock:
            self._users += 1
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            if alone not in self._pools or not self._pools[alone].active:
                self._pools[alone] = _started(1 if alone else _TASKS)
            pool = self._pools[alone]
        try:
            yield pool
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._idle = Timer(_IDLE_S, self.close, [False])
                    self._idle.daemon = True
                    self._idle.start()

    def close(self, in_use: bool = True) -> None:  # noqa: FBT001, FBT002 - of a timer, too
        with self._lock:
            if self._users and not in_use:
                return
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.stop()  # type: ignore[no-untyped-call] # of pebble
            pool.join()


_pools = _Pools()


def _started(tasks: int) -> ProcessPool:
    context = multiprocessing.get_context("forkserver")
    with _without_secrets():
        context.set_forkserver_preload(_PRELOADED)
        # The server starts with its first process, and keeps the environment of now.
        context.Process(target=os.getpid).start()
    return ProcessPool(max(2, os.cpu_count() or 1), tasks, _prepare, (), context)


def _environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return inherited | _ENVIRONMENT


@contextmanager
def _without_secrets() -> Iterator[None]:
    own, kept = dict(os.environ), _environment()
    _replace_environment(kept)
    try:
        yield
    finally:
        _replace_environment(own)


def _replace_environment(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _prepare() -> None:
    """Prepare a process before its first task."""
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - of the process alone

    os.nice(5)
    die_with(os.getppid())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    _replace_environment(_environment())  # of a server that had to start again


def _limited(function: Callable[..., Any], args: tuple[object, ...], memory_bytes: int) -> object:
    """Call a function with a limit of memory; a process that reached it ends, since it keeps what it got."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # Not the address space: allocators and thread stacks reserve far more than they use.
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (math.ceil(most), hard))
    try:
        return function(*args)
    except MemoryError:
        os._exit(_NO_MEMORY)
    except (OSError, RuntimeError) as error:
        if lacks_memory(str(error)):
            os._exit(_NO_MEMORY)
        raise


def _ended(status: int) -> Exception:
    """Return the error for a process that ended within its task."""
    if status == _NO_MEMORY:
        return SandboxLimitError(
            "dataset-too-large",
            "Reading the file takes more memory than is allowed. Write Parquet with smaller pages and"
            " without dictionaries, or upload fewer columns.",
        )
    if -status in _OF_ITS_OWN:
        return SandboxCrashError(
            "dataset-parse",
            "The parser crashed on the file: it is damaged, or takes more memory than is allowed.",
        )
    if status < 0:
        return SandboxKilledError(
            "overloaded",
            "The process that read the file was ended from outside, as the system does when its"
            " memory runs out. Send the request again.",
        )
    return RuntimeError(f"The process ended with status {status}.")
