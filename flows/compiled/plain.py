"""Flows that PyTorch computes, for layers that the compiled loops do not know and for GPUs."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from flows.bijections.base import Bijection
from flows.engine.describe import Doubles
from flows.engine.serving.packing import Rows, Scores
from flows.mixed.density import MixedDensity


class PlainFlow:
    """Float32 copy of a bijection without gradients, with the interface of `PackedFlow`.

    Attributes:
        size_bytes: Memory of its weights, in bytes.
    """

    size_bytes: int

    def __init__(self, transform: Bijection, *, device: torch.device, chunk_rows: int) -> None:
        """Copy a bijection.

        Args:
            transform: Bijection in evaluation mode.
            device: Device that computes.
            chunk_rows: Number of rows that are computed at a time.
        """
        self._transform = copy.deepcopy(transform).to(device, torch.float32)
        self._device, self._chunk_rows = device, chunk_rows
        tensors = [*self._transform.parameters(), *self._transform.buffers()]
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)

    @torch.inference_mode()
    def score(
        self, rows: Rows, affine: Doubles | None = None, *, noise: Doubles | None = None
    ) -> Scores:
        """Return the terms of the log density of each row, as `PackedFlow.score` does."""
        found = Scores(*(np.zeros(len(rows)) for _ in range(3)))
        for part, x, context in self._chunks(rows, affine):
            if noise is not None:
                u, log_det = self._transform.inverse(x, context)
                noise[part] = u.cpu().numpy()
            elif isinstance(self._transform, MixedDensity):
                discrete, log_det = self._transform.log_parts(x, context).unbind(1)
                found.discrete[part] = discrete.cpu().numpy()
            else:
                log_det = self._transform.log_density(x, context)
            found.log_det[part] = log_det.cpu().numpy()
        return found

    @torch.inference_mode()
    def sample(self, noise: Rows, affine: Doubles | None = None) -> tuple[Doubles, Doubles]:
        """Return data from noise, and log|det dx/du|, as `PackedFlow.sample` does."""
        rows, log_det = np.empty((len(noise), self._transform.dim)), np.empty(len(noise))
        for part, u, context in self._chunks(noise, None):
            x, terms = self._transform.forward(u, context)
            rows[part], log_det[part] = x.cpu().numpy(), terms.cpu().numpy()
        return (rows if affine is None else affine[0] + affine[1] * rows), log_det

    def _chunks(
        self, rows: Rows, affine: Doubles | None
    ) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield features, standardised in float64, and context of some rows at a time."""
        dim = self._transform.dim
        for start in range(0, len(rows), self._chunk_rows):
            part = slice(start, start + self._chunk_rows)
            exact = np.array(rows[part], np.float64)
            if affine is not None:
                exact[:, :dim] = (exact[:, :dim] - affine[0]) / affine[1]
            x, context = torch.from_numpy(exact).float().to(self._device).tensor_split([dim], dim=1)
            yield part, x, context if self._transform.context_dim else None
