"""Elementwise maps that compiled loops know, by name, each compiled when a flow first needs it."""

import functools
from typing import Any, no_type_check

from numba import cfunc, types
from numba.extending import intrinsic

from flows.engine.loop_cache import one_process
from flows.engine.maps import affine, levels, mixture, sigmoids, spline, tails
from flows.engine.maps.loops import Map, emit_run, emit_step

# mypy: ignore-errors
# numba compiles these functions by its own types.

MAPS: dict[str, Map] = {
    "affine": Map(affine.inverse, affine.forward, gradient=affine.gradient),
    "bounded-affine": Map(
        affine.bounded_inverse, affine.bounded_forward, gradient=affine.bounded_gradient
    ),
    "scaled": Map(affine.scaled_inverse, affine.scaled_forward),
    "additive": Map(affine.shift_inverse, affine.shift_forward, gradient=affine.shift_gradient),
    "spline": Map(spline.inverse, spline.forward, gradient=spline.gradient),
    "mixture": Map(mixture.inverse, mixture.forward, mixture.density, mixture.gradient),
    "sigmoids": Map(sigmoids.inverse, sigmoids.forward, gradient=sigmoids.gradient),
    "dense-sigmoids": Map(sigmoids.dense_inverse, sigmoids.dense_forward),
    "tails": Map(tails.inverse, tails.forward),
    "levels": Map(levels.density, levels.draw, gradient=levels.gradient),
    "bernoulli": Map(levels.bernoulli_density, levels.bernoulli_draw, levels.bernoulli_density),
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
    with one_process("maps"):
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
