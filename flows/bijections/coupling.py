"""Coupling layers: affine, additive, and with any transformer of the features that move."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, BatchContext, Bijection, PerRow
from flows.bijections.folding import (
    AffineCoupling,
    Columns,
    ContextColumns,
    LogDetTerms,
    Pending,
    Step,
    tanh_as_sigmoid,
)
from flows.bijections.gradients import ACTIVATIONS, ActivationName, Pullback, coupling_vjp
from flows.bijections.linear import (
    FoldedNetwork,
    apply_folded,
    apply_network,
    network,
    network_cost,
    network_parameters,
)
from flows.bijections.observed import Observed, ObservedColumns, masked
from flows.bijections.transformers import Transformer
from flows.cost import FLOAT_BYTES, INDEX_BYTES, OBJECT_BYTES, Cost, Way
from flows.errors import SpecError


@dataclass(frozen=True)
class CouplingShape:
    """Split of the features into a half that is copied and a half that it conditions.

    Attributes:
        dim: Number of features.
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


def check_coupling_dim(family: str, dim: int) -> None:
    """Check that there are two features, as a coupling layer needs.

    Raises:
        SpecError: There is only one feature.
    """
    if dim < 2:
        raise SpecError(
            "dimension-unsupported",
            f"{family} needs at least 2 features: one half of them conditions the other",
        )


