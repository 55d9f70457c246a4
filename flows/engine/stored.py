"""Layers of stored flows for compiled loops, from the arrays of a file: without PyTorch.

What stands here for the layers of a family, in `flows.families` its modules do; a law of the tests holds
both together. Families and options that are not here are built with PyTorch.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flows.bijections.network_layers import (
    SCALED,
    LayerNetwork,
    MapSpec,
    NetworkLayer,
    Reordering,
    affine_map,
    elementwise,
    mixture_map,
    spline_map,
)
from flows.engine.description import Description, Doubles, arrange
from flows.specs.costs import Conditioner
from flows.specs.made import MadeSpec
from flows.specs.maf import MafSpec
from flows.specs.nsf import NsfSpec
from flows.specs.spec import BATCH_NORM_EPS, Spec

Stored = Mapping[str, npt.NDArray[np.generic]]
Part = Callable[["_Weights"], NetworkLayer | Reordering]


class _Weights:
    """Numbers of one layer by their names, in float64."""

    def __init__(self, stored: Stored, prefix: str) -> None:
        self._stored, self._prefix = stored, prefix

    def __call__(self, name: str) -> Doubles:
        return np.asarray(self._stored[self._prefix + name], np.float64)


def describe_stored(spec: Spec, dim: int, stored: Stored) -> Description | None:
    """Return the layers of an unconditional flow that is stored; None if they are not known without PyTorch.

    Args:
        stored: Numbers of its bijection by their names.

    Raises:
        LookupError, ValueError: The numbers are not those of such a flow.
    """
    parts = _parts(spec, dim)
    if parts is None or spec.encoder is not None:
        return None
    layers = [part(_Weights(stored, f"layers.{number}.")) for number, part in enumerate(parts)]
    last = layers[-1]
    own_density = isinstance(last, NetworkLayer) and last.map.own_density
    return arrange(layers, dim, 0, own_density=own_density)


def _parts(spec: Spec, dim: int) -> list[Part] | None:
    match spec:
        case MafSpec():
            return _maf(spec, dim)
        case NsfSpec(coupling=False, linear=False, tails=False):
            return _nsf(spec, dim)
        case MadeSpec(masks=1, direct=False, separate_networks=False) if not spec.is_binary:
            return _made(spec, dim)
        case _:
            return None


def _maf(spec: MafSpec, dim: int) -> list[Part] | None:
    if spec.tails:
        return None
    conditioner = Conditioner(spec.hidden, spec.activation)
    between = partial(_reversed, dim) if spec.order == "reverse" else _permuted
    parts: list[Part] = []
    for layer in range(spec.layers):
        parts += [between] if layer > 0 else []
        parts.append(partial(_masked, conditioner, affine_map(spec.log_scale_bound), dim))
        parts += [] if spec.batch_norm is None else [_batch_norm]
    if spec.base == "made_mixture":
        mixture = mixture_map(spec.components, spec.log_scale_bound)
        parts += [between, partial(_masked, conditioner, mixture, dim)]
    return parts


def _nsf(spec: NsfSpec, dim: int) -> list[Part]:
    affine, spline = affine_map(None), spline_map(spec.bins, spec.tail_bound)
    made = partial(_masked, spec.affine_conditioner(0), affine, dim)
    parts: list[Part] = [made, partial(_reversed, dim)] * spec.affine_layers
    for layer in range(spec.layers):
        parts += [partial(_reversed, dim)] if layer > 0 else []
        parts.append(partial(_masked, spec.conditioner(0), spline, dim))
    return parts


def _made(spec: MadeSpec, dim: int) -> list[Part]:
    bound = spec.log_scale_bound
    is_mixture = spec.conditional == "mixture"
    mapped = mixture_map(spec.components, bound) if is_mixture else affine_map(bound)
    layer = partial(_masked, spec.conditioner(0), mapped, dim)
    return [layer] if spec.order == "natural" else [_permuted, layer]


def _masked(conditioner: Conditioner, spec: MapSpec, dim: int, of: _Weights) -> NetworkLayer:
    degrees = conditioner.degrees(dim, spec.outputs)
    masks = [above[:, None] >= below for below, above in pairwise(degrees)]
    masks.append(np.tile(degrees[0][:, None] > degrees[-1], (spec.outputs, 1)))
    weights = [of(f"layers.{number}.weight") for number in range(len(masks))]
    biases = [of(f"layers.{number}.bias") for number in range(len(masks))]
    for weight, bias, mask in zip(weights, biases, masks, strict=True):
        if weight.shape != mask.shape or bias.shape != mask.shape[:1]:
            raise ValueError("the weights are not those of the flow")
    network = LayerNetwork(
        weights, [[bias] for bias in biases], conditioner.activation, masks=list(masks)
    )
    return NetworkLayer([network], spec, degrees=degrees)


def _batch_norm(of: _Weights) -> NetworkLayer:
    log_slope = of("log_gain") - 0.5 * np.log(of("var") + BATCH_NORM_EPS)
    slope = np.exp(log_slope)
    shift = of("mean") - of("offset") * np.exp(-log_slope)
    return elementwise([shift, slope, log_slope], SCALED)


def _reversed(dim: int, _of: _Weights) -> Reordering:
    return Reordering(np.arange(dim)[::-1])


def _permuted(of: _Weights) -> Reordering:
    order = of("order").astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError("an order names each feature once")
    return Reordering(order)
