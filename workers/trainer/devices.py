"""Device that a trainer computes on."""

import torch

from workers.errors import UnfitError


def find_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one.

    Raises:
        UnfitError: There is no such device; another is never taken instead.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnfitError("device_unavailable", f"This worker has no device {name}.")
    return device


def memory_of(device: torch.device) -> int | None:
    """Return the memory of an accelerator in bytes; None for a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)
