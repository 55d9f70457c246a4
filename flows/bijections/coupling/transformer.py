"""Coupling layers with any transformer of the features that move."""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, Given, Mapped
from flows.bijections.coupling.halves import CouplingShape, HalvesLayer, coupling_layer
from flows.bijections.linear import ACTIVATIONS, apply_network, network
from flows.bijections.network_layers import NetworkLayer, Reordering
from flows.bijections.observed import Observed
from flows.bijections.transformers import Transformer
from flows.specs.spec import ActivationName


class TransformerCoupling(HalvesLayer):
    """Coupling x_a = u_a, x_b = T(u_b; p(u_a, context)) (Durkan et al. 2019, section 3).

    a are the features with an even index, counted from 0, or those with an odd one; b the others.
    T is a transformer with a noise; one network gives all of its parameters. It reads and writes
    the halves by index. Both directions take 1 pass.
    """

    def __init__(
        self,
        shape: CouplingShape,
        hidden: list[int],
        activation: ActivationName,
        transformer: Transformer,
        generator: torch.Generator,
    ) -> None:
        super().__init__(shape)
        self.activation = activation
        self.transformer = transformer
        copied, moved = shape.widths()
        widths = [copied + shape.context_dim, *hidden, transformer.outputs * moved]
        self.layers = network(widths, generator)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        copied, moved = self.split(u)
        mask = self.moved_mask(observed)
        x, log_det = self.transformer.forward(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self.join(copied, shown(x, mask)), shown(log_det, mask).sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        copied, moved = self.split(x)
        mask = self.moved_mask(observed)
        u, log_det = self.transformer.inverse(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self.join(copied, shown(u, mask)), shown(log_det, mask).sum(dim=1)

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        spec = self.transformer.map_spec()
        if spec is None:
            return None
        return [coupling_layer(self.shape, [(self.layers, self.activation)], spec)]

    def _condition(
        self, copied: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Float[Tensor, "outputs batch moved"]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
        out = apply_network(self.layers, read, ACTIVATIONS[self.activation])
        moved = self.shape.widths()[1]
        parameters = out.view(copied.shape[0], self.transformer.outputs, moved)
        mask = None if observed is None else observed[:, None]
        return self.transformer.masked_parameters(parameters, mask).movedim(1, 0)
