"""What PyTorch computes: layers that the compiled loops do not know, GPUs, densities of single columns."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from flows.bijections.base import Bijection
from flows.compiled.compiled_flow import Doubles, Rows
from flows.conditionals import conditional_densities
from flows.cost import fitting_rows
from flows.engine.serving.packing import Scores
from flows.flow import Flow
from flows.mixed.density import MixedDensity
from flows.specs.preprocessing import Space

_CONDITIONALS_ROWS = 256


class PlainFlow:
    """Float32 copy of a bijection without gradients, with the interface of `PackedFlow`."""

    def __init__(self, transform: Bijection, *, device: torch.device, chunk_rows: int) -> None:
        self._transform = copy.deepcopy(transform).to(device, torch.float32)
        self._device, self._chunk_rows = device, chunk_rows
        tensors = [*self._transform.parameters(), *self._transform.buffers()]
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)

    @torch.inference_mode()
    def score(
        self, rows: Rows, affine: Doubles | None = None, *, noise: Doubles | None = None
    ) -> Scores:
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


class CompiledConditionals:
    """Copy of a flow that gives the densities and means of `flows.conditional_densities`."""

    def __init__(self, flow: Flow) -> None:
        self._flow = copy.deepcopy(flow).cpu().eval()
        tensors = [*self._flow.parameters(), *self._flow.buffers()]
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)
        self._chunk_rows = fitting_rows(_CONDITIONALS_ROWS, flow.row_bytes)

    def compute(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Return log p(x_i | x_<i) and E(x_i | x_<i) of each column of each row."""
        width = self._flow.dim if space == "data" else self._flow.model_dim
        scores, means = np.empty((len(x), self._flow.dim)), np.empty((len(x), self._flow.dim))
        with torch.inference_mode():
            for start in range(0, len(x), self._chunk_rows):
                part = slice(start, start + self._chunk_rows)
                rows, context = torch.from_numpy(np.array(x[part], np.float64)).tensor_split(
                    [width], dim=1
                )
                given = context if self._flow.context_dim else None
                found = conditional_densities(self._flow, rows, given, space=space)
                scores[part], means[part] = found.log_probs.numpy(), found.means.numpy()
        return scores, means
