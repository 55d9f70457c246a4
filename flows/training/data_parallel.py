"""Data-parallel steps: several processes compute the gradient of one batch, each that of a share.

The process of rank 0 trains: it holds the rows, the optimiser and the state. The others hold nothing but
the flow: with each step they get the weights and their share of the batch, and give the
gradient back. So a training resumes from its state alone, and no two processes can drift apart.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from flows.flow import Flow
from flows.training.options import FitOptions
from flows.training.steps import Steps, choose_steps

# Multiplications of a step from which on sharing it is worth the exchange of weights and gradients: on
# processors as measured (`python -m bench data-parallel`), on accelerators by arithmetic.
_LEAST = {"cpu": 2**24, "cuda": 2**31}

# A share has at least this number of rows: batch norms and bounded losses take its statistics.
_FEWEST_ROWS = 32


def is_worthwhile(flow: Flow, *, batch_size: int, processes: int) -> bool:
    """Return whether several processes compute the gradients of such batches faster than one.

    Args:
        flow: Flow to train.
        batch_size: Rows of a batch.
        processes: Number of processes.
    """
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
        self._announce(rows)
        own, *others = rows.tensor_split(self._size)
        dist.broadcast(steps.weights(), src=0)
        for rank, share in enumerate(others, start=1):
            dist.send(share, dst=rank)
        return _sum_gradients(steps, own, of=len(rows), device=self._device)

    def end(self) -> None:
        """Let the other processes end."""
        self._announce(torch.empty(0, 0))

    def _announce(self, rows: Tensor) -> None:
        shape = torch.tensor(rows.shape, dtype=torch.int64, device=self._device)
        dist.broadcast(shape, src=0)


def serve_gradients(flow: Flow, options: FitOptions, *, batch_size: int) -> None:
    """Compute gradients for rank 0 of the default group of `torch.distributed`, until it ends them.

    Args:
        flow: Flow of the training, on the device of this process.
        options: Options of the training.
        batch_size: Maximum number of rows of a training step.

    Raises:
        RuntimeError: Rank 0 is gone.
    """
    flow.train()
    steps = choose_steps(flow, options, batch_size=batch_size)
    rank, size = dist.get_rank(), dist.get_world_size()
    shape = torch.empty(2, dtype=torch.int64, device=flow.device)
    weights = torch.empty_like(steps.weights())
    while True:
        dist.broadcast(shape, src=0)
        rows, columns = shape.tolist()
        if rows == 0:
            return
        dist.broadcast(weights, src=0)
        steps.set_weights(weights)
        count = rows // size + (rank < rows % size)  # as `tensor_split` shares them
        share = torch.empty(count, columns, dtype=flow.dtype, device=flow.device)
        dist.recv(share, src=0)
        _sum_gradients(steps, share, of=rows, device=flow.device)


def _sum_gradients(steps: Steps, share: Tensor, *, of: int, device: torch.device) -> Tensor:
    """Compute the gradient of a share of `of` rows, and add those of all processes at rank 0."""
    total = torch.as_tensor(steps.compute(share), dtype=torch.float64, device=device)
    gradient = steps.gradient() * (len(share) / of)
    dist.reduce(gradient, dst=0)
    dist.reduce(total, dst=0)
    steps.set_gradient(gradient)
    return total
