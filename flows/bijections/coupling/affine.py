"""Affine and additive coupling layers."""

import torch
from torch import Tensor, nn

from flows.bijections.base import Batch, Given, Mapped
from flows.bijections.coupling.halves import CouplingShape, HalvesLayer, coupling_layer
from flows.bijections.linear import apply_network, network
from flows.bijections.network_layers import ADDITIVE, NetworkLayer, Reordering, affine_map
from flows.bijections.observed import Observed, masked
from flows.bijections.transformers import bounded
from flows.specs.spec import ActivationName


class Coupling(HalvesLayer):
    """Coupling layer x_a = u_a, x_b = t(u_a) + u_b exp(s(u_a)) (Dinh et al. 2017, equations 7, 8).

    a are the features with an even index, counted from 0, or those with an odd one; b the others.
    s and t are networks with tanh and ReLU hidden units and linear outputs; they read and write
    the halves by index, and read the context too. log|det du/dx| = -sum of s. Both directions take
    1 pass. The additive layer (Dinh et al. 2015, equation 3.1) has s = 0 and no network for it.

    Departure from the paper: the output of s is not squashed (as in Papamakarios et al. 2017)
    unless it has a bound (`flows.bijections.transformers.bounded`).
    """

    def __init__(
        self,
        shape: CouplingShape,
        hidden: list[int],
        generator: torch.Generator,
        *,
        additive: bool = False,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__(shape)
        self.additive = additive
        self.log_scale_bound = log_scale_bound
        copied, moved = shape.widths()
        widths = [copied + shape.context_dim, *hidden, moved]
        self.scale_layers = network([] if additive else widths, generator)
        self.shift_layers = network(widths, generator)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        copied, moved = self.split(u)
        log_scale, shift = self._condition(copied, context, self.moved_mask(observed))
        if log_scale is None:
            return self.join(copied, moved + shift), u.new_zeros(u.shape[0])
        x = self.join(copied, torch.addcmul(shift, moved, log_scale.exp()))
        return x, log_scale.sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        copied, moved = self.split(x)
        log_scale, shift = self._condition(copied, context, self.moved_mask(observed))
        if log_scale is None:
            return self.join(copied, moved - shift), x.new_zeros(x.shape[0])
        u = self.join(copied, (moved - shift) * torch.exp(-log_scale))
        return u, -log_scale.sum(dim=1)

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        networks: list[tuple[nn.ModuleList, ActivationName]] = [(self.shift_layers, "relu")]
        if self.additive:
            return [coupling_layer(self.shape, networks, ADDITIVE)]
        networks.append((self.scale_layers, "tanh"))
        return [coupling_layer(self.shape, networks, affine_map(self.log_scale_bound))]

    def _condition(
        self, copied: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
        shift = masked(apply_network(self.shift_layers, read, torch.relu), observed)
        if self.additive:
            return None, shift
        log_scale = apply_network(self.scale_layers, read, torch.tanh)
        return masked(bounded(log_scale, self.log_scale_bound), observed), shift
