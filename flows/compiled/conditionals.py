"""Densities of single columns given those before them, in chunks of rows, by PyTorch."""

import copy

import numpy as np
import torch

from flows.compiled.model_space import Doubles, Rows
from flows.conditionals import conditional_densities
from flows.cost import fitting_rows
from flows.flow import Flow, Space

_CHUNK_ROWS = 256


class CompiledConditionals:
    """Copy of a flow that gives the densities and means of `flows.conditional_densities`.

    Attributes:
        size_bytes: Memory of its weights, in bytes.
    """

    size_bytes: int

    def __init__(self, flow: Flow) -> None:
        """Copy a flow that has such densities to the CPU, in evaluation mode."""
        self._flow = copy.deepcopy(flow).cpu().eval()
        tensors = [*self._flow.parameters(), *self._flow.buffers()]
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)
        self._chunk_rows = fitting_rows(_CHUNK_ROWS, flow.row_bytes)

    def compute(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Return log p(x_i | x_<i) and E(x_i | x_<i) of each column of each row.

        Args:
            x: Rows, float32 or float64: features, then context.
            space: `model` takes preprocessed rows.
        """
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
