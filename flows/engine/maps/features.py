"""One feature in some rows, as the bodies of elementwise maps and of their gradients see it."""

from collections.abc import Callable
from typing import Any

from flows.engine.vectors import FLOAT, WORD, Emitter, Vector

# mypy: ignore-errors
# llvmlite has no types.


class Feature:
    """Values of one feature in some rows, a row a lane, and what its map needs.

    Attributes:
        e: Emitter of the instructions.
        x: Values of the feature.
        trains: True in a training step, whose map leaves in the place of its parameters what its
            gradient needs.
    """

    def __init__(
        self, e: Emitter, addresses: Any, step: Any, *, kept: Any, trains: bool = False
    ) -> None:
        self.e = e
        self.trains = trains
        self._parameters, source, self._numbers = addresses
        self._step = step
        self._kept = kept
        self.x = Vector(e, e.load(source, e.number(0)))

    def parameter(self, index: Any) -> Vector:
        """Return a parameter of the map."""
        return Vector(self.e, self.e.load(self._place(index), self.e.number(0)))

    def set_parameter(self, index: Any, value: Vector) -> None:
        """Write over a parameter of the map."""
        self.e.store(value.value, self._place(index), self.e.number(0))

    def leave(self, index: Any, value: Vector) -> None:
        """Write over a parameter, for the gradient."""
        if self.trains:
            self.set_parameter(index, value)

    def kept(self, index: Any) -> Vector:
        """Return what was kept at a place beside the parameters."""
        return Vector(self.e, self.e.load(self._kept_place(index), self.e.number(0)))

    def keep(self, index: Any, value: Vector) -> None:
        """Keep a value at a place beside the parameters."""
        self.e.store(value.value, self._kept_place(index), self.e.number(0))

    def number(self, index: Any) -> Vector:
        """Return a number that all maps of the layer share."""
        return Vector(self.e, self.e.spread(self._numbers, self._index(index)))

    def count(self, index: int) -> Any:
        """Return such a number as an integer."""
        return self.e.b.fptosi(self.e.single(self._numbers, self.e.number(index)), WORD)

    def of_integer(self, value: Any) -> Vector:
        """Return an integer in all lanes."""
        return Vector(self.e, self.e.splat(self.e.b.sitofp(value, FLOAT)))

    def nth(self, count: Any, n: int, k: Any) -> Any:
        """Return the place of `k` in the group `n` of `count` parameters each."""
        return self.e.b.add(self.e.b.mul(count, self.e.number(n)), k)

    def fold(self, count: Any, start: list[Vector | float], body: Callable[..., Any]) -> Any:
        """Fold `body(k, *values)` over 0 to count - 1; return the last values."""
        values = [self.x.of(value).value for value in start]

        def emitted(k: Any, values: list[Any]) -> list[Any]:
            found = body(k, *(Vector(self.e, value) for value in values))
            return [vector.value for vector in found]

        _, found = self.e.loop(self.e.number(0), count, 1, values, emitted)
        return [Vector(self.e, value) for value in found]

    def _index(self, index: Any) -> Any:
        return self.e.number(index) if isinstance(index, int) else index

    def _place(self, index: Any) -> Any:
        return self.e.b.add(self._parameters, self.e.b.mul(self._index(index), self._step))

    def _kept_place(self, index: Any) -> Any:
        address, step = self._kept
        return self.e.b.add(address, self.e.b.mul(self._index(index), step))


class Pull:
    """Gradients around one feature's map in some rows.

    Of the mapped values `u` they are `noise`, of the logarithms of the slopes `slope`.
    """

    def __init__(self, f: Feature, known: list[Any], addresses: Any, step: Any, seen: Any) -> None:
        """Load what is known at three addresses; the rest says where the parameters' gradients go."""
        self._e, self._gradients, self._step, self._seen = f.e, addresses, step, seen
        self.u, self.noise, weight = (Vector(f.e, f.e.load(at, f.e.number(0))) for at in known)
        self.slope = -weight

    def set(self, index: Any, value: Vector) -> None:
        """Set the gradients of a parameter."""
        e = self._e
        index = e.number(index) if isinstance(index, int) else index
        place = e.b.add(self._gradients, e.b.mul(index, self._step))
        e.store(value.where(self._seen, 0.0).value, place, e.number(0))
