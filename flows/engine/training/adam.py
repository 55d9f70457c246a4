"""Compiled steps of Adam over parts of the flat vector of all parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import float32, float64, int64, types

from flows.engine.blocks import LANES
from flows.engine.loop_cache import intrinsic, jit
from flows.engine.vectors import INT, Emitter, Vector, in_vectors

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Sums of squares that are kept apart, so that none waits for the one before.
_SUMS = 4
# Places of the numbers of a step: factor of the gradient, factor of the weights and their share in
# the gradient (one of both is the weight decay), rate, factor of the root of the second moment, and
# share of the new weights in the average.
CLIP, KEEP, DECAY, RATE, ROOT, FOLLOW = range(6)
_EPS = 1e-8
BETA1, BETA2 = 0.9, 0.999  # decay of the moments


@intrinsic
def squares(_, address, length):
    """Return the sum of the squares of the numbers at an address."""

    def generate(_context, builder, _signature, args):
        address, length = args

        def add(width: int, count: int, begin: Any, start: list[Any]) -> tuple[Any, list[Any]]:
            e = Emitter(builder, width)

            def some(k: Any, sums: list[Any]) -> list[Any]:
                at = builder.add(address, builder.mul(k, e.number(4)))
                values = [e.load(at, e.number(n)) for n in range(count)]
                return [e.multiply_add(s, v, v) for s, v in zip(sums, values, strict=True)]

            return e.loop(begin, length, width * count, start, some)

        e, zero = Emitter(builder, LANES), ir.Constant(ir.IntType(64), 0)
        k, sums = add(LANES, _SUMS, zero, [e.constant(0.0)] * _SUMS)
        k, [rest] = add(1, 1, k, [Emitter(builder, 1).constant(0.0)])
        return e.total(sums, builder.extract_element(rest, ir.Constant(INT, 0)))

    return float32(types.int64, types.int64), generate


def _adam_of(*, averages: bool) -> Any:
    @intrinsic
    def adam(_, addresses, start, end, numbers):
        def generate(context, builder, _signature, args):
            addresses, start, end, numbers = args
            places = [builder.extract_value(addresses, n) for n in range(5)]

            def prepared(e: Emitter) -> Callable[[Any], None]:
                known = [Vector(e, e.spread(numbers, e.number(n))) for n in range(6)]

                def some(k: Any) -> None:
                    moved = builder.mul(k, e.number(4))
                    _move(e, [builder.add(place, moved) for place in places], known, averages)

                return some

            in_vectors(builder, LANES, start, end, prepared)
            return context.get_dummy_value()

        words = types.UniTuple(types.int64, 5), types.int64, types.int64, types.int64
        return types.void(*words), generate

    return adam


def _move(e: Emitter, places: list[Any], numbers: list[Vector], averages: bool) -> None:  # noqa: FBT001  of `_adam_of`
    """Move some parameters: of parameters, gradient, two moments and average at these addresses."""

    def load(n: int) -> Vector:
        return Vector(e, e.load(places[n], e.number(0)))

    def store(n: int, value: Vector) -> None:
        e.store(value.value, places[n], e.number(0))

    p = load(0) * numbers[KEEP]
    g = (numbers[DECAY] * p).plus(load(1), numbers[CLIP])
    first, second = load(2), load(3)
    first = first.plus(g - first, 1 - BETA1)
    second = (second * BETA2).plus((1 - BETA2) * g, g)
    p = p - numbers[RATE] * first / (first.of(_EPS).plus(second.sqrt(), numbers[ROOT]))
    store(0, p)
    store(2, first)
    store(3, second)
    if averages:
        average = load(4)
        store(4, average.plus(p - average, numbers[FOLLOW]))


adam_averaging, adam_alone = _adam_of(averages=True), _adam_of(averages=False)


@jit()
def _norm(gradient, segments):
    total = 0.0
    for number in range(len(segments)):
        start, length = segments[number]
        total += squares(int64(gradient.ctypes.data + 4 * start), length)
    return np.sqrt(total)


@jit(
    types.void(
        int64[:, ::1], types.UniTuple(float32[::1], 5), types.UniTuple(float64, 4), types.boolean, int64
    )
)  # fmt: skip
def move(segments, arrays, rates, decoupled, count):
    """Take a step of Adam along the clipped gradient, and follow with the average.

    `segments` have the start and length of the parts of the flat vector that move. The arrays are
    parameters, gradient, and those of `CompiledGradient.move`, which has the other arguments too.
    """
    parameters, gradient, first, second, average = arrays
    rate, decay, most, share = rates
    clip = 1.0
    if most > 0:
        clip = most / (_norm(gradient, segments) + 1e-6)
        if clip > 1:
            clip = 1.0
    numbers = np.empty(6, np.float32)
    numbers[CLIP], numbers[KEEP] = clip, 1 - rate * decay if decoupled else 1
    numbers[DECAY] = 0 if decoupled else decay
    numbers[RATE] = rate / (1 - BETA1**count)
    numbers[ROOT] = 1 / np.sqrt(1 - BETA2**count)
    numbers[FOLLOW] = share
    places = (
        int64(parameters.ctypes.data),
        int64(gradient.ctypes.data),
        int64(first.ctypes.data),
        int64(second.ctypes.data),
        int64(average.ctypes.data),
    )
    for number in range(len(segments)):
        start, length = segments[number]
        if len(average) > 0:
            adam_averaging(places, start, start + length, int64(numbers.ctypes.data))
        else:
            adam_alone(places, start, start + length, int64(numbers.ctypes.data))
