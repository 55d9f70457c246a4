"""Autoregressive layers: a masked network conditions an elementwise map (Huang et al. 2018, 2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flows.bijections.autoregressive.masked import Conditioner, MaskedLinear, run_masked
from flows.bijections.autoregressive.sequential import SequentialSampler, split_direct
from flows.bijections.base import (
    Batch,
    BatchContext,
    Bijection,
    Conditionals,
    PerRow,
    known_means,
)
from flows.bijections.folding import (
    Columns,
    ContextColumns,
    FoldedActivation,
    Pending,
    Step,
    in_place,
    tanh_as_sigmoid,
)
from flows.bijections.gradients import ACTIVATIONS, WeightedContext
from flows.bijections.network_layers import LayerNetwork, NetworkLayer, Reordering
from flows.bijections.observed import Observed, ObservedColumns, masked
from flows.bijections.transformers import Affine, Transformer
from flows.errors import FlowError

# Number of rows that the sampler takes at a time: their hidden units stay in the processor's cache.
SAMPLE_ROWS = 512

_FoldedNetwork = tuple[list[Tensor], list[Tensor], Tensor | None, FoldedActivation]


class Autoregressive(Bijection):
    """Autoregressive map x_i = T(u_i; p_i(x_<i, context)), in the natural order of the features.

    T is a transformer; p_i comes from one masked network (`flows.bijections.autoregressive.masked`), whose hidden
    degrees are spread evenly, not drawn. The inverse takes 1 pass. The forward direction is
    sequential; without gradients it computes each hidden unit once, about the arithmetic of 1 pass,
    with gradients, and through residual networks, it takes `dim` passes. With one feature and no context the network is a bias.
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
        self.layers = conditioner.layers(dim, transformer.outputs, generator)
        self.context_weight = conditioner.context_weight(transformer.outputs, generator)

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data, sequentially."""
        if torch.is_grad_enabled() or self.conditioner.residual:
            return self._differentiable_forward(u, context, observed)
        weights, biases = self._masked()
        sampler = SequentialSampler(
            weights,
            biases,
            degrees=self._degrees(),
            activation_=ACTIVATIONS[self.conditioner.activation].apply_,
            transformer=self.transformer,
        )
        added = self._added(context)
        pieces = []
        for start in range(0, max(len(u), 1), SAMPLE_ROWS):
            rows = slice(start, start + SAMPLE_ROWS)
            given, mask = (None if t is None else t[rows].t() for t in (added, observed))
            pieces.append(sampler.sample(u[rows].t(), given, mask))
        x = torch.cat([piece[0] for piece in pieces], dim=1).t()
        return x, torch.cat([piece[1].sum(dim=0) for piece in pieces])

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise, in 1 pass."""
        u, log_det = self.inverse_terms(x, context, observed)
        return u, log_det.sum(dim=1)

    def inverse_terms(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Batch]:
        """Return the noise, and log du_i/dx_i of each feature."""
        if not self.has_noise:
            raise FlowError("this density has no noise that its rows could be mapped to")
        u, log_det = self.transformer.inverse(x, self._condition(x, context, observed))
        shown = self.transformer.masked_results
        return shown(u, observed), shown(log_det, observed)

    def log_density(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> PerRow:
        """Return the log density of rows whose noise is standard Gaussian, in 1 pass."""
        terms = self.transformer.log_density(x, self._condition(x, context, observed))
        return masked(terms, observed).sum(dim=1)

    def conditionals(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> Conditionals:
        """Return the density of each feature given those before it, in 1 pass."""
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

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, after the pending map."""
        if self.conditioner.residual:
            return super().fold(pending)
        weights, biases, context_weight, activation = self._folded_network()
        step = AutoregressiveStep(
            [pending.cast(weight) for weight in weights],
            [pending.cast(bias) for bias in biases],
            context_weight=None if context_weight is None else pending.cast(context_weight),
            degrees=self._degrees(),
            activation=activation,
            transformer=self.transformer.folded(pending),
        )
        return [*pending.steps(), step], pending.applied()

    def _linear_layers(self) -> list[MaskedLinear]:
        return [layer for layer in self.layers if isinstance(layer, MaskedLinear)]

    def _degrees(self) -> list[Tensor]:
        return self.conditioner.degrees(self.dim, self.transformer.outputs)

    def _masked(self) -> tuple[list[Tensor], list[Tensor]]:
        weights, biases, masks = self.network()
        return [weight * mask for weight, mask in zip(weights, masks, strict=True)], biases

    def _folded_network(self) -> _FoldedNetwork:
        """Return weights, biases, those of the context, and the activation, tanh as sigmoid."""
        weights, biases = self._masked()
        context_weight: Tensor | None = self.context_weight
        if self.conditioner.activation != "tanh" or len(weights) == 1:
            return weights, biases, context_weight, self.conditioner.activation
        weights, biases = tanh_as_sigmoid(weights, biases)
        doubled = None if context_weight is None else 2 * context_weight
        return weights, biases, doubled, "sigmoid"

    def _added(self, context: Tensor | None) -> Tensor | None:
        """Return the contribution of the context to the first layer."""
        weighted = self._weighted(context)
        return None if weighted is None else F.linear(*weighted)

    def _weighted(self, context: Tensor | None) -> WeightedContext | None:
        """Return the context with its weights in the first layer."""
        if self.context_weight is None:
            return None
        if context is None:
            raise FlowError("this density is conditional: it needs a context")
        return context, self.context_weight

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
            residual=self.conditioner.residual,
        )
        parameters = out.view(len(x), self.transformer.outputs, self.dim)
        mask = None if observed is None else observed[:, None]
        return self.transformer.masked_parameters(parameters, mask).movedim(1, 0)

    def _differentiable_forward(
        self, u: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map noise to data; each pass adds one feature, and gradients go through all."""
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


class AutoregressiveStep(Step):
    """Compiled autoregressive layer, its features in natural order."""

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        *,
        context_weight: Tensor | None,
        degrees: list[Tensor],
        activation: FoldedActivation,
        transformer: Transformer,
    ) -> None:
        self.own_density = transformer.own_density
        self.sample_rows = transformer.sample_rows
        self._activation_ = activation_ = in_place(activation)
        self._transformer = transformer
        self._context_weight = context_weight
        self._sampler = SequentialSampler(
            weights, biases, degrees=degrees, activation_=activation_, transformer=transformer
        )
        self._hidden = list(zip(weights[:-1], (b[:, None] for b in biases[:-1]), strict=True))
        out, self._direct = split_direct(weights[-1], degrees)
        self._out = out, biases[-1][:, None]
        self._layer: NetworkLayer | None = None
        spec = transformer.map_spec()
        if spec is not None and self._direct is None:
            given, wide = 0, weights
            if context_weight is not None:
                given, wide = context_weight.shape[1], [*weights]
                wide[0] = torch.cat([context_weight, weights[0]], dim=1)
            network = LayerNetwork(wide, biases, activation)
            self._layer = NetworkLayer([network], spec, context=given, degrees=degrees)

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, Columns]:
        """Map data to noise."""
        u, log_det = self._transformer.inverse(x, self._condition(x, context, observed))
        shown = self._transformer.masked_results
        return shown(u, observed), shown(log_det, observed)

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, Columns]:
        """Map noise to data."""
        return self._sampler.sample(u, self._added(context), observed)

    def log_density(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> Columns:
        """Return the log density of each value whose noise is standard Gaussian."""
        terms = self._transformer.log_density(x, self._condition(x, context, observed))
        return masked(terms, observed)

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layer as weights, if its map has a compiled form."""
        return None if self._layer is None else [self._layer]

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        hidden = [tensor for pair in self._hidden for tensor in pair]
        context = [] if self._context_weight is None else [self._context_weight]
        own = [*context, *self._transformer.tensors()]
        direct = [] if self._direct is None else [self._direct]
        return [*hidden, *self._out, *direct, *own, *self._sampler.tensors()]

    def _added(self, context: Tensor | None) -> Tensor | None:
        if self._context_weight is None or context is None:
            return None
        return self._context_weight @ context

    def _network(self, x: Tensor, context: Tensor | None) -> Float[Tensor, "outputs_dim batch"]:
        h = x
        for index, (weight, bias) in enumerate(self._hidden):
            h = torch.addmm(bias, weight, h)
            if index == 0 and (added := self._added(context)) is not None:
                h += added
            h = self._activation_(h)
        weight, bias = self._out
        out = torch.addmm(bias, weight, h)
        return out if self._direct is None else out.addmm_(self._direct, x)

    def _condition(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Float[Tensor, "outputs dim batch"]:
        parameters = self._network(x, context).view(self._transformer.outputs, *x.shape)
        return self._transformer.masked_parameters(parameters, observed)