def alternating(dim: int, layers: int, cost_of: Callable[[int, int], Cost]) -> Cost:
    """Return the cost of layers whose halves swap roles from one to the next.

    Args:
        dim: Number of features.
        layers: Number of layers.
        cost_of: Function from the numbers of copied and of transformed features to the layer's
            cost.
    """
    even, odd = (dim + 1) // 2, dim // 2
    return cost_of(even, odd) * -(-layers // 2) + cost_of(odd, even) * (layers // 2)


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


class _HalvesLayer(Bijection):
    """Layer that copies one half of the features and transforms the other."""

    places: Tensor

    def __init__(self, shape: CouplingShape) -> None:
        super().__init__()
        self.dim = shape.dim
        self.context_dim = shape.context_dim
        self.shape = shape
        self.register_buffer("places", shape.places(), persistent=False)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        copied, moved = self.shape.halves()
        return rows[:, copied], rows[:, moved]

    def _moved_mask(self, observed: Tensor | None) -> Tensor | None:
        """Return the mask of the transformed features."""
        return None if observed is None else observed[:, self.shape.halves()[1]]

    def _join(self, copied: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([copied, moved], dim=1).index_select(1, self.places)


class Coupling(_HalvesLayer):
    """Coupling layer x_a = u_a, x_b = t(u_a) + u_b exp(s(u_a)) (Dinh et al. 2017, equations 7, 8).

    a are the features with an even index, counted from 0, or those with an odd one; b the others.
    s and t are networks with tanh and ReLU hidden units and linear outputs; they read and write
    the halves by index, and read the context too. log|det du/dx| = -sum of s. Both directions take
    1 pass. The additive layer (Dinh et al. 2015, equation 3.1) has s = 0 and no network for it.

    Departure from the paper: the output of s is not squashed (as in Papamakarios et al. 2017).
    """

    def __init__(
        self,
        shape: CouplingShape,
        hidden: list[int],
        generator: torch.Generator,
        *,
        additive: bool = False,
    ) -> None:
        super().__init__(shape)
        self.additive = additive
        copied, moved = shape.widths()
        widths = [copied + shape.context_dim, *hidden, moved]
        self.scale_layers = network([] if additive else widths, generator)
        self.shift_layers = network(widths, generator)

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        copied, moved = self._split(u)
        log_scale, shift = self._condition(copied, context, self._moved_mask(observed))
        if log_scale is None:
            return self._join(copied, moved + shift), u.new_zeros(len(u))
        x = self._join(copied, torch.addcmul(shift, moved, log_scale.exp()))
        return x, log_scale.sum(dim=1)

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        copied, moved = self._split(x)
        log_scale, shift = self._condition(copied, context, self._moved_mask(observed))
        if log_scale is None:
            return self._join(copied, moved - shift), x.new_zeros(len(x))
        u = self._join(copied, (moved - shift) * torch.exp(-log_scale))
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
        halves = self.shape.halves()
        return coupling_vjp(x, halves, scale, shift, context=context, observed=observed)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, which absorbs the pending map of the features that it moves and reads.

        Its tanh is written as sigmoid. With x = y a + b of the pending map, the networks read y
        through a and b, and the moved half has the shift (t - b) / a and the log scale s - log a.
        The copied half stays pending.
        """
        if self.additive:
            return [*pending.steps(), self._step(pending.cleared())], pending.applied()
        return [self._step(pending)], pending.without(self.shape.halves()[1])

    def _step(self, pending: Pending) -> Step:
        _, moved = self.shape.halves()
        scale, shift = pending.scale[moved], pending.shift[moved]
        return _CouplingStep(
            self._folded(self.scale_layers, pending, torch.ones_like(scale), -scale.log()),
            self._folded(self.shift_layers, pending, 1 / scale, -shift / scale),
            shape=self.shape,
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
        return masked(log_scale, observed), shift


class _CouplingStep(Step):
    """Compiled coupling layer; without a network for the log scale it is additive."""

    def __init__(
        self,
        minus_log_scale: FoldedNetwork,
        minus_shift: FoldedNetwork,
        *,
        shape: CouplingShape,
    ) -> None:
        self._minus_log_scale, self._minus_shift = minus_log_scale, minus_shift
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

    def affine_layer(self) -> AffineCoupling | None:
        if not self._minus_log_scale or self._shape.context_dim > 0:
            return None
        scale, shift = (
            [(weight, bias[:, 0]) for weight, bias in network]
            for network in (self._minus_log_scale, self._minus_shift)
        )
        return AffineCoupling(scale, shift, self._shape.widths()[0], self._shape.places())

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
        return masked(log_scale, mask), shift


class TransformerCoupling(_HalvesLayer):
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

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        copied, moved = self._split(u)
        mask = self._moved_mask(observed)
        x, log_det = self.transformer.forward(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self._join(copied, shown(x, mask)), shown(log_det, mask).sum(dim=1)

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        copied, moved = self._split(x)
        mask = self._moved_mask(observed)
        u, log_det = self.transformer.inverse(moved, self._condition(copied, context, mask))
        shown = self.transformer.masked_results
        return self._join(copied, shown(u, mask)), shown(log_det, mask).sum(dim=1)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, after the pending map."""
        weights, biases = network_parameters(self.layers)
        activation_ = ACTIVATIONS[self.activation].apply_
        if self.activation == "tanh":
            weights, biases = tanh_as_sigmoid(weights, biases)
            activation_ = torch.sigmoid_
        step = _TransformerCouplingStep(
            [
                (pending.cast(weight), pending.cast(bias[:, None]))
                for weight, bias in zip(weights, biases, strict=True)
            ],
            halves=self.shape.halves(),
            activation_=activation_,
            transformer=self.transformer.folded(pending),
        )
        return [*pending.steps(), step], pending.applied()

    def _condition(
        self, copied: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> Float[Tensor, "outputs batch moved"]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
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
        halves: tuple[slice, slice],
        activation_: Callable[[Tensor], Tensor],
        transformer: Transformer,
    ) -> None:
        self._copied, self._moved = halves
        self._activation_ = activation_
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

    def _condition(
        self, rows: Tensor, context: Tensor | None
    ) -> Float[Tensor, "outputs moved batch"]:
        read = rows[self._copied]
        if context is not None:
            read = torch.cat([read, context])
        out = apply_folded(self._network, read, self._activation_)
        return out.view(self._transformer.outputs, -1, rows.shape[1])
