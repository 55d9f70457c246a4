"""Layers of a flow, and what stands beside its features, as compiled loops lay them out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from flows.bijections.network_layers import NetworkLayer, Reordering, Weight

Singles = npt.NDArray[np.float32]


Doubles = npt.NDArray[np.float64]


Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Description:
    """Layers of a flow, and what stands beside its features.

    A layer takes the features in an order of its own: of a coupling, the copied ones come first.

    Attributes:
        dim: Number of features.
        context_dim: Number of context values.
        layers: Layers, from the data to the noise.
        places: Position of each feature of the data in the order of the first layer; then, of each
            feature of a layer, in the order of the next one or, after the last, in the noise.
        origins: Number that each feature of a layer has in the data; then of the noise.
        levels: Layer of the levels of discrete variables, if there are any. The other layers then read
            all levels, one-hot, before the context.
        level_numbers: Numbers of levels, and the logarithms that are added for seen and unseen ones.
        states: Variable whose index 0 says that a feature is observed, -1 for none; None if all
            always are.
        projection: Weights of what the other layers read in the place of the levels.
    """

    dim: int
    context_dim: int
    layers: list[NetworkLayer]
    places: list[Integers]
    origins: list[Integers]
    levels: NetworkLayer | None = None
    level_numbers: Singles = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    states: Integers | None = None
    projection: Weight | None = None

    @property
    def variables(self) -> int:
        """Number of discrete variables."""
        return len(self.level_numbers)

    @property
    def slots(self) -> int:
        """Number of levels of all variables."""
        return int(self.level_numbers[:, 0].sum())


def arrange(
    listed: Sequence[NetworkLayer | Reordering], dim: int, context_dim: int, *, own_density: bool
) -> Description:
    """Return layers with the places of the features in them.

    Args:
        listed: Layers and reorderings, from the data to the noise.
        own_density: True if the last layer's density is not just its inverse and the Gaussian density.
    """
    layers: list[NetworkLayer] = []
    places: list[Integers] = [np.arange(dim)]
    for layer in listed:
        if isinstance(layer, Reordering):
            places[-1] = np.argsort(layer.order)[places[-1]]
            continue
        layers.append(layer)
        own = np.arange(dim) if layer.places is None else layer.places
        places[-1] = own[places[-1]]
        places.append(np.argsort(own))
    origins = [np.arange(dim)]
    for to in places:
        # The feature that was at i now is at to[i].
        origins.append(origins[-1][np.argsort(to)])
    layers = _with_one_density(layers, last=own_density)
    return Description(dim, context_dim, layers, places, origins[1:])


def _with_one_density(layers: list[NetworkLayer], *, last: bool) -> list[NetworkLayer]:
    """Return the layers of which the last alone may have a density of its own."""
    whole = len(layers) - 1 if last else len(layers)
    plain = [replace(one, map=replace(one.map, own_density=False)) for one in layers[:whole]]
    return [*plain, *layers[whole:]]
