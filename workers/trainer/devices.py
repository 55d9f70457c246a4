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
