"""Costs of layers, by arithmetic alone (`flows.cost`)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from flows.cost import FLOAT_BYTES, INDEX_BYTES, Cost, Way
from flows.errors import SpecError
from flows.specs.preprocessing import MOST_REPEATED
from flows.specs.spec import ActivationName, BatchNormSpec


def count_linear(widths: list[int]) -> int:
    """Return the number of weights and biases of affine maps between these widths."""
    return sum((below + 1) * above for below, above in pairwise(widths))


def network_cost(widths: Sequence[int], *, networks: int = 1) -> Cost:
    """Return the cost of parallel networks: weights, and activations per row.

    Args:
        widths: Units of the input, of each hidden layer and of the output.
        networks: Number of networks.
    """
    parameters = networks * count_linear(list(widths))
    hidden, out = sum(widths[1:-1]), widths[-1]
    way = Way(
        # An activation keeps its input or its output, the next layer its input.
        kept_row=FLOAT_BYTES * networks * (widths[0] + 2 * hidden + out),
        used_row=FLOAT_BYTES * (widths[0] + 4 * max(widths[1:]) + 2 * networks * out),
        operations=2 * networks * len(widths) + 8,
    )
    return Cost.both(
        way,
        parameters=parameters,
        layers=max(1, len(widths) - 2),
        width=max(widths[1:-1], default=0),
    )


def permutation_cost(dim: int) -> Cost:
    """Return the cost of a permutation of the features."""
    orders = 2 * INDEX_BYTES * dim
    way = Way(kept_row=FLOAT_BYTES * dim, used_row=4 * FLOAT_BYTES * dim)
    return Cost.both(way, buffers=orders)


def diagonal_cost(dim: int, context_dim: int) -> Cost:
    """Return the cost of the layer: shift, log scale and their context weights."""
    parameters = 2 * dim * (1 + context_dim)
    way = Way(
        kept_row=FLOAT_BYTES * (10 * dim + context_dim),
        used_row=FLOAT_BYTES * (10 * dim + context_dim),
    )
    return Cost.both(way, parameters=parameters, layers=1)


def tails_cost(dim: int) -> Cost:
    """Return the cost of the layer; its quantiles are computed in float64."""
    way = Way(kept_row=FLOAT_BYTES * 16 * dim, used_row=INDEX_BYTES * 16 * dim, operations=100)
    return Cost.both(way, parameters=2 * dim, layers=1)


def batch_norm_cost(dim: int, spec: BatchNormSpec | None) -> Cost:
    """Return the cost of a layer; None stands for no layer."""
    if spec is None:
        return Cost()
    way = Way(kept_row=4 * FLOAT_BYTES * dim, used_row=8 * FLOAT_BYTES * dim)
    return Cost.both(way, parameters=2 * dim, buffers=2 * FLOAT_BYTES * dim)


def gaussian_cost(dim: int, *, full: bool, context_dim: int = 0) -> Cost:
    """Return what a layer takes: shift and log scale, their weights, and the strict triangle."""
    lower = dim * (dim - 1) // 2 if full else 0
    indices = 2 * INDEX_BYTES * lower
    parameters = 2 * dim * (1 + context_dim) + lower
    square = FLOAT_BYTES * dim**2 if full else 0
    way = Way(
        kept=6 * square,
        kept_row=FLOAT_BYTES * (6 * dim + context_dim),
        used=6 * square,
        used_row=FLOAT_BYTES * (8 * dim + context_dim),
    )
    return Cost.both(way, parameters=parameters, layers=1, buffers=indices)


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
    places = Cost.both(way, buffers=INDEX_BYTES * dim)
    return places + network_cost([copied + context_dim, *hidden, moved], networks=networks)


# Direction that the papers' formula computes: from data, for the density, or from noise, for
# sampling.
Closed = Literal["density", "sampling"]


def layers_cost(
    layers: int, width: int, *, dim: int, context_dim: int, closed: Closed, units: int = 1
) -> Cost:
    """Return the cost of layers that are computed as one bijection.

    Without a context the parameters of all layers are made once, otherwise once per row.

    Args:
        width: Number of raw parameters of a layer, before any constraint.
        units: Number of bends of a layer.
    """
    made = FLOAT_BYTES * layers * (2 * width + 6 * dim * units + 16 * units**2)
    once, by_row = (0, made) if context_dim else (made, 0)
    used = layers * 6 * units + 6 * dim + 8 * units + 60 + context_dim

    def way(numbers: int, operations: int) -> Way:
        return Way(
            kept=once,
            kept_row=by_row + FLOAT_BYTES * (layers * numbers + context_dim),
            used=once,
            used_row=by_row + FLOAT_BYTES * used,
            operations=layers * operations,
        )

    cost = Cost(
        parameters=layers * width * (1 + context_dim),
        layers=layers,
        density=way(2 * dim + units**2 + 30 * units, 130 * units),
        sampling=way(2 * dim + 16 * units, 20),
    )
    return cost.inverted() if closed == "density" else cost


@dataclass(frozen=True)
class MapSize:
    """Sizes of a transformer, for its cost.

    Attributes:
        outputs: Number of parameters of each map.
        kept: Number of values that each map keeps for a gradient, without its parameters.
        used: Most values that each map needs while it is computed, in either direction, without its
            parameters.
        own: Number of trainable parameters that all maps share.
        operations: Time of the slower direction for one row, in small operations of a microsecond.
    """

    outputs: int
    kept: int = 4
    used: int = 8
    own: int = 0
    operations: int = 8


AFFINE_SIZE = MapSize(outputs=2, operations=4)
BERNOULLI_SIZE = MapSize(outputs=1)

# Numbers a unit that a map of sigmoids has.
SIGMOID_OUTPUTS, DENSE_SIGMOID_OUTPUTS = 3, 7
# Of a map of dense layers: their two matrices should stay in the processor's cache.
MOST_COMPILED_UNITS = 128


def mixture_size(components: int) -> MapSize:
    """Return the sizes of a mixture of Gaussians."""
    return MapSize(
        3 * components, kept=6 * components + 16, used=12 * components + 40, operations=1600
    )


def spline_size(bins: int) -> MapSize:
    """Return the sizes of a rational-quadratic spline."""
    return MapSize(3 * bins - 1, kept=6 * bins + 50, used=8 * bins + 50, operations=120)


def sigmoids_size(units: int) -> MapSize:
    """Return the sizes of a layer of sigmoids."""
    return MapSize(
        SIGMOID_OUTPUTS * units, kept=8 * units + 16, used=12 * units + 40, operations=1000
    )


def dense_sigmoids_size(units: int) -> MapSize:
    """Return the sizes of dense layers of sigmoids, and of the matrices that all share."""
    outputs, own = DENSE_SIGMOID_OUTPUTS * units, 2 * units**2
    operations = 2000 if units <= MOST_COMPILED_UNITS else 2000 + units**2 // 5
    return MapSize(
        outputs, kept=28 * units + 16, used=28 * units + 40, own=own, operations=operations
    )


def map_cost(maps: int, size: MapSize) -> Cost:
    """Return the cost of this number of maps, without the network that gives their parameters."""
    row = FLOAT_BYTES * 8 * maps
    way = Way(
        kept_row=row + FLOAT_BYTES * size.kept * maps,
        used_row=row + FLOAT_BYTES * size.used * maps,
        operations=size.operations,
    )
    return Cost.both(way)


def hidden_degrees(width: int, dim: int, *, lowest: int = 1) -> npt.NDArray[np.int64]:
    """Return ascending degrees from `lowest` to `dim - 1`, spread evenly over the units of a layer.

    Samplers rely on the order: they cut layers into ranges of units by it.

    Args:
        dim: Number of features, more than `lowest`: a single feature leaves no valid degree.
        lowest: Lowest degree: 1, or 0 if there is a context.
    """
    step, unit = (dim - 1 - lowest) / max(1, width - 1), np.arange(width)
    # Rounding is that of stored flows: the upper half counts from above.
    spread = np.where(
        unit < max(1, width // 2), lowest + step * unit, dim - 1 - step * (width - unit - 1)
    )
    return np.round(spread).astype(np.int64)


@dataclass(frozen=True)
class Conditioner:
    """Architecture of a masked network.

    Attributes:
        activation: Activation between the layers.
        context_dim: Number of context values per row, which all units see.
        separate: True for a network of that size for each output of a feature.
        direct: True if outputs see earlier inputs also without hidden units between (Germain et al.
            2015, section 4: the matrix A); these are the last columns of the last weights.
        mask_weights: True for a second matrix beside the weights of each layer, by which units know
            their own masks, where there are several (`flows.bijections.autoregressive.mask_ensemble`).
    """

    hidden: list[int]
    activation: ActivationName
    context_dim: int = 0
    separate: bool = False
    direct: bool = False
    mask_weights: bool = False

    def degrees(self, dim: int, outputs: int) -> list[npt.NDArray[np.int64]]:
        """Return the degrees of inputs and hidden layers; one feature has no hidden layers."""
        lowest, inputs = 0 if self.context_dim else 1, np.arange(1, dim + 1)
        if dim <= lowest:
            return [inputs]
        repeats = outputs if self.separate else 1
        hidden = [hidden_degrees(width, dim, lowest=lowest) for width in self.hidden]
        return [inputs, *(layer.repeat(repeats) for layer in hidden)]

    def is_direct(self, dim: int) -> bool:
        """Return True if there are direct connections; a single feature has none."""
        return self.direct and dim > 1

    def widths(self, dim: int, outputs: int) -> list[int]:
        """Return the numbers of units of the input, of each hidden layer and of the output."""
        repeats = outputs if self.separate else 1
        hidden = [] if dim == 1 and self.context_dim == 0 else [w * repeats for w in self.hidden]
        return [dim, *hidden, outputs * dim]

    def count_weights(self, dim: int, outputs: int) -> int:
        """Return the number of weights between the layers, masked ones included, without biases."""
        widths = self.widths(dim, outputs)
        weights = sum(below * above for below, above in pairwise(widths))
        return weights + (outputs * dim * dim if self.is_direct(dim) else 0)

    def cost(self, dim: int, size: MapSize) -> Cost:
        """Return the cost of an autoregressive layer of this network."""
        widths, weights = self.widths(dim, size.outputs), self.count_weights(dim, size.outputs)
        own = weights + size.own + (self.context_dim * widths[1] if self.context_dim else 0)
        hidden, out, single = sum(widths[1:-1]), widths[-1], 2 * dim + self.context_dim
        density = Way(
            kept=FLOAT_BYTES * (own + 8 * size.own),
            # An activation keeps its input or its output, the next layer its input.
            kept_row=FLOAT_BYTES * (single + 2 * hidden + out + size.kept * dim),
            used=FLOAT_BYTES * (own + 4 * size.own),
            used_row=FLOAT_BYTES * (2 * single + 3 * max(widths[:-1]) + 2 * out + size.used * dim),
            operations=3 * len(widths) + size.operations,
        )
        # A pass for each feature; compiled loops take less.
        sampling = Way(
            kept=dim * density.kept,
            kept_row=dim * (density.kept_row - FLOAT_BYTES * size.kept * (dim - 1)),
            used=density.used,
            used_row=density.used_row + 2 * FLOAT_BYTES * dim,
            operations=dim * density.operations,
        )
        return Cost(
            parameters=own + (weights if self.mask_weights else 0) + sum(widths[1:]),
            layers=max(1, len(self.hidden)),
            width=max(self.hidden),
            buffers=FLOAT_BYTES * own,
            density=density,
            sampling=sampling,
        )


# A sample draws one mask for each row; this many rows are a block of noise.
SAMPLED_ROWS = 64


def ensemble_cost(dim: int, conditioner: Conditioner, size: MapSize, *, masks: int) -> Cost:
    """Return the cost of a network with this number of masks."""
    network = conditioner.cost(dim, size)
    weights = conditioner.count_weights(dim, size.outputs)
    widths = conditioner.widths(dim, size.outputs)
    members = masks * INDEX_BYTES * sum(widths[:-1])
    # Masks as bits and as numbers, their products with the weights, and those of `mask_weights`.
    drawn = 4 * FLOAT_BYTES * weights * (2 if conditioner.mask_weights else 1)
    rows = 2 * FLOAT_BYTES * masks
    return Cost(
        parameters=network.parameters,
        layers=network.layers,
        width=network.width,
        buffers=members,
        density=Way(
            kept=network.density.kept + drawn,
            kept_row=network.density.kept_row,
            used=network.density.used + drawn,
            used_row=network.density.used_row + rows,
            operations=masks * network.density.operations,
        ),
        sampling=Way(
            kept=network.sampling.kept + dim * drawn,
            kept_row=network.sampling.kept_row,
            used=network.sampling.used + drawn,
            used_row=network.sampling.used_row + rows + 8 * FLOAT_BYTES * dim,
            operations=min(masks, SAMPLED_ROWS) * network.sampling.operations,
        ),
    )


@dataclass(frozen=True)
class Group:
    """Variables whose softmaxes are computed together, each padded to `width` outputs."""

    variables: list[int]
    width: int
    start: int

    @property
    def outputs(self) -> slice:
        return slice(self.start, self.start + len(self.variables) * self.width)


def level_groups(sizes: Sequence[int]) -> list[Group]:
    """Return the groups: variables of about as many levels, so that little is padded."""
    found: dict[int, list[int]] = defaultdict(list)
    for variable, size in enumerate(sizes):
        found[1 << (size - 1).bit_length()].append(variable)
    groups, start = [], 0
    for width, variables in sorted(found.items()):
        groups.append(Group(variables, width, start))
        start += len(variables) * width
    return groups


def categorical_cost(
    sizes: Sequence[int], hidden: list[int], context_dim: int, *, tree: bool = False
) -> Cost:
    """Return the cost of a `CategoricalMade` with its one-hot inputs; no variables, no cost."""
    if not sizes:
        return Cost()
    if tree and len(hidden) == 1 and len(sizes) > 1:
        hidden = [hidden[0] + sum(sizes[:-1])]
    slots = sum(sizes)
    outputs = sum(len(group.variables) * group.width for group in level_groups(sizes))
    plain = len(sizes) == 1 and context_dim == 0
    widths = [0, outputs] if plain else [slots, *hidden, outputs]
    pairs = [below * above for below, above in pairwise(widths)]
    context = 0 if plain else context_dim * widths[1] if context_dim else 0
    weights, units = sum(pairs), sum(widths[1:-1])
    row = FLOAT_BYTES * (2 * slots + context_dim + 12 * len(sizes))
    once = FLOAT_BYTES * (weights + context)
    density = Way(
        kept=once,
        kept_row=row + FLOAT_BYTES * (2 * units + 4 * outputs),
        used=once,
        used_row=row + FLOAT_BYTES * (3 * max(widths[:-1]) + 4 * outputs),
        operations=3 * len(widths) + 12 * 24,
    )
    sampling = Way(
        kept=2 * once,
        kept_row=row + FLOAT_BYTES * (2 * units + 4 * outputs),
        used=2 * once,
        used_row=row + FLOAT_BYTES * (3 * units + 4 * outputs),
        operations=len(sizes) * (10 + 8 * len(hidden)),
    )
    return Cost(
        parameters=weights + context + sum(widths[1:]),
        layers=max(1, len(hidden)),
        width=max(hidden),
        buffers=FLOAT_BYTES * (weights + outputs) + 2 * INDEX_BYTES * (slots + units + outputs),
        density=density,
        sampling=sampling,
    )


def preprocessing_cost(dim: int, context_dim: int) -> Cost:
    """Return the cost of all preprocessing layers and of the rows in float64."""
    way = Way(
        kept_row=FLOAT_BYTES * 2 * (dim + context_dim),
        used_row=INDEX_BYTES * (12 * dim + 6 * context_dim + 16),
    )
    return Cost.both(
        way, buffers=6 * INDEX_BYTES * (dim + context_dim) + 2 * MOST_REPEATED * INDEX_BYTES * dim
    )
