"""Elementwise maps of compiled flows: one function each, compiled when a flow first needs it.

A map takes the parameters of one feature and its values in all rows of a tile, and returns the mapped
values and the logarithms of the slopes. The layers' loops call it by its address.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, no_type_check

from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

from flows.compiled.loops import loop_cache
from flows.compiled.loops.features import Feature
from flows.compiled.loops.micro_kernels import ARGUMENTS, LANES
from flows.compiled.loops.mixture_maps import (
    bernoulli_density,
    bernoulli_draw,
    level_density,
    level_draw,
    mixture_density,
    mixture_forward,
    mixture_inverse,
)
from flows.compiled.loops.sigmoid_maps import (
    dense_forward,
    dense_inverse,
    sigmoids_forward,
    sigmoids_inverse,
)
from flows.compiled.loops.tail_maps import tails_forward, tails_inverse
from flows.compiled.loops.vectors import WORD, Emitter, Vector, exp, log, softplus
from flows.compiled.packed_fields import (
    FIRST,
    MASKS,
    NUMBER_BYTES,
    NUMBERS,
    OFFSETS,
    SCRATCH,
)

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

loop_cache.install()

_TINY = 1.1754943508222875e-38
# Of a spline: as in `flows.families.nsf`.
_LEAST_SLOPE = 1e-3
_SLOPE_OFFSET = math.log(math.expm1(1 - _LEAST_SLOPE))

_SIGNATURE = types.void(types.int64)


_Body = Callable[[Feature], tuple[Vector, Vector]]


def _map_of(*bodies: _Body) -> Any:
    """Return the function of a map, from its body in each direction."""

    @intrinsic
    @no_type_check
    def run(_, words):
        def generate(context, builder, _signature, args):
            e = Emitter(builder, 1)
            loops = _Loops(builder, *(e.word(args[0], e.number(n)) for n in range(ARGUMENTS)))
            for number, body in enumerate(bodies):
                wanted = builder.icmp_signed("==", loops.direction, ir.Constant(WORD, number))
                with builder.if_then(wanted):
                    single = builder.icmp_signed("==", loops.rows, ir.Constant(WORD, 1))
                    with builder.if_else(single) as (then, otherwise):
                        with then:
                            loops.emit(body, 1)
                        with otherwise:
                            loops.emit(body, LANES)
            return context.get_dummy_value()

        return _SIGNATURE, generate

    return run


class _Loops:
    """Loops of a map over features and rows; its arguments are those of `call_map`."""

    def __init__(self, builder: Any, *words: Any) -> None:
        self.b = builder
        self.direction, self._layer, self._first, self._end, self._space, self.rows = words[:6]
        self._parameters, self._step = words[6:8]
        self._source, self._read, self._target, self._write, self._total = words[8:]

    def emit(self, body: _Body, lanes: int) -> None:
        """Emit the loops, over rows in vectors of this width."""
        e, b = Emitter(self.b, lanes), self.b
        row = b.mul(self.rows, e.number(4))
        step = b.mul(row, self._step)
        first, offsets, numbers, bytes_, masks, scratch = (
            e.word(self._layer, e.number(name))
            for name in (FIRST, OFFSETS, NUMBERS, NUMBER_BYTES, MASKS, SCRATCH)
        )

        def unit(number: Any) -> Any:
            return b.add(self._space, b.mul(row, number))

        def one_feature(i: Any, _: list[Any]) -> list[Any]:
            parameter = b.add(self._parameters, e.word(offsets, b.sub(i, first)))
            inputs = unit(parameter), unit(b.add(self._source, e.word(self._read, i)))
            kept = unit(scratch)
            target = unit(b.add(self._target, e.word(self._write, i)))
            own_numbers = b.add(numbers, b.mul(i, bytes_))

            def some_rows(k: Any, _: list[Any]) -> list[Any]:
                moved = b.mul(k, e.number(4))
                places = [b.add(address, moved) for address in inputs]
                addresses = (*places, own_numbers)
                results = body(Feature(e, addresses, step, kept=(b.add(kept, moved), row)))

                def mask() -> list[Any]:
                    return [e.load(b.add(unit(e.word(masks, i)), moved), e.number(0))]

                has_masks = b.icmp_signed("!=", masks, e.number(0))
                [seen] = e.choose(has_masks, mask, lambda: [e.constant(1.0)])
                is_seen = Vector(e, seen) > 0.0
                result, slope = (value.where(is_seen, 0.0) for value in results)
                e.store(result.value, b.add(target, moved), e.number(0))
                e.add_to_doubles(slope.value, b.add(self._total, b.mul(k, e.number(8))))
                return []

            e.loop(e.number(0), self.rows, lanes, [], some_rows)
            return []

        e.loop(self._first, self._end, 1, [], one_feature)


def _affine_inverse(f: Feature) -> tuple[Vector, Vector]:
    shift, minus = f.parameter(0), -f.parameter(1)
    return (f.x - shift) * exp(minus), minus


def _affine_forward(f: Feature) -> tuple[Vector, Vector]:
    shift, log_scale = f.parameter(0), f.parameter(1)
    return shift.plus(f.x, exp(log_scale)), log_scale


def _bounded_affine_inverse(f: Feature) -> tuple[Vector, Vector]:
    minus = -_bounded(f)
    return (f.x - f.parameter(0)) * exp(minus), minus


def _bounded_affine_forward(f: Feature) -> tuple[Vector, Vector]:
    log_scale = _bounded(f)
    return f.parameter(0).plus(f.x, exp(log_scale)), log_scale


def _bounded(f: Feature) -> Vector:
    raw = f.parameter(1)
    return raw / (1.0 + abs(raw) / f.number(0))


def _scaled_inverse(f: Feature) -> tuple[Vector, Vector]:
    shift, slope, log_slope = (f.parameter(n) for n in range(3))
    return (f.x - shift) * slope, log_slope


def _scaled_forward(f: Feature) -> tuple[Vector, Vector]:
    shift, slope, log_slope = (f.parameter(n) for n in range(3))
    return shift + f.x / slope, -log_slope


def _additive_inverse(f: Feature) -> tuple[Vector, Vector]:
    return f.x - f.parameter(0), f.x.of(0.0)


def _additive_forward(f: Feature) -> tuple[Vector, Vector]:
    return f.x + f.parameter(0), f.x.of(0.0)


class _Bin:
    """Bin of a spline for each number along an axis: 0 are the data, 1 is the noise."""

    def __init__(self, f: Feature, place: Vector, axis: int) -> None:
        bins, floor = f.count(0), f.number(2)
        shares = [_Share(f, bins, 0), _Share(f, bins, 1)]
        builder = f.e.b
        twice, last = builder.mul(bins, f.e.number(2)), builder.sub(bins, f.e.number(1))

        def look(k: Any, *state: Vector) -> list[Vector]:
            *ends, left, bottom, width, height, first, second, slope = state
            sizes = [floor.plus(share.exponential(k), share.scale) for share in shares]
            # The slope of the last knot is 1, as that of the first one.
            is_last = builder.icmp_signed("==", k, last)
            index = builder.add(twice, builder.select(is_last, f.e.number(0), k))
            raw = f.parameter(index).value
            following = Vector(f.e, builder.select(is_last, f.x.of(0.0).value, raw))
            inside = place >= ends[axis]
            found = (*ends, *sizes, slope, following)
            kept = (left, bottom, width, height, first, second)
            return [
                ends[0] + sizes[0],
                ends[1] + sizes[1],
                *(new.where(inside, old) for new, old in zip(found, kept, strict=True)),
                following,
            ]

        found = f.fold(bins, [0.0] * 9, look)
        _, _, self.left, self.bottom, self.width, self.height, first, second, _ = found
        self.first = softplus(first + _SLOPE_OFFSET) + _LEAST_SLOPE
        self.second = softplus(second + _SLOPE_OFFSET) + _LEAST_SLOPE
        self.slope = self.height / self.width
        self.bend = self.first + self.second - self.slope - self.slope

    def log_slope(self, theta: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log derivative at a part of the width, and two terms of the value."""
        below = self.first.plus(theta, self.slope - self.first)
        above = self.slope.plus(theta, self.second - self.slope)
        denominator = self.slope.plus(self.bend, theta.plus(-theta, theta))
        quotient = self.slope / denominator
        mean = below.plus(theta, above - below)
        return log(mean * quotient * quotient), below, denominator

    def solve(self, rise: Vector) -> Vector:
        """Return the part of the width at which the spline is this far above the bin's corner."""
        b = (self.height * self.first).plus(-rise, self.bend)
        a = (-b).plus(self.height, self.slope)
        c = self.slope * rise
        root = (b * b).plus(4.0 * a, c).at_least(_TINY).sqrt()
        falls = b < 0.0
        return (root - b).where(falls, c + c) / (a + a).where(falls, root + b)


