"""Fork server: a process that has imported what trainers need, and forks one for each job.

It reads no task, opens no connection, starts no thread and touches no accelerator, so a trainer that it
forks begins as one that was started on its own. The worker has to be the
parent of a trainer, to wait for it and to take it along when it dies. Therefore a helper forks the
trainer and ends, and the kernel hands the orphan to the worker, which is a subreaper.
"""

import ctypes
import errno
import gc
import os
import signal
import socket
import sys
from pathlib import Path

from models_store.process.logs import configure_logging

READY = b"ready"
ARROW_THREADS = "JE_ARROW_MALLOC_CONF"
"""Variable that keeps the memory allocator of Arrow from starting a thread while it is imported."""

_PR_SET_NAME = 15
_FORKS = "fork-server"
_TRAINER = "trainer"
_ANSWER_BYTES = 32


def load_libraries() -> None:
    """Import what any job needs.

    Raises:
        ImportError: A library is missing or broken.
        OSError: A library cannot be loaded.
    """
    # Nothing of it is garbage, which to find out takes a fifth of the time.
    gc.disable()
    try:
        import torch  # noqa: PLC0415

        from workers.trainer import (  # noqa: F401, PLC0415
            bulk,
            devices,
            ensembles,
            training,
            variational,
        )

        # The first optimiser of a process imports PyTorch's compiler, which takes a second.
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    finally:
        gc.enable()


def serve(descriptor: int, log_level: str) -> int:
    """Fork a trainer for each request, until the worker is gone; return in each trainer.

    Args:
        descriptor: Socket to the worker. A request is a message with three descriptors: standard
            input and error of the trainer, and its pipe for messages. The answer is its process id, or
            the negative number of the error.
        log_level: Lowest level that is logged while the libraries are loaded.

    Returns:
        The descriptor of the trainer's pipe for messages.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging(log_level, "trainer")
    _name_process(_FORKS)
    channel = socket.socket(fileno=descriptor)
    refusal = _preload()
    try:
        channel.send(READY if refusal is None else refusal.encode())
        while refusal is None:
            message, descriptors, _, _ = socket.recv_fds(channel, _ANSWER_BYTES, 3)
            if not message:
                break
            answer = _fork()
            if answer is None:
                channel.close()
                return _become_trainer(*descriptors)
            for one in descriptors:
                os.close(one)
            channel.send(answer)
    except OSError:  # the worker is gone
        pass
    os._exit(0)


def _preload() -> str | None:
    """Load all that trainers use; return why no trainer may be forked from what came of it."""
    try:
        load_libraries()
        _load_loops()
    except Exception as error:  # noqa: BLE001 - a trainer of its own meets it again, and says so
        return f"a library cannot be loaded: {error!r}"
    os.environ.pop(ARROW_THREADS, None)
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if len(threads) != 1:
        return f"its libraries have started threads: {', '.join(sorted(threads))}"
    if _has_touched_cuda():
        return "its libraries have initialised CUDA"
    # Pages that no collection writes to stay shared with the trainers.
    gc.freeze()
    return None


def _load_loops() -> None:
    """Load the compiled loops; a trainer that needs those that cannot be loaded logs that itself."""
    from flows.compiled import packing  # noqa: PLC0415
    from flows.compiled_training import step  # noqa: PLC0415
    from tabular.readers import plain_numbers  # noqa: PLC0415

    for load in (step.load_kernels, packing.load_kernels, plain_numbers.load_loops):
        if load() is None:
            load.cache_clear()


def _has_touched_cuda() -> bool:
    import torch  # noqa: PLC0415

    touched = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's own
    return bool(touched or torch.cuda._is_in_bad_fork())


def _fork() -> bytes | None:
    """Fork a trainer that is the worker's child; return the answer to the request, None in the trainer."""
    answer, told = os.pipe()
    try:
        helper = os.fork()
    except OSError as error:
        os.close(answer)
        os.close(told)
        return _refusal(error)
    if helper == 0:
        try:
            trainer = os.fork()
            text = b"%d" % trainer
        except OSError as error:
            trainer, text = -1, _refusal(error)
        if trainer != 0:
            os.write(told, text)
            os._exit(0)
        os.close(answer)
        os.close(told)
        return None
    os.close(told)
    try:
        os.waitpid(helper, 0)
        return os.read(answer, _ANSWER_BYTES) or b"-%d" % errno.EAGAIN
    finally:
        os.close(answer)


def _refusal(error: OSError) -> bytes:
    return b"-%d" % (error.errno or errno.EAGAIN)


def _become_trainer(standard_input: int, standard_error: int, pipe: int) -> int:
    """Take what a process of its own would have been given; return the pipe for messages."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    os.setsid()
    os.dup2(standard_input, 0)
    os.dup2(standard_error, 2)
    os.close(standard_input)
    os.close(standard_error)
    _name_process(_TRAINER)
    # Processes that start afresh do not share random numbers; Python seeds its own generator itself.
    np.random.seed()  # noqa: NPY002
    torch.default_generator.seed()
    return pipe


def _name_process(name: str) -> None:
    """Name this process in `ps -o comm` and `top`: its command line is that of the fork server."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
