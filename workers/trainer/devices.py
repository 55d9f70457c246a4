"""Device that a trainer computes on, and the self-test of a worker: a step on it, and a file in the store."""

import torch

from flows import build, count_parameters, spec_from_dict
from flows.training.optimiser import make_optimiser
from flows.training.steps import one_core_suffices
from models_store.files.blobs import Blobs
from models_store.requests.training import AcceptedTraining
from workers.errors import UnfitError
from workers.protocol import Passed, SelfTestTask, Send

_PROBE_BYTES = 2**20
_FLOW = {"family": "realnvp", "layers": 2, "hidden": [8]}


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


def training_device(name: str, request: AcceptedTraining) -> torch.device:
    """Return the device of a training; `auto` is CUDA where there is one and the steps are large."""
    context_dim = len(request.context_columns)
    parameters = count_parameters(request.flow, len(request.columns), context_dim)
    if name == "auto" and one_core_suffices(parameters, request.optimisation.batch_size):
        return torch.device("cpu")
    return find_device(name)


def memory_of(device: torch.device) -> int | None:
    """Return the memory of an accelerator in bytes; None for a CPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def prove(task: SelfTestTask, send: Send) -> None:
    """Make a step of training on the device, and use the store.

    Raises:
        UnfitError: The device does not compute.
        StorageFullError: The store has no space left.
        BlobError: The store cannot be used.
    """
    torch.set_num_threads(task.threads)
    device = find_device(task.device)
    flow = build(spec_from_dict(_FLOW), 2, seed=0).to(device)
    optimiser = make_optimiser(flow.parameters(), "adam", learning_rate=1e-3)
    rows = torch.linspace(-1, 1, 32, device=device).reshape(16, 2)
    loss = -flow.log_prob_of_table(rows, space="model").mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    optimiser.step()
    after = flow.log_prob_of_table(rows, space="model").mean()
    if not bool(after.isfinite()) or after.item() == -loss.item():
        raise UnfitError("device_failed", f"The device {task.device} computes something else.")
    Blobs(task.store).ping(_PROBE_BYTES)
    send(Passed(device_bytes=memory_of(device)))
