"""Self-test of a worker: a small step of training, and a file in the store."""

import torch

from flows import build, spec_from_dict
from flows.training.optimiser import GradientDescent
from models_store.files.stores import open_blobs
from workers.errors import UnfitError
from workers.protocol import Passed, SelfTestTask, Send
from workers.trainer.devices import find_device, memory_of

_PROBE_BYTES = 2**20
_FLOW = {"family": "realnvp", "layers": 2, "hidden": [8]}


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
    optimiser = GradientDescent(flow.parameters(), "adam", learning_rate=1e-3)
    rows = torch.linspace(-1, 1, 32, device=device).reshape(16, 2)
    loss = -flow.log_prob_of_table(rows, space="model").mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    optimiser.step()
    after = flow.log_prob_of_table(rows, space="model").mean()
    if not bool(after.isfinite()) or float(after) == -float(loss):
        raise UnfitError("device_failed", f"The device {task.device} computes something else.")
    open_blobs(task.store).ping(_PROBE_BYTES)
    send(Passed(device_bytes=memory_of(device)))
