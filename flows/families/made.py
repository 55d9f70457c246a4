"""Masked autoencoders (Germain et al. 2015, Papamakarios et al. 2017)."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.autoregressive.layers import Autoregressive, AutoregressiveStep
from flows.bijections.autoregressive.mask_ensemble import MaskEnsemble, ensemble_cost
from flows.bijections.autoregressive.masked import Conditioner
from flows.bijections.base import Batch, BatchContext, Bijection
from flows.bijections.compose import Chain, Permutation, permutation_cost
from flows.bijections.folding import (
    Columns,
    ContextColumns,
    FoldedActivation,
    Pending,
    Step,
    tanh_as_sigmoid,
)
from flows.bijections.gradients import ACTIVATIONS, ActivationName, Pullback, masked_affine_vjp
from flows.bijections.observed import Observed, ObservedColumns
from flows.bijections.transformers import (
    Affine,
    Bernoulli,
    GaussianMixture,
    MapSize,
    Transformer,
    bounded,
)
from flows.cost import Cost
from flows.families.spec import Spec, check_bound, check_choice, check_hidden, check_positive


@dataclass(frozen=True)
class MadeSpec(Spec):
    """Single MADE, a masked autoregressive network.

    Attributes:
        conditional: Density of a feature given those before it: `gaussian`, `mixture` of
            Gaussians, or `bernoulli` for columns of 0 and 1.
        components: Number of Gaussians of a mixture.
        hidden: Units of each hidden layer.
        order: Order of the features: `natural`, or `random`, drawn from the seed.
        masks: Number of masks. Above 1, training cycles through their connectivities, which share
            their weights, and a row's density is the mean over all of them.
        separate_networks: True for one network for means and one for log standard deviations.
        activation: Activation of the hidden units.
        direct: True to connect each output with the inputs before it directly, too: out =
            c + (V * M_V) h + (A * M_A) x, A strictly masked (Germain et al. 2015, section 4).
        mask_weights: True for a second matrix U beside the weights of each layer, by
            which units know the mask they are under: h = g(b + (W * M) x + (U * M) 1) (the same,
            on connectivity-agnostic training).
        log_scale_bound: Bound b of the log scales: those of the network, r, become
            `r / (1 + |r| / b)`. None leaves them as they are.
    """

    family: Literal["made"] = "made"
    conditional: Literal["gaussian", "bernoulli", "mixture"] = "gaussian"
    components: int = 10
    hidden: list[int] = field(default_factory=lambda: [512])
    order: Literal["natural", "random"] = "natural"
    masks: int = 1
    separate_networks: bool = False
    activation: ActivationName = "tanh"
    direct: bool = False
    mask_weights: bool = False
    log_scale_bound: float | None = None

    def __post_init__(self) -> None:
        check_choice("family", self.family, ("made",))
        check_choice("conditional", self.conditional, ("gaussian", "bernoulli", "mixture"))
        check_positive("components", self.components)
        check_hidden(self.hidden)
        check_choice("order", self.order, ("natural", "random"))
        check_positive("masks", self.masks)
        check_choice("activation", self.activation, get_args(ActivationName))
        if self.separate_networks and self.conditional != "gaussian":
            raise ValueError("separate_networks needs conditional gaussian")
        if self.separate_networks and self.masks > 1:
            raise ValueError("separate_networks needs masks 1")
        if self.mask_weights and self.masks == 1:
            raise ValueError("mask_weights needs masks above 1")
        check_bound("log_scale_bound", self.log_scale_bound)
        if self.log_scale_bound is not None and self.is_binary:
            raise ValueError("log_scale_bound needs a conditional with scales")

    @property
    def is_binary(self) -> bool:
        """Return whether the conditionals are Bernoulli."""
        return self.conditional == "bernoulli"

    @property
    def masks_columns(self) -> bool:
        """Return whether rows of the flow may lack features."""
        return self.conditional != "bernoulli" and self.masks == 1

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        """Return what the layer takes, or all masks of an ensemble."""
        conditioner, size = self._conditioner(context_dim), self._size()
        if self.masks > 1:
            return ensemble_cost(dim, conditioner, size, masks=self.masks)
        layer = conditioner.cost(dim, size)
        return layer if self.order == "natural" else layer + permutation_cost(dim)

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        """Return the layer, behind a permutation if the order is random."""
        conditioner, transformer = self._conditioner(context_dim), self._transformer()
        if self.masks > 1:
            return MaskEnsemble(
                dim, conditioner, transformer, masks=self.masks, generator=generator
            )
        parts: list[Bijection] = []
        if self.order == "random":
            parts.append(Permutation(torch.randperm(dim, generator=generator)))
        if isinstance(transformer, Affine):
            parts.append(Made(dim, conditioner, generator, self.log_scale_bound))
        else:
            parts.append(Autoregressive(dim, conditioner, transformer, generator))
        return Chain(parts)

    def _conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(
            self.hidden,
            self.activation,
            context_dim,
            self.separate_networks,
            direct=self.direct,
            mask_weights=self.mask_weights,
        )

    def _size(self) -> MapSize:
        match self.conditional:
            case "gaussian":
                return Affine.size
            case "mixture":
                return GaussianMixture.size(self.components)
            case "bernoulli":
                return Bernoulli.size

    def _transformer(self) -> Transformer:
        match self.conditional:
            case "gaussian":
                return Affine(self.log_scale_bound)
            case "mixture":
                return GaussianMixture(self.components, self.log_scale_bound)
            case "bernoulli":
                return Bernoulli()


class Made(Autoregressive):
    """x_i = shift_i(x_<i) + u_i exp(log_scale_i(x_<i)), in the natural order of the features.

    Papamakarios et al. 2017, equations 3 to 5, with alpha = log_scale and mu = shift.
    log|det du/dx| = -sum of log_scale.
    """

    def __init__(
        self,
        dim: int,
        conditioner: Conditioner,
        generator: torch.Generator,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__(dim, conditioner, Affine(log_scale_bound), generator)
        self.log_scale_bound = log_scale_bound

    def parameter_list(self) -> list[Tensor]:
        """Return all weights, then all biases, then the weights of the context."""
        weights, biases, _ = self.network()
        given = [] if self.context_weight is None else [self.context_weight]
        return [*weights, *biases, *given]

    def inverse_vjp(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, hand-written."""
        weights, biases, masks = self.network()
        return masked_affine_vjp(
            x,
            (weights, biases),
            masks,
            activation=ACTIVATIONS[self.conditioner.activation],
            context=self._weighted(context),
            observed=observed,
            log_scale_bound=self.log_scale_bound,
        )

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, with the pending map in its weights.

        With x = y a + b of the pending map, the same layer in terms of y reads its input through
        a and b, and has the shift (shift - b) / a and the log scale log_scale - log a. A bounded
        log scale is no output of the network that log a could be subtracted from: there the pending
        map stays a step of its own.
        """
        if self.log_scale_bound is None:
            return [self._step(pending)], pending.cleared()
        return [*pending.steps(), self._step(pending.cleared())], pending.applied()

    def _step(self, pending: Pending) -> Step:
        weights, biases = self._masked()
        context_weight: Tensor | None = self.context_weight
        activation: FoldedActivation = self.conditioner.activation
        if activation == "tanh" and len(weights) > 1:
            weights, biases = tanh_as_sigmoid(weights, biases)
            context_weight = None if context_weight is None else 2 * context_weight
            activation = "sigmoid"
        scale = pending.scale
        biases[0] = biases[0] + weights[0] @ pending.shift
        weights[0] = weights[0] * scale
        if self.conditioner.is_direct(self.dim):
            out, direct = weights[-1].tensor_split([-self.dim], dim=1)
            biases[-1] = biases[-1] + direct @ pending.shift
            weights[-1] = torch.cat([out, direct * scale], dim=1)
        rescale = torch.cat([1 / scale, torch.ones_like(scale)])
        offset = torch.cat([-pending.shift / scale, -scale.log()])
        biases[-1] = biases[-1] * rescale + offset
        weights[-1] = weights[-1] * rescale[:, None]
        return _MadeStep(
            [pending.cast(weight) for weight in weights],
            [pending.cast(bias) for bias in biases],
            context_weight=None if context_weight is None else pending.cast(context_weight),
            degrees=self._degrees(),
            activation=activation,
            transformer=Affine(self.log_scale_bound),
        )


class _MadeStep(AutoregressiveStep):
    """A folded layer, its features in natural order."""

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        *,
        context_weight: Tensor | None,
        degrees: list[Tensor],
        activation: FoldedActivation,
        transformer: Affine,
    ) -> None:
        super().__init__(
            weights,
            biases,
            context_weight=context_weight,
            degrees=degrees,
            activation=activation,
            transformer=transformer,
        )
        self._bound = transformer.log_scale_bound
        # With the signs turned in the weights, u = (x + minus_shift) exp(minus_log_scale).
        weight, bias = self._out
        self._out = -weight, -bias
        self._direct = None if self._direct is None else -self._direct

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, Columns]:
        out = self._network(x, context).view(2, *x.shape)
        minus_shift, log_det = out if observed is None else out.mul_(observed)
        log_det = bounded(log_det, self._bound)
        return minus_shift.add_(x).mul_(log_det.exp()), log_det
