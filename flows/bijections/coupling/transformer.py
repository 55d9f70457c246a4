"""Coupling layers with any transformer of the features that move."""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.autoregressive.masked import begin_as_identity, run_residual
from flows.bijections.base import Batch, BatchContext, PerRow
from flows.bijections.coupling.halves import CouplingShape, HalvesLayer, coupling_layer
from flows.bijections.folding import (
    Columns,
    ContextColumns,
    FoldedActivation,
    Pending,
    Step,
    in_place,
    tanh_as_sigmoid,
)
from flows.bijections.gradients import ACTIVATIONS, ActivationName
from flows.bijections.linear import (
    FoldedNetwork,
    apply_folded,
    apply_network,
    network,
    network_parameters,
)
from flows.bijections.network_layers import NetworkLayer, Reordering
from flows.bijections.observed import Observed, ObservedColumns
from flows.bijections.transformers import Transformer


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
        *,
        residual: bool = False,
    ) -> None:
        super().__init__(shape)
        self.activation = activation
        self.residual = residual
        self.transformer = transformer
        copied, moved = shape.widths()
        widths = [copied + shape.context_dim, *hidden, transformer.outputs * moved]
        self.layers = network(widths, generator)
        if residual:
            begin_as_identity(self.layers)

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        copied, moved = self.split(u)
        mask = self.moved_mask(observed)
        x, log_det = self.transformer.forward(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self.join(copied, shown(x, mask)), shown(log_det, mask).sum(dim=1)

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        copied, moved = self.split(x)
        mask = self.moved_mask(observed)
        u, log_det = self.transformer.inverse(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self.join(copied, shown(u, mask)), shown(log_det, mask).sum(dim=1)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, after the pending map."""
        if self.residual:
            return super().fold(pending)
        weights, biases = network_parameters(self.layers)
        activation: FoldedActivation = self.activation
        if activation == "tanh":
            weights, biases = tanh_as_sigmoid(weights, biases)
            activation = "sigmoid"
        step = _TransformerCouplingStep(
            [
                (pending.cast(weight), pending.cast(bias[:, None]))
                for weight, bias in zip(weights, biases, strict=True)
            ],
            shape=self.shape,
            activation=activation,
            transformer=self.transformer.folded(pending),
        )
        return [*pending.steps(), step], pending.applied()

    def _condition(
        self, copied: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Float[Tensor, "outputs batch moved"]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
        if self.residual:
            pairs = list(zip(*network_parameters(self.layers), strict=True))
            out = run_residual(read, pairs, self.activation)
        else:
            out = apply_network(self.layers, read, ACTIVATIONS[self.activation].apply)
        moved = self.shape.widths()[1]
        parameters = out.view(len(copied), self.transformer.outputs, moved)
        mask = None if observed is None else observed[:, None]
        return self.transformer.masked_parameters(parameters, mask).movedim(1, 0)


class _TransformerCouplingStep(Step):
    """Compiled transformer coupling layer."""

    def __init__(
        self,
        network: FoldedNetwork,
        *,
        shape: CouplingShape,
        activation: FoldedActivation,
        transformer: Transformer,
    ) -> None:
        self._shape = shape
        self._copied, self._moved = shape.halves()
        self._activation = activation
        self._activation_ = in_place(activation)
        self._network = network
        self._transformer = transformer

    def inverse(
        self,
        x: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> tuple[Columns, Float[Tensor, "moved batch"]]:
        u = x.clone()
        mask = None if observed is None else observed[self._moved]
        parameters = self._transformer.masked_parameters(self._condition(x, context), mask)
        moved, log_det = self._transformer.inverse(x[self._moved], parameters)
        u[self._moved] = self._transformer.masked_results(moved, mask)
        return u, self._transformer.masked_results(log_det, mask)

    def forward(
        self,
        u: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> tuple[Columns, Float[Tensor, "moved batch"]]:
        x = u.clone()
        mask = None if observed is None else observed[self._moved]
        parameters = self._transformer.masked_parameters(self._condition(u, context), mask)
        moved, log_det = self._transformer.forward(u[self._moved], parameters)
        x[self._moved] = self._transformer.masked_results(moved, mask)
        return x, self._transformer.masked_results(log_det, mask)

    def tensors(self) -> list[Tensor]:
        weights = [tensor for pair in self._network for tensor in pair]
        return [*weights, *self._transformer.tensors()]

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layer as weights, if its map has a compiled form."""
        spec = self._transformer.map_spec()
        if spec is None:
            return None
        return [coupling_layer(self._shape, [(self._network, self._activation)], spec)]

    def _condition(
        self, rows: Tensor, context: Tensor | None
    ) -> Float[Tensor, "outputs moved batch"]:
        read = rows[self._copied]
        if context is not None:
            read = torch.cat([read, context])
        out = apply_folded(self._network, read, self._activation_)
        return out.view(self._transformer.outputs, -1, rows.shape[1])
