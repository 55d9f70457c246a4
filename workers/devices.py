"""Devices of a worker: which ones there are, and which of them a job may take."""

import os
import re
from itertools import takewhile
from pathlib import Path

from workers.settings import WorkerSettings

_DEVICE_FILE = re.compile(r"nvidia\d+")
_ALL = "cuda:all"


def count_gpus(folder: Path = Path("/dev")) -> int:
    """Return the number of GPUs that this process may use, without the time to load PyTorch.

    Args:
        folder: Folder of the device files.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        # CUDA shows those before the first that there is not.
        return sum(1 for _ in takewhile(lambda name: name not in {"", "-1"}, names))
    try:
        return sum(bool(_DEVICE_FILE.fullmatch(path.name)) for path in folder.iterdir())
    except OSError:
        return 0


def devices_of(settings: WorkerSettings) -> list[str]:
    """Return the device of each job that the worker may run at the same time."""
    if settings.device == _ALL:
        # Without any, the self-test says so of the first.
        return [f"cuda:{number}" for number in range(max(1, count_gpus()))]
    return [settings.device] * settings.worker_concurrency


def has_accelerator(settings: WorkerSettings) -> bool:
    """Return whether jobs of the worker compute on an accelerator."""
    return settings.device.startswith("cuda") or (settings.device == "auto" and count_gpus() > 0)
