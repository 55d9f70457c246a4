"""What the fork server imports before it forks trainers; nothing else imports this module.

The server opens no connection, starts no thread and touches no accelerator, so a trainer begins as a process that
was started on its own.
"""

import gc
import os
from contextlib import suppress
from pathlib import Path

_ARROW = "JE_ARROW_MALLOC_CONF"


def _load() -> None:
    # Read while the libraries are imported: neither may start a thread, which no fork would have.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ[_ARROW] = "background_thread:false"
    # Of a bucket's client, which makes a thread a processor, each with memory that counts in a trainer's limit.
    os.environ["TOKIO_WORKER_THREADS"] = "2"
    import torch  # noqa: PLC0415 - after what they read

    with suppress(ImportError):  # which pyarrow does where it is installed, in each trainer
        import pandas  # noqa: F401, PLC0415

    from flows.engine.serving import packing  # noqa: PLC0415
    from flows.engine.training import step  # noqa: PLC0415
    from workers.trainer import work  # noqa: F401, PLC0415

    # The first optimiser of a process imports PyTorch's compiler, which takes a second.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    for load in (step.load_kernels, packing.load_kernels):
        if load() is None:
            load.cache_clear()  # a trainer that needs them logs why they cannot be loaded
    del os.environ[_ARROW]


Path("/proc/self/comm").write_text("fork-server", encoding="ascii")
gc.disable()  # nothing of it is garbage, which to find out takes a fifth of the time
with suppress(Exception):  # a trainer meets it again, and says so
    _load()
gc.enable()
gc.freeze()  # pages that no collection writes to stay shared with the trainers
