"""The two halves of the features in a coupling layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection
from flows.bijections.linear import network_parameters
from flows.bijections.network_layers import LayerNetwork, MapSpec, NetworkLayer
from flows.specs.spec import ActivationName


@dataclass(frozen=True)
class CouplingShape:
    """Split of the features into a half that is copied and a half that it conditions.

    Attributes:
        copies_even: True if the features with an even index, counted from 0, condition the others.
        context_dim: Number of context values per row, which condition them too.
    """

    dim: int
    copies_even: bool
    context_dim: int = 0

    def halves(self) -> tuple[slice, slice]:
        """Return the slices of the copied and of the transformed features."""
        even, odd = slice(0, None, 2), slice(1, None, 2)
        return (even, odd) if self.copies_even else (odd, even)

    def widths(self) -> tuple[int, int]:
        """Return the numbers of copied and of transformed features."""
        even, odd = (self.dim + 1) // 2, self.dim // 2
        return (even, odd) if self.copies_even else (odd, even)

    def places(self) -> Tensor:
        """Return the position of each feature in the copied, then the transformed ones."""
        order = torch.arange(self.dim)
        return torch.argsort(torch.cat([order[half] for half in self.halves()]))


class HalvesLayer(Bijection):
    """Layer that copies one half of the features and transforms the other."""

    places: Tensor

    def __init__(self, shape: CouplingShape) -> None:
        super().__init__()
        self.dim = shape.dim
        self.context_dim = shape.context_dim
        self.shape = shape
        self.register_buffer("places", shape.places(), persistent=False)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the copied and the transformed features."""
        copied, moved = self.shape.halves()
        return rows[:, copied], rows[:, moved]

    def moved_mask(self, observed: Tensor | None) -> Tensor | None:
        """Return the mask of the transformed features."""
        return None if observed is None else observed[:, self.shape.halves()[1]]

    def join(self, copied: Tensor, moved: Tensor) -> Tensor:
        """Return rows, their features in order, from the two halves."""
        return torch.cat([copied, moved], dim=1).index_select(1, self.places)


def coupling_layer(
    shape: CouplingShape,
    networks: Sequence[tuple[nn.ModuleList, ActivationName]],
    spec: MapSpec,
) -> NetworkLayer:
    """Return a coupling layer as weights.

    Args:
        networks: Its networks, which read the copied half, then the context.
        spec: Map of the other half.
    """
    read = shape.widths()[0]
    found = []
    for layers, activation in networks:
        weights, biases = network_parameters(layers)
        found.append(LayerNetwork(weights, [[bias] for bias in biases], activation))
    return NetworkLayer(
        found, spec, context=shape.context_dim, copied=read, places=shape.places().numpy()
    )
