"""A child process that reads untrusted files: its limits, its task and its outcome.

The task goes in as one JSON object, the outcome comes out as another. The child has its own
memory and time limits, none of the parent's secrets, and dies with it.
"""

import errno
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from tabular.errors import SandboxCrashError, SandboxKilledError, SandboxLimitError, TableError
from tabular.sandbox.child_command import child_command
from tabular.sandbox.child_environment import child_environment
from tabular.sandbox.parent_death import die_with

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # gives back what it does not need; others hoard
    "MALLOC_ARENA_MAX": "1",  # what one thread frees, another can use: a fifth of the page faults
}
# What a reader that a file leads astray does to itself. Past its own bounds a process is refused memory,
# or gets SIGXCPU; all others come from outside: from an operator, from the kernel where all memory is used
# up, or from a disk that lost a part of a mapped file (SIGBUS).
_OF_ITS_OWN = {
    signal.SIGABRT,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_STDERR_SHOWN = 4000
_THREADS = 4
_STACK_BYTES = 256 * 1024
# What libraries of C, C++, Rust and Python write when memory, or the stack of a thread, is refused.
_NO_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "can't start new thread",
    "cannot map zero-fill pages",
    "failed to map segment",
    "memory allocation",
    "memoryerror",
    "out of memory",
    "resource temporarily unavailable",
)
_NO_WORKER = (
    "Unknown error: Failed to launch worker thread"  # of Arrow, in place of the memory of its stack
)


def run_child(module: str, task: Mapping[str, object], *, timeout_s: float) -> dict[str, Any]:
    """Run ``python -m module`` on a task and return its outcome.

    Args:
        module: Module that ends with `do_task`.
        task: Values that JSON can hold.
        timeout_s: Seconds after which the process is killed.

    Raises:
        SandboxLimitError: the process needed more time or memory than is allowed.
        SandboxCrashError: a signal of its own making ended it.
        SandboxKilledError: somebody else ended it.
        TableError, OSError: the module itself raised it.
        RuntimeError: the process failed in another way.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            child_command(module),
            input=json.dumps({"parent": os.getpid(), **task}).encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=child_environment(**_ENVIRONMENT),
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(timeout_s) from None
    if done.returncode == 0:
        return _result_of(json.loads(done.stdout))
    said = done.stderr.decode(errors="replace")
    if lacks_memory(said):
        raise too_much_memory()
    shown = said[-_STDERR_SHOWN:]
    _raise_for_signal(-done.returncode, shown)
    raise RuntimeError(f"The parser ended with status {done.returncode}: {shown}")


def do_task(
    do: Callable[[dict[str, Any]], Mapping[str, object]],
    *,
    prepare: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Read the task, put limits on this process, do the task and hand over the outcome.

    Args:
        do: Function from the task to the outcome, which must be JSON.
        prepare: Function that is called before, without limits, and reads nothing of a caller.
    """
    task = read_task()
    try:
        _prove_threads()
        if prepare is not None:
            prepare(task)
        confine(
            parent=task["parent"], memory_bytes=task["memory_bytes"], timeout_s=task["timeout_s"]
        )
        outcome = do(task)
    except MemoryError:
        outcome = {"os_error": errno.ENOMEM}
    except TableError as error:
        refused = str(error.__context__).startswith(_NO_WORKER)
        outcome = {"os_error": errno.ENOMEM} if refused else _error_of(error)
    except OSError as error:
        outcome = {"os_error": error.errno}
    write_outcome(outcome)


def read_task() -> dict[str, Any]:
    """Return the task, in the child."""
    task: dict[str, Any] = json.load(sys.stdin)
    return task


def write_outcome(outcome: Mapping[str, object]) -> None:
    """Hand the outcome to the parent."""
    json.dump(outcome, sys.stdout)


def confine(*, parent: int, memory_bytes: int, timeout_s: float) -> None:
    """Put limits on the process that calls this, and tie its life to its parent's.

    Args:
        parent: Process id of the parent.
        memory_bytes: Most private memory, as far as the system can limit it.
        timeout_s: Most seconds of processor time.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C needs no traceback of this process
    die_with(parent)
    # Not the address space: allocators and thread stacks reserve far more than they use.
    _limit(resource.RLIMIT_DATA, memory_bytes)
    # Past the first limit comes SIGXCPU; at the second SIGKILL, which would speak of others.
    _limit(resource.RLIMIT_CPU, math.ceil(timeout_s), slack=1)
    _limit(resource.RLIMIT_CORE, 0)


def _prove_threads() -> None:
    """Start as many threads at once as readers do, which blame the file where the system starts none, or hang.

    Raises:
        BlockingIOError: The system does not start them.
    """
    end, started = threading.Event(), list[threading.Thread]()
    usual = threading.stack_size(_STACK_BYTES)  # which stays reserved
    try:
        for _ in range(_THREADS):
            thread = threading.Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise BlockingIOError(errno.EAGAIN, str(error)) from None
    finally:
        end.set()
        for thread in started:
            thread.join()
        threading.stack_size(usual)


def lacks_memory(text: str) -> bool:
    """Return whether what a process or an exception said tells of memory that it did not get."""
    lower = text.lower()
    return any(words in lower for words in _NO_MEMORY)


def too_much_memory() -> SandboxLimitError:
    """Return the error for a file whose reading takes more memory than is allowed."""
    return SandboxLimitError(
        "Reading the file takes more memory than is allowed. Write Parquet with smaller pages and"
        " without dictionaries, or upload fewer columns."
    )


def _error_of(error: TableError) -> dict[str, object]:
    return {
        "error": {
            "slug": error.slug,
            "detail": error.detail,
            "column": error.column,
            "row": error.row,
            "errors": error.errors,
        }
    }


def _result_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return the outcome, or raise the error that the task ended with."""
    if "error" in outcome:
        raise TableError(**outcome["error"])
    if outcome.get("os_error") == errno.ENOMEM:
        raise too_much_memory()
    if "os_error" in outcome:
        raise OSError(outcome["os_error"], os.strerror(outcome["os_error"] or 0))
    return outcome


def _limit(kind: int, value: int, *, slack: int = 0) -> None:
    _, hard = resource.getrlimit(kind)
    highest = value + slack if hard == resource.RLIM_INFINITY else min(value + slack, hard)
    resource.setrlimit(kind, (min(value, highest), highest))


def _raise_for_signal(number: int, said: str) -> None:
    if number <= 0 or number == signal.SIGINT:  # Ctrl-C ends the service, too
        return
    if number == signal.SIGXCPU:
        raise SandboxLimitError("Reading the file took longer than is allowed.")
    if number in _OF_ITS_OWN:
        log.warning("the process of a file crashed, by signal %d: %s", number, said)
        raise SandboxCrashError
    log.warning("the process of a file was ended from outside, by signal %d", number)
    raise SandboxKilledError


def _too_slow(timeout_s: float) -> SandboxLimitError:
    return SandboxLimitError(f"Reading the file took longer than the {timeout_s:g} s allowed.")
