"""Loops of elementwise maps over the rows of a panel, around the body of each map.

The body of a map returns the mapped values of a feature and the logarithms of the slopes; it may
leave in the place of its parameters what the gradient needs. The body of a gradient returns that of
the feature, and sets those of the parameters.
"""

from collections.abc import Callable
from typing import Any, no_type_check

from numba import types
from numba.extending import intrinsic

from flows.compiled.loops.features import Feature
from flows.compiled.loops.micro_kernels import LANES, VECTORS
from flows.compiled.loops.vectors import Emitter, Vector

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

FORTH_WORDS, BACK_WORDS = 7, 10


class Pull:
    """Gradients around one feature's map in some rows.

    Attributes:
        u: Mapped values.
        noise: Gradients of the mapped values.
        slope: Gradients of the logarithms of the slopes.
    """

    def __init__(self, f: Feature, addresses: Any, step: Any, seen: Any) -> None:
        """Load what is known.

        Args:
            f: Feature of which these are the gradients.
            addresses: Addresses of the parameters' gradients, of the mapped values, of their
                gradients and of the rows' weights.
            step: Bytes from the gradients of a parameter to those of the next one.
            seen: Lanes whose feature is observed.
        """
        self._e, self._step, self._seen = f.e, step, seen
        self._gradients, *others = addresses
        self.u, self.noise, weight = (Vector(f.e, f.e.load(at, f.e.number(0))) for at in others)
        self.slope = -weight

    def set(self, index: Any, value: Vector) -> None:
        """Set the gradients of a parameter."""
        e = self._e
        index = e.number(index) if isinstance(index, int) else index
        place = e.b.add(self._gradients, e.b.mul(index, self._step))
        e.store(value.where(self._seen, 0.0).value, place, e.number(0))


def forth_of(body: Callable[[Feature], tuple[Vector, Vector]]) -> Any:
    """Return the function that maps a feature in all rows of a panel.

    Its argument are words: the address of the parameters and the bytes from one to the next; those
    of the values, of the map's numbers, of the mask, of the mapped values and of the losses, which
    lose the logarithms of the slopes.
    """

    @intrinsic
    @no_type_check
    def forth(_, words):
        def generate(context, builder, _signature, args):
            e = Emitter(builder, LANES)
            parameters, step, x, numbers, *rest = _words(builder, args[0], FORTH_WORDS)

            def some_rows(k: Any, _: list[Any]) -> list[Any]:
                moved = builder.mul(k, e.number(4 * LANES))
                places = (builder.add(parameters, moved), builder.add(x, moved), numbers)
                shown, u, loss = (builder.add(address, moved) for address in rest)
                results = body(Feature(e, places, step))
                seen = Vector(e, e.load(shown, e.number(0))) > 0.0
                result, slope = (value.where(seen, 0.0) for value in results)
                e.store(result.value, u, e.number(0))
                total = Vector(e, e.load(loss, e.number(0))) - slope
                e.store(total.value, loss, e.number(0))
                return []

            e.loop(e.number(0), e.number(VECTORS), 1, [], some_rows)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, FORTH_WORDS)), generate

    return forth


def back_of(body: Callable[[Feature, Pull], Vector]) -> Any:
    """Return the function of a map's gradient in all rows of a panel.

    Its argument are words: the address of the parameters, as the map left them, and the bytes from
    one to the next; those of the values, of the map's numbers, of the mask, of the parameters'
    gradients, of the mapped values, of their gradients, of the rows' weights and of the values'
    gradients.
    """

    @intrinsic
    @no_type_check
    def back(_, words):
        def generate(context, builder, _signature, args):
            e = Emitter(builder, LANES)
            parameters, step, x, numbers, *rest = _words(builder, args[0], BACK_WORDS)

            def some_rows(k: Any, _: list[Any]) -> list[Any]:
                moved = builder.mul(k, e.number(4 * LANES))
                places = (builder.add(parameters, moved), builder.add(x, moved), numbers)
                shown, *known, grad_x = (builder.add(address, moved) for address in rest)
                f = Feature(e, places, step)
                seen = Vector(e, e.load(shown, e.number(0))) > 0.0
                found = body(f, Pull(f, known, step, seen)).where(seen, 0.0)
                e.store(found.value, grad_x, e.number(0))
                return []

            e.loop(e.number(0), e.number(VECTORS), 1, [], some_rows)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, BACK_WORDS)), generate

    return back


def _words(builder: Any, words: Any, count: int) -> list[Any]:
    return [builder.extract_value(words, n) for n in range(count)]
