"""Autoregressive layers: a masked network conditions an elementwise map (Huang et al. 2018, 2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flows.bijections.autoregressive.masked import (
    MaskedLinear,
    context_weights,
    masked_layers,
    run_masked,
)
from flows.bijections.base import (
    Batch,
    Bijection,
    Conditionals,
    Given,
    Mapped,
    PerRow,
    Terms,
    known_means,
)
from flows.bijections.network_layers import LayerNetwork, NetworkLayer, Reordering
from flows.bijections.observed import Observed, masked
from flows.bijections.transformers import Affine, Transformer
from flows.errors import FlowError
from flows.specs.costs import Conditioner


class Autoregressive(Bijection):
    """Autoregressive map x_i = T(u_i; p_i(x_<i, context)), in the natural order of the features.

    T is a transformer; p_i comes from one masked network (`flows.bijections.autoregressive.masked`), whose hidden
    degrees are spread evenly, not drawn. The inverse takes 1 pass. The forward direction is
    sequential and takes `dim` passes; compiled loops (`flows.engine`) compute each hidden unit once.
    With one feature and no context the network is a bias.
    """

    triangular = True

    def __init__(
        self,
        dim: int,
        conditioner: Conditioner,
        transformer: Transformer,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = conditioner.context_dim
        self.has_noise = transformer.has_noise
        self.own_density = transformer.own_density
        self.conditioner = conditioner
        self.is_affine = isinstance(transformer, Affine)
        self.transformer = transformer
        self.layers = masked_layers(conditioner, dim, transformer.outputs, generator)
        self.context_weight = context_weights(conditioner, transformer.outputs, generator)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        x = torch.zeros_like(u)
        log_dets = []
        for i in range(self.dim):
            parameters = self._condition(x, context, observed)[:, :, i]
            mask = None if observed is None else observed[:, i]
            column, log_det = (
                self.transformer.masked_results(result, mask)
                for result in self.transformer.forward(u[:, i], parameters)
            )
            x = torch.cat([x[:, :i], column[:, None], x[:, i + 1 :]], dim=1)
            log_dets.append(log_det)
        return x, torch.stack(log_dets).sum(dim=0)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u, log_det = self.inverse_terms(x, context, observed)
        return u, log_det.sum(dim=1)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        if not self.has_noise:
            raise FlowError("this density has no noise that its rows could be mapped to")
        u, log_det = self.transformer.inverse(x, self._condition(x, context, observed))
        shown = self.transformer.masked_results
        return shown(u, observed), shown(log_det, observed)

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        terms = self.transformer.log_density(x, self._condition(x, context, observed))
        return masked(terms, observed).sum(dim=1)

    def conditionals(
        self, x: Batch, context: Given = None, observed: Observed = None
    ) -> Conditionals:
        parameters = self._condition(x, context, observed)
        terms = masked(self.transformer.log_density(x, parameters), observed)
        means = self.transformer.mean(parameters)
        found = torch.full_like(x, torch.nan) if means is None else means
        return Conditionals(terms, known_means(found, observed))

    def network(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return weights, biases and masks, layer by layer, without the context's weights."""
        layers = self._linear_layers()
        return (
            [layer.weight for layer in layers],
            [layer.bias for layer in layers],
            [layer.mask for layer in layers],
        )

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        spec = self.transformer.map_spec()
        if spec is None or self.conditioner.is_direct(self.dim):
            return None
        weights, biases, masks = self.network()
        network = LayerNetwork(
            weights,
            [[bias] for bias in biases],
            self.conditioner.activation,
            self.context_weight,
            masks,
        )
        degrees = self.conditioner.degrees(self.dim, self.transformer.outputs)
        return [NetworkLayer([network], spec, context=self.context_dim, degrees=degrees)]

    def _linear_layers(self) -> list[MaskedLinear]:
        return [layer for layer in self.layers if isinstance(layer, MaskedLinear)]

    def _added(self, context: Tensor | None) -> Tensor | None:
        """Return the contribution of the context to the first layer."""
        if self.context_weight is None:
            return None
        if context is None:
            raise FlowError("this density is conditional: it needs a context")
        return F.linear(context, self.context_weight)

    def _condition(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Float[Tensor, "outputs batch dim"]:
        """Return the parameters of each feature's map."""
        layers = self._linear_layers()
        weights = [layer.masked_weight() for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers]
        out = run_masked(
            x,
            weights,
            biases,
            activation=self.conditioner.activation,
            first=self._added(context),
        )
        parameters = out.view(x.shape[0], self.transformer.outputs, self.dim)
        mask = None if observed is None else observed[:, None]
        return self.transformer.masked_parameters(parameters, mask).movedim(1, 0)