class _Share:
    """Softmax of the logits of the bins along one axis; the exponentials take their place."""

    def __init__(self, f: Feature, bins: Any, axis: int) -> None:
        self._f, self._first = f, f.e.b.mul(bins, f.e.number(axis))
        [most] = f.fold(bins, [-math.inf], lambda k, most: [self.exponential(k).at_least(most)])

        def raise_to(k: Any, total: Vector) -> list[Vector]:
            value = exp(self.exponential(k) - most)
            f.set_parameter(f.e.b.add(self._first, k), value)
            return [total + value]

        [total] = f.fold(bins, [0.0], raise_to)
        self.scale = 1.0 / total

    def exponential(self, k: Any) -> Vector:
        """Return the exponential of a logit; before they are computed, the logit."""
        return self._f.parameter(self._f.e.b.add(self._first, k))


def _spline_inverse(f: Feature) -> tuple[Vector, Vector]:
    place, unscaled = _spline_place(f)
    found = _Bin(f, place, axis=0)
    theta = (place - found.left) / found.width
    log_slope, below, denominator = found.log_slope(theta)
    u = found.bottom.plus(found.height, theta * below / denominator)
    return _with_tails(f, unscaled(u), log_slope)


def _spline_forward(f: Feature) -> tuple[Vector, Vector]:
    place, unscaled = _spline_place(f)
    found = _Bin(f, place, axis=1)
    theta = found.solve(place - found.bottom)
    log_slope, _, _ = found.log_slope(theta)
    return _with_tails(f, unscaled(found.left.plus(found.width, theta)), -log_slope)


