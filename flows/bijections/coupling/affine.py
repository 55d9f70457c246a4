"""Affine and additive coupling layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, BatchContext, PerRow
from flows.bijections.coupling.halves import CouplingShape, HalvesLayer, coupling_layer
from flows.bijections.folding import (
    Columns,
    ContextColumns,
    FoldedActivation,
    LogDetTerms,
    Pending,
    Step,
    tanh_as_sigmoid,
)
from flows.bijections.gradients import Pullback, coupling_vjp
from flows.bijections.linear import (
    FoldedNetwork,
    apply_folded,
    apply_network,
    network,
    network_cost,
    network_parameters,
)
from flows.bijections.network_layers import ADDITIVE, NetworkLayer, Reordering, affine_map
from flows.bijections.observed import Observed, ObservedColumns, masked
from flows.bijections.transformers import bounded
from flows.cost import FLOAT_BYTES, INDEX_BYTES, OBJECT_BYTES, Cost, Way


def coupling_cost(
    copied: int, moved: int, hidden: list[int], *, context_dim: int, networks: int
) -> Cost:
    """Return the cost of an affine or additive coupling layer."""
    dim = copied + moved
    rows = FLOAT_BYTES * (8 * dim + context_dim)
    way = Way(kept_row=rows, used_row=rows)
    places = Cost(
        buffers=INDEX_BYTES * dim,
        building=4 * INDEX_BYTES * dim,
        folding=4 * INDEX_BYTES * dim,
        compiled=2 * INDEX_BYTES * dim + 16 * OBJECT_BYTES,
        density=way,
        sampling=way,
    )
    return places + network_cost([copied + context_dim, *hidden, moved], networks=networks)


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

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        copied, moved = self.split(u)
        log_scale, shift = self._condition(copied, context, self.moved_mask(observed))
        if log_scale is None:
            return self.join(copied, moved + shift), u.new_zeros(len(u))
        x = self.join(copied, torch.addcmul(shift, moved, log_scale.exp()))
        return x, log_scale.sum(dim=1)

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        copied, moved = self.split(x)
        log_scale, shift = self._condition(copied, context, self.moved_mask(observed))
        if log_scale is None:
            return self.join(copied, moved - shift), x.new_zeros(len(x))
        u = self.join(copied, (moved - shift) * torch.exp(-log_scale))
        return u, -log_scale.sum(dim=1)

    def parameter_list(self) -> list[Tensor]:
        """Return the parameters in the order of the gradients of `inverse_vjp`."""
        scale, shift = map(network_parameters, (self.scale_layers, self.shift_layers))
        return [tensor for tensors in (*scale, *shift) for tensor in tensors]

    def inverse_vjp(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, hand-written."""
        scale = None if self.additive else network_parameters(self.scale_layers)
        shift = network_parameters(self.shift_layers)
        return coupling_vjp(
            x,
            self.shape.halves(),
            scale,
            shift,
            context=context,
            observed=observed,
            log_scale_bound=self.log_scale_bound,
        )

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, which absorbs the pending map of the features that it moves and reads.

        Its tanh is written as sigmoid. With x = y a + b of the pending map, the networks read y
        through a and b, and the moved half has the shift (t - b) / a and the log scale s - log a.
        The copied half stays pending. Neither an additive layer nor one with a bound has a log scale
        that log a could be subtracted from.
        """
        if self.additive or self.log_scale_bound is not None:
            return [*pending.steps(), self._step(pending.cleared())], pending.applied()
        return [self._step(pending)], pending.without(self.shape.halves()[1])

    def _step(self, pending: Pending) -> Step:
        _, moved = self.shape.halves()
        scale, shift = pending.scale[moved], pending.shift[moved]
        return _CouplingStep(
            self._folded(self.scale_layers, pending, torch.ones_like(scale), -scale.log()),
            self._folded(self.shift_layers, pending, 1 / scale, -shift / scale),
            shape=self.shape,
            log_scale_bound=self.log_scale_bound,
        )

    def _folded(
        self, layers: nn.ModuleList, pending: Pending, gain: Tensor, offset: Tensor
    ) -> FoldedNetwork:
        """Return a network that reads through the pending map, its outputs scaled and shifted."""
        if not layers:
            return []
        copied, _ = self.shape.halves()
        weights, biases = network_parameters(layers)
        if layers is self.scale_layers:
            weights, biases = tanh_as_sigmoid(weights, biases)
        read = self.shape.widths()[0]
        biases[0] = biases[0] + weights[0][:, :read] @ pending.shift[copied]
        weights[0] = torch.cat(
            [weights[0][:, :read] * pending.scale[copied], weights[0][:, read:]], dim=1
        )
        # With the signs turned in the weights, u_b = (x_b + minus_t) exp(minus_s).
        biases[-1] = -(biases[-1] * gain + offset)
        weights[-1] = -(weights[-1] * gain[:, None])
        pairs = zip(weights, (bias[:, None] for bias in biases), strict=True)
        return [(pending.cast(weight), pending.cast(bias)) for weight, bias in pairs]

    def _condition(
        self, copied: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
        shift = masked(apply_network(self.shift_layers, read, torch.relu), observed)
        if self.additive:
            return None, shift
        log_scale = apply_network(self.scale_layers, read, torch.tanh)
        return masked(bounded(log_scale, self.log_scale_bound), observed), shift


class _CouplingStep(Step):
    """Compiled coupling layer; without a network for the log scale it is additive."""

    def __init__(
        self,
        minus_log_scale: FoldedNetwork,
        minus_shift: FoldedNetwork,
        *,
        shape: CouplingShape,
        log_scale_bound: float | None = None,
    ) -> None:
        self._minus_log_scale, self._minus_shift = minus_log_scale, minus_shift
        self._bound = log_scale_bound
        self._shape = shape
        self._copied, self._moved = shape.halves()

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        log_det, minus_shift = self._condition(x, context, observed)
        u = x.clone()
        u[self._moved].add_(minus_shift)
        if log_det is not None:
            u[self._moved].mul_(log_det.exp())
        return u, log_det

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        minus_log_scale, minus_shift = self._condition(u, context, observed)
        x = u.clone()
        if minus_log_scale is not None:
            x[self._moved].mul_(minus_log_scale.neg_().exp())
        x[self._moved].sub_(minus_shift)
        return x, minus_log_scale

    def tensors(self) -> list[Tensor]:
        networks = (self._minus_log_scale, self._minus_shift)
        return [tensor for network in networks for pair in network for tensor in pair]

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        networks: list[tuple[FoldedNetwork, FoldedActivation]] = [(self._minus_shift, "relu")]
        spec = ADDITIVE
        if self._minus_log_scale:
            networks.append((self._minus_log_scale, "sigmoid"))
            spec = affine_map(self._bound)
        turned = [
            ([*hidden, (-weight, -bias)], activation)
            for (*hidden, (weight, bias)), activation in networks
        ]
        return [coupling_layer(self._shape, turned, spec)]

    def _condition(
        self, rows: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        read = rows[self._copied]
        if context is not None:
            read = torch.cat([read, context])
        mask = None if observed is None else observed[self._moved]
        shift = masked(apply_folded(self._minus_shift, read, torch.relu_), mask)
        if not self._minus_log_scale:
            return None, shift
        log_scale = apply_folded(self._minus_log_scale, read, torch.sigmoid_)
        log_scale = bounded(log_scale, self._bound)
        return masked(log_scale, mask), shift
