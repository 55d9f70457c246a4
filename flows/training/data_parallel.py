"""Data-parallel steps: several processes compute the gradient of one batch, each that of a share.

The process of rank 0 trains: it holds the rows, the optimiser and the state. The others hold nothing but
the flow: with each step they get the weights and their share of the batch, and give the
gradient back. So a training resumes from its state alone, and no two processes can drift apart.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from flows.bijections.batch_norm import BatchNorm
from flows.flow import Flow
from flows.training.fit_mixture import has_mixture
from flows.training.options import FitOptions
from flows.training.steps import CompiledSteps, Steps, choose_steps

# Products of weights and rows of a batch, and rows of a share, from which on sharing is worth the exchange of
# weights and gradients: on processors as measured (`python -m bench data-parallel`), on accelerators by arithmetic.
_LEAST = {"cpu": 2**27, "cuda": 2**31}
_FEWEST_ROWS = 500


def is_worthwhile(flow: Flow, *, batch_size: int, processes: int) -> bool:
    """Return whether several processes can compute the gradients of such batches, faster than one.

    They cannot for mixtures of Gaussians, nor for batch norms in a mixed flow: such a norm takes the
    moments of the data set for a feature that few rows have, which rank 0 alone knows.

    Args:
        flow: Flow to train.
        batch_size: Rows of the largest batch.
        processes: Number of processes.
    """
    norms = any(isinstance(part, BatchNorm) for part in flow.transform.modules())
    if has_mixture(flow) or (norms and flow.transform.continuous() is not flow.transform):
        return False
    weights = sum(parameter.numel() for parameter in flow.parameters())
    least = _LEAST.get(flow.device.type, _LEAST["cuda"])
    return batch_size >= processes * _FEWEST_ROWS and weights * batch_size >= least


class DataParallel:
    """Process group whose other ranks run `serve_gradients`, as rank 0 sees it.

    Batch norms take the statistics, and bounded losses the quartiles, of the share of each process.

    Args:
        device: Device of the flow, which the default group of `torch.distributed` can send.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size = dist.get_world_size()

    def compute(self, steps: Steps, rows: Tensor) -> Tensor:
        """Compute the gradient of a batch; return the sum of the rows' log densities.

        Args:
            steps: Steps whose gradient it becomes.
            rows: Rows of the model, shape [rows, columns].

        Raises:
            RuntimeError: Another process of the group is gone.
        """
        self._announce(*rows.shape, _layout(steps))
        own, *others = rows.tensor_split(self._size)
        dist.broadcast(steps.weights(), src=0)
        for rank, share in enumerate(others, start=1):
            dist.send(share, dst=rank)
        return _sum_gradients(steps, own, of=len(rows), device=self._device)

    def end(self) -> None:
        """Let the other processes end."""
        self._announce(0, 0, 0)

    def _announce(self, *numbers: int) -> None:
        dist.broadcast(torch.tensor(numbers, dtype=torch.int64, device=self._device), src=0)


def serve_gradients(flow: Flow, options: FitOptions, *, batch_size: int) -> None:
    """Compute gradients for rank 0 of the default group of `torch.distributed`, until it ends them.

    Args:
        flow: Flow of the training, on the device of this process.
        options: Options of the training.
        batch_size: Rows of the largest batch.

    Raises:
        RuntimeError: Rank 0 is gone, or takes steps of another kind.
    """
    flow.train()
    steps = choose_steps(flow, options, batch_size=batch_size)
    rank, size = dist.get_rank(), dist.get_world_size()
    announced = torch.empty(3, dtype=torch.int64, device=flow.device)
    weights = torch.empty_like(steps.weights())
    while True:
        dist.broadcast(announced, src=0)
        rows, columns, layout = announced.tolist()
        if rows == 0:
            return
        if layout != _layout(steps):
            raise RuntimeError("two processes have the weights of a training in another order")
        dist.broadcast(weights, src=0)
        steps.set_weights(weights)
        count = rows // size + (rank < rows % size)  # as `tensor_split` shares them
        share = torch.empty(count, columns, dtype=flow.dtype, device=flow.device)
        dist.recv(share, src=0)
        _sum_gradients(steps, share, of=rows, device=flow.device)


def _layout(steps: Steps) -> int:
    """Return what tells the order of weights in a vector: the kind of steps, and their number."""
    return 2 * steps.weights().numel() + isinstance(steps, CompiledSteps)


def _sum_gradients(steps: Steps, share: Tensor, *, of: int, device: torch.device) -> Tensor:
    """Compute the gradient of a share of `of` rows, and add those of all processes at rank 0."""
    total = torch.as_tensor(steps.compute(share), dtype=torch.float64, device=device)
    gradient = steps.gradient() * (len(share) / of)
    dist.reduce(gradient, dst=0)
    dist.reduce(total, dst=0)
    steps.set_gradient(gradient)
    return total
