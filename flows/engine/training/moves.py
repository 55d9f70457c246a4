"""Loops of Adam over parts of the flat vector of all parameters, in vectors."""

from typing import Any, no_type_check

from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic

from flows.engine.blocks import LANES
from flows.engine.training.fields import BETA1, BETA2
from flows.engine.vectors import INT, Emitter, Vector

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Sums of squares that are kept apart, so that none waits for the one before.
_SUMS = 4
# Places of the numbers of a step: factor of the gradient, factor of the weights and their share in
# the gradient (one of both is the weight decay), rate, factor of the root of the second moment, and
# share of the new weights in the average.
CLIP, KEEP, DECAY, RATE, ROOT, FOLLOW = range(6)
_EPS = 1e-8


@intrinsic
@no_type_check
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
    @no_type_check
    def adam(_, addresses, start, end, numbers):
        def generate(context, builder, _signature, args):
            addresses, start, end, numbers = args
            places = [builder.extract_value(addresses, n) for n in range(5)]
            begin = start
            for width in (LANES, 1):
                e = Emitter(builder, width)
                known = [Vector(e, e.spread(numbers, e.number(n))) for n in range(6)]

                def some(k: Any, _: list[Any], e: Emitter = e, known: Any = known) -> list[Any]:
                    moved = builder.mul(k, e.number(4))
                    _move(e, [builder.add(place, moved) for place in places], known, averages)
                    return []

                begin, _none = e.loop(begin, end, width, [], some)
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