def _spline_place(f: Feature) -> tuple[Vector, Callable[[Vector], Vector]]:
    """Return the place in units in which the interval goes from 0 to the sum of all sizes."""
    bound, total = f.number(1), f.number(3)
    inside = bound.where(f.x > bound, (-bound).where(f.x < -bound, f.x))
    scale = total / (bound + bound)

    def unscaled(place: Vector) -> Vector:
        return (-bound).plus(place, (bound + bound) / total)

    return (inside + bound) * scale, unscaled


def _with_tails(f: Feature, mapped: Vector, log_slope: Vector) -> tuple[Vector, Vector]:
    bends = abs(f.x) <= f.number(1)
    return mapped.where(bends, f.x), log_slope.where(bends, 0.0)


_run_affine = _map_of(_affine_inverse, _affine_forward)
_run_scaled = _map_of(_scaled_inverse, _scaled_forward)
_run_additive = _map_of(_additive_inverse, _additive_forward)
_run_bounded_affine = _map_of(_bounded_affine_inverse, _bounded_affine_forward)
_run_spline = _map_of(_spline_inverse, _spline_forward)
_run_levels = _map_of(level_density, level_draw)
_run_mixture = _map_of(mixture_inverse, mixture_forward, mixture_density)
_run_bernoulli = _map_of(bernoulli_density, bernoulli_draw, bernoulli_density)
_run_sigmoids = _map_of(sigmoids_inverse, sigmoids_forward)
_run_dense_sigmoids = _map_of(dense_inverse, dense_forward)
_run_tails = _map_of(tails_inverse, tails_forward)


@no_type_check
def _affine(words):
    _run_affine(words)


@no_type_check
def _scaled(words):
    _run_scaled(words)


@no_type_check
def _additive(words):
    _run_additive(words)


@no_type_check
def _spline(words):
    _run_spline(words)


@no_type_check
def _bounded_affine(words):
    _run_bounded_affine(words)


@no_type_check
def _levels(words):
    _run_levels(words)


@no_type_check
def _mixture(words):
    _run_mixture(words)


@no_type_check
def _bernoulli(words):
    _run_bernoulli(words)


@no_type_check
def _sigmoids(words):
    _run_sigmoids(words)


@no_type_check
def _dense_sigmoids(words):
    _run_dense_sigmoids(words)


@no_type_check
def _tails(words):
    _run_tails(words)


_MAPS = {
    "affine": _affine,
    "bounded-affine": _bounded_affine,
    "scaled": _scaled,
    "additive": _additive,
    "spline": _spline,
    "levels": _levels,
    "mixture": _mixture,
    "bernoulli": _bernoulli,
    "sigmoids": _sigmoids,
    "dense-sigmoids": _dense_sigmoids,
    "tails": _tails,
}


@functools.cache
def map_address(kind: str) -> int | None:
    """Return the address of a map, which is compiled or read from numba's cache; None if unknown."""
    function = _MAPS.get(kind)
    if function is None:
        return None
    try:
        compiled = cfunc(_SIGNATURE, cache=True)(function)
    except RuntimeError:  # no folder to cache in: compile in every process
        compiled = cfunc(_SIGNATURE)(function)
    _compiled.append(compiled)
    address: int = compiled.address
    return address


# What is compiled must outlive its address.
_compiled: list[Any] = []
