"""Layers of a flow as references to its weights: what compiled loops (`flows.engine`) read of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.specs.costs import mixture_size, spline_size

LEAST_SIZE = 1e-3
"""Least width and height of a spline's bin, as parts of the whole."""

Integers = npt.NDArray[np.int64]
Weight = Any
"""Weights: tensors, which training moves, or arrays of NumPy, which serving reads."""


@dataclass(frozen=True)
class MapSpec:
    """Elementwise map whose parameters come from a layer's networks.

    Attributes:
        kind: Name of the map, as engines know it.
        outputs: Number of parameters of a feature.
        numbers: Further numbers that the maps of all features share.
        own_density: True if its density is not just its inverse and the Gaussian density.
        scratch: Number of values of a row that it keeps while it maps a feature.
    """

    kind: str
    outputs: int
    numbers: tuple[float, ...] = ()
    own_density: bool = False
    scratch: int = 0


AFFINE, ADDITIVE = MapSpec("affine", 2), MapSpec("additive", 1)
# u = (x - shift) slope, with slope and log slope for parameters.
SCALED = MapSpec("scaled", 3)


def affine_map(log_scale_bound: float | None) -> MapSpec:
    """Return the affine map, with a bound of the log scale or without."""
    if log_scale_bound is None:
        return AFFINE
    return MapSpec("bounded-affine", 2, (log_scale_bound,))


def mixture_map(components: int, log_scale_bound: float | None) -> MapSpec:
    """Return the map of a mixture of Gaussians."""
    numbers = float(components), 0.0 if log_scale_bound is None else 1 / log_scale_bound
    return MapSpec("mixture", mixture_size(components).outputs, numbers, own_density=True)


def spline_map(bins: int, tail_bound: float) -> MapSpec:
    """Return the map of rational-quadratic splines, none of whose bins has less than `LEAST_SIZE` of the whole."""
    # Softmax plus this, times the bins' total, are the sizes.
    floor = LEAST_SIZE / (1 - LEAST_SIZE * bins)
    numbers = float(bins), float(tail_bound), floor, 1 + floor * bins
    return MapSpec("spline", spline_size(bins).outputs, numbers)


@dataclass(frozen=True)
class LayerNetwork:
    """Network of a layer.

    Attributes:
        weights: Weights of its layers, a line each unit. The first ones read the features and, if the
            context has no weights of its own, then the context; the units of the last ones are the
            first parameters of all features, then the second ones, and so on.
        biases: Biases of its layers, those of each as parts that follow each other.
        activation: Activation between its layers.
        context: Weights of the context in the first layer, of their own.
        masks: Masks of the weights; None without any.
    """

    weights: list[Weight]
    biases: list[Sequence[Weight]]
    activation: str
    context: Weight | None = None
    masks: list[Weight] | None = None


@dataclass(frozen=True)
class NetworkLayer:
    """Layer whose networks read features and give the parameters of elementwise maps.

    Attributes:
        networks: One network of all parameters, or one for each.
        map: Map of each feature.
        context: Number of context values that the networks read.
        degrees: Degrees of the inputs and the hidden layers of a masked layer, in ascending order; None
            if the layer is a coupling.
        copied: Number of features that a coupling copies: its networks read them and map the rest.
        places: Position of each feature in the order in which the layer takes them; None if it is
            their own.
        mapped: Number of features that a masked layer reads and maps, the first ones; None for all.
        inverted: True if its directions are swapped.
        outputs: Units of the parameters of each feature, if these are not in the order above.
        norm: Batch norm of whose stored statistics its parameters are made.
    """

    networks: list[LayerNetwork]
    map: MapSpec
    context: int = 0
    degrees: list[Integers] | None = None
    copied: int = 0
    places: Integers | None = None
    mapped: int | None = None
    inverted: bool = False
    outputs: list[slice] | None = None
    norm: object = None

    def reads(self, dim: int) -> int:
        """Return how many of so many features the networks read, the first ones."""
        if self.degrees is None:
            return self.copied
        return dim if self.mapped is None else self.mapped

    def turned(self) -> "NetworkLayer":
        """Return the layer with its directions swapped."""
        return replace(self, inverted=not self.inverted)


@dataclass(frozen=True)
class Reordering:
    """Permutation of the features, from data to noise: u = x[order]."""

    order: Integers

    def turned(self) -> "Reordering":
        """Return the opposite permutation."""
        return Reordering(np.argsort(self.order))


def elementwise(
    parameters: Sequence[Weight],
    spec: MapSpec = AFFINE,
    *,
    context_weight: Weight | None = None,
) -> NetworkLayer:
    """Return a map of all features as a layer that reads no feature.

    Args:
        parameters: Each parameter of the map, of all features: of an affine one, shift and log scale.
        spec: Map of each feature.
        context_weight: Weights by which a context is added to the parameters, one after another.
    """
    nothing = np.zeros((sum(map(len, parameters)), 0), np.float32)
    network = LayerNetwork([nothing], [parameters], "relu", context_weight)
    context = 0 if context_weight is None else context_weight.shape[1]
    return NetworkLayer([network], spec, context=context)


def within(
    layers: Sequence[NetworkLayer | Reordering], features: Integers, dim: int
) -> list[NetworkLayer | Reordering] | None:
    """Return layers of some of the features as layers of all; None for those that are not masked.

    Args:
        layers: Layers of as many features as are named.
    """
    found: list[NetworkLayer | Reordering] = []
    others = np.setdiff1d(np.arange(dim), features)
    places = np.argsort(np.concatenate([features, others]))
    for layer in layers:
        if isinstance(layer, Reordering):
            order = np.arange(dim)
            order[features] = features[layer.order]
            found.append(Reordering(order))
        elif layer.degrees is not None and layer.places is None:
            found.append(replace(layer, places=places, mapped=len(features)))
        else:
            return None
    return found
