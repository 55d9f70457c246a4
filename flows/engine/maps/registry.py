"""Elementwise maps that compiled loops know, by name, each compiled when a flow first needs it."""

import functools
from typing import Any, no_type_check

from numba import cfunc, types
from numba.extending import intrinsic

from flows.engine.maps.affine import (
    affine_forward,
    affine_inverse,
    bounded_forward,
    bounded_inverse,
    pull_affine,
    pull_bounded,
    pull_shift,
    scaled_forward,
    scaled_inverse,
    shift_forward,
    shift_inverse,
)
from flows.engine.maps.levels import (
    bernoulli_density,
    bernoulli_draw,
    level_density,
    level_draw,
    pull_levels,
)
from flows.engine.maps.loops import Map, emit_run, emit_step
from flows.engine.maps.mixture import (
    mixture_density,
    mixture_forward,
    mixture_inverse,
    pull_mixture,
)
from flows.engine.maps.sigmoids import (
    dense_forward,
    dense_inverse,
    pull_sigmoids,
    sigmoids_forward,
    sigmoids_inverse,
)
from flows.engine.maps.spline import pull_spline, spline_forward, spline_inverse
from flows.engine.maps.tails import tails_forward, tails_inverse

# mypy: ignore-errors
# numba compiles these functions by its own types.

MAPS: dict[str, Map] = {
    "affine": Map(affine_inverse, affine_forward, gradient=pull_affine),
    "bounded-affine": Map(bounded_inverse, bounded_forward, gradient=pull_bounded),
    "scaled": Map(scaled_inverse, scaled_forward),
    "additive": Map(shift_inverse, shift_forward, gradient=pull_shift),
    "spline": Map(spline_inverse, spline_forward, gradient=pull_spline),
    "mixture": Map(mixture_inverse, mixture_forward, mixture_density, pull_mixture),
    "sigmoids": Map(sigmoids_inverse, sigmoids_forward, gradient=pull_sigmoids),
    "dense-sigmoids": Map(dense_inverse, dense_forward),
    "tails": Map(tails_inverse, tails_forward),
    "levels": Map(level_density, level_draw, gradient=pull_levels),
    "bernoulli": Map(bernoulli_density, bernoulli_draw, bernoulli_density),
}

_SIGNATURE = types.void(types.int64)


@intrinsic(prefer_literal=True)
@no_type_check
def _emitted(_, number, trains, words):
    """Emit the map of this number, or its step."""
    own, emit = list(MAPS.values())[number.literal_value], emit_run
    if trains.literal_value:
        emit = emit_step

    def generate(context, builder, _signature, args):
        emit(own, builder, args[2])
        return context.get_dummy_value()

    return types.void(number, trains, words), generate


@no_type_check
def _function(number: int, trains: int) -> Any:
    # What a function encloses tells numba's cache one map from the other.
    def run(words):
        _emitted(number, trains, words)

    return run


@functools.cache
def map_address(kind: str) -> int | None:
    """Return the address of a map (`emit_run`); None if there is none of this name."""
    return _address(kind, 0) if kind in MAPS else None


@functools.cache
def step_address(kind: str) -> int | None:
    """Return the address of a map in a training step (`emit_step`); None if it has no gradient."""
    known = kind in MAPS and MAPS[kind].gradient is not None
    return _address(kind, 1) if known else None


def compile_all() -> None:
    """Compile all maps, for numba's cache."""
    for kind in MAPS:
        map_address(kind)
        step_address(kind)


# What is compiled must outlive its address.
_compiled: list[Any] = []


def _address(kind: str, trains: int) -> int:
    """Return the address of a function, which is compiled or read from numba's cache."""
    function = _function(list(MAPS).index(kind), trains)
    try:
        compiled = cfunc(_SIGNATURE, cache=True)(function)
    except RuntimeError:  # no folder to cache in: compile in every process
        compiled = cfunc(_SIGNATURE)(function)
    _compiled.append(compiled)
    address: int = compiled.address
    return address
