"""Probabilities of several categorical variables: a masked autoregressive network."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.bijections.autoregressive.masked import (
    MaskedLinear,
    hidden_mask,
    output_mask,
    run_masked,
)
from flows.bijections.linear import uniform
from flows.bijections.network_layers import LayerNetwork, MapSpec, NetworkLayer
from flows.mixed.trees import log_frequencies, pair_gains, parents_in_order, smoothed_log_table
from flows.specs.columns import UNSEEN
from flows.specs.costs import hidden_degrees, level_groups
from flows.specs.spec import ActivationName

# Factor of the initial output weights: the frequencies hold whatever the other variables are.
INITIAL_OUTPUT = 0.1

Indices = Float[Tensor, "batch variables"]
"""Indices of levels, as floats; those that are no level are `UNSEEN`, `HIDDEN` or NaN."""


def one_hot(
    indices: Indices,
    sizes: Int[Tensor, " variables"],
    starts: Int[Tensor, " variables"],
    slots: int,
) -> Float[Tensor, "batch slots"]:
    """Return 1 in the slot of each variable's level; a variable without a level has none.

    Args:
        indices: Indices of the levels.
        sizes: Number of levels of each variable.
        starts: First slot of each variable.
        slots: Number of slots of all variables.
    """
    known = (indices >= 0) & (indices < sizes)
    places = torch.where(known, indices, 0).long() + starts
    result = indices.new_zeros(indices.shape[0], slots)
    return result.scatter_(1, places, known.to(indices.dtype))


class CategoricalMade(nn.Module):
    """P(d) as the product of P(d_i | d_<i, context), each a softmax (Germain et al. 2015).

    The inputs are one-hot, and all of a variable share its degree; the outputs of a variable are the
    logits of its levels. The logarithms cost 1 pass.

    Attributes:
        sizes: Number of levels of each variable.
        starts: First input of each variable.
    """

    sizes: Tensor
    starts: Tensor
    padding: Tensor
    places: Tensor

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: list[int],
        activation: ActivationName,
        context_dim: int,
        tree: bool = False,
        generator: torch.Generator,
    ) -> None:
        """Initialise an untrained network.

        Args:
            sizes: Number of levels of each variable, of which there is at least one.
            hidden: Number of units of each hidden layer.
            activation: Activation between the layers.
            context_dim: Number of values per row that condition the variables.
            tree: True for units that repeat the levels of all variables but the last one, by which
                the network can begin at a tree of tables of pairs; it needs one hidden layer of ReLU.
            generator: Generator of the initial weights.
        """
        super().__init__()
        self._is_tree = tree and repeats_levels(hidden, activation)
        self.activation = activation
        self.slots, self.context_dim = sum(sizes), context_dim
        self._groups = level_groups(sizes)
        ends = list(accumulate(sizes))
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)
        self.register_buffer("starts", torch.tensor([0, *ends[:-1]]), persistent=False)
        self.register_buffer("padding", self._padding(sizes), persistent=False)
        grouped = [variable for group in self._groups for variable in group.variables]
        self.register_buffer("places", torch.tensor(grouped).argsort(), persistent=False)
        self.degrees = self._degrees(sizes, hidden)
        self.layers = nn.ModuleList(self._layers(hidden, generator))
        self.context_weight: nn.Parameter | None = None
        if context_dim:
            shape = (len(self.degrees[1]), context_dim)
            self.context_weight = nn.Parameter(
                uniform(shape, fan_in=context_dim, generator=generator)
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *further: object
    ) -> None:
        """Load the weights; an earlier model of a single variable has some that see nothing."""
        weight = state_dict.get(f"{prefix}layers.0.weight")
        if weight is not None and not len(self.degrees[0]):
            state_dict[f"{prefix}layers.0.weight"] = weight[:, :0]
        super()._load_from_state_dict(state_dict, prefix, *further)

    def first_weight(self) -> Tensor:
        """Return the weights that read the levels, one-hot; a single variable's read none."""
        return self._linear_layers()[0].weight

    @torch.no_grad()
    def set_frequencies(self, indices: Indices) -> None:
        """Set the output biases to the log frequencies of the levels.

        The biases of the first variables are all that these have; by steps of Adam they would take
        thousands of batches to get there. A network with units that repeat levels begins at the tree of
        Chow and Liu (1968), the parents of whose variables are before them.

        Args:
            indices: Indices of the levels of training rows.
        """
        out = self._linear_layers()[-1]
        out.weight.mul_(0.0 if self._is_tree else INITIAL_OUTPUT)
        sizes: list[int] = self.sizes.tolist()
        for variable, outputs in enumerate(self.outputs()):
            alone = log_frequencies(indices[:, variable], sizes[variable])
            out.bias[outputs] = alone.to(out.bias)
        if not self._is_tree or len(sizes) == 1:
            return
        first, units = self._linear_layers()[0], self._repeating_units(sizes)
        first.weight[units] = 0.0
        first.weight[units, torch.arange(len(units))] = 1.0
        first.bias[units] = 0.0
        if self.context_weight is not None:
            self.context_weight[units] = 0.0
        parents = parents_in_order(pair_gains(indices, sizes))
        for variable, (parent, outputs) in enumerate(zip(parents, self.outputs(), strict=True)):
            if parent < 0:
                continue
            pair = indices[:, variable], indices[:, parent]
            table = smoothed_log_table(*pair, (sizes[variable], sizes[parent]))
            start = int(self.starts[parent])
            above = table - out.bias[outputs].to(table)
            out.weight[outputs, units[start : start + sizes[parent]]] = above.t().to(out.weight)

    def _repeating_units(self, sizes: Sequence[int]) -> Int[Tensor, " slots"]:
        """Return the hidden units that repeat the levels, in the order of their slots."""
        repeated = sum(sizes[:-1])
        free = len(self.degrees[1]) - repeated
        order = self._unordered(sizes, free).argsort(stable=True)
        return order.argsort()[free:]

    def _unordered(self, sizes: Sequence[int], free: int) -> Int[Tensor, " width"]:
        """Return the degrees of free hidden units, then of those that repeat levels."""
        degrees = torch.from_numpy(
            hidden_degrees(free, len(sizes), lowest=0 if self.context_dim else 1)
        )
        if not self._is_tree:
            return degrees
        own = torch.arange(1, len(sizes)).repeat_interleave(torch.tensor(sizes[:-1]))
        return torch.cat([degrees, own])

    def log_prob(
        self,
        indices: Indices,
        inputs: Float[Tensor, "batch slots"],
        context: Float[Tensor, "batch context_dim"] | None = None,
    ) -> Float[Tensor, "batch variables"]:
        """Return log P(d_i | d_<i, context) of each variable; 0 where the index is no level.

        Args:
            indices: Indices of the levels.
            inputs: The same one-hot.
            context: Values that condition the variables.
        """
        out = self._logits(inputs, context)
        known = (indices >= 0) & (indices < self.sizes)
        chosen = torch.where(known, indices, 0).long()
        terms = []
        for group in self._groups:
            logits = out[:, group.outputs].view(out.shape[0], len(group.variables), group.width)
            found = logits.gather(2, chosen[:, group.variables, None])[..., 0]
            terms.append(found - logits.logsumexp(dim=2))
        return torch.where(known, torch.cat(terms, dim=1).index_select(1, self.places), 0.0)

    def _logits(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """Return the outputs of the network; those of the padding are minus infinity."""
        layers = self._linear_layers()
        weights = [layer.masked_weight() for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers]
        inputs, first = inputs[:, : len(self.degrees[0])], self._added(context)
        out = run_masked(inputs, weights, biases, activation=self.activation, first=first)
        return out + self.padding

    @torch.no_grad()
    def sample(
        self,
        u: Float[Tensor, "batch variables"],
        context: Float[Tensor, "batch context_dim"] | None = None,
    ) -> Indices:
        """Map standard Gaussian noise to levels, by the inverse of their distribution functions.

        It takes a pass for each variable; compiled loops compute each hidden unit once.
        """
        uniforms, result = torch.special.ndtr(u), torch.full_like(u, UNSEEN)
        for variable, outputs in enumerate(self.outputs()):
            inputs = one_hot(result, self.sizes, self.starts, self.slots)
            probabilities = torch.softmax(self._logits(inputs, context)[:, outputs], dim=-1)
            ends = probabilities.cumsum(dim=-1)[:, :-1]
            level = (ends <= uniforms[:, variable, None]).sum(dim=1)
            result[:, variable] = level.to(u.dtype)
        return result

    def network_layer(self) -> NetworkLayer:
        """Return weights and degrees; a single variable sees nothing and reads no level."""
        layers = self._linear_layers()
        network = LayerNetwork(
            [layer.weight for layer in layers],
            [[layer.bias] for layer in layers],
            self.activation,
            self.context_weight,
            [layer.mask for layer in layers],
        )
        return NetworkLayer(
            [network],
            MapSpec("levels", 0),
            context=self.context_dim,
            degrees=[one.numpy() for one in self.degrees],
            outputs=self.outputs(),
        )

    def outputs(self) -> list[slice]:
        """Return the outputs of each variable, without padding."""
        found = [slice(0)] * len(self.sizes)
        sizes: list[int] = self.sizes.tolist()
        for group in self._groups:
            for place, variable in enumerate(group.variables):
                start = group.start + place * group.width
                found[variable] = slice(start, start + sizes[variable])
        return found

    def _padding(self, sizes: Sequence[int]) -> Tensor:
        """Return 0 for the outputs of levels, and minus infinity for the others."""
        return torch.cat(
            [
                torch.where(torch.arange(group.width) < sizes[variable], 0.0, -torch.inf)
                for group in self._groups
                for variable in group.variables
            ]
        )

    def _degrees(self, sizes: Sequence[int], hidden: list[int]) -> list[Tensor]:
        numbers = torch.arange(1, len(sizes) + 1)
        lowest = 0 if self.context_dim else 1
        inputs = numbers.repeat_interleave(torch.tensor(sizes))
        if len(sizes) <= lowest:
            return [inputs[:0]]  # a single variable has biases alone
        if len(sizes) == 1:
            return [
                inputs,
                *(torch.from_numpy(hidden_degrees(w, 1, lowest=lowest)) for w in hidden),
            ]
        return [inputs, *(self._unordered(sizes, width).sort().values for width in hidden)]

    def _layers(self, hidden: list[int], generator: torch.Generator) -> list[MaskedLinear]:
        degrees = [
            (torch.tensor(group.variables) + 1).repeat_interleave(group.width)
            for group in self._groups
        ]
        masks = [hidden_mask(upper, lower) for lower, upper in pairwise(self.degrees)]
        masks.append(output_mask(torch.cat(degrees), self.degrees[-1]))
        # As many inputs are 1 as there are variables.
        widths = [len(self.sizes), *hidden]
        return [
            MaskedLinear(mask, generator, fan_in=width)
            for mask, width in zip(masks, widths, strict=False)
        ]

    def _linear_layers(self) -> list[MaskedLinear]:
        return [layer for layer in self.layers if isinstance(layer, MaskedLinear)]

    def _masked(self) -> tuple[list[Tensor], list[Tensor]]:
        layers = self._linear_layers()
        return [layer.weight * layer.mask for layer in layers], [layer.bias for layer in layers]

    def _added(self, context: Tensor | None) -> Tensor | None:
        if self.context_weight is None or context is None:
            return None
        return F.linear(context, self.context_weight)


def repeats_levels(hidden: list[int], activation: ActivationName) -> bool:
    """Return whether a network can repeat levels: one layer of ReLU passes 0 and 1 on."""
    return len(hidden) == 1 and activation == "relu"
