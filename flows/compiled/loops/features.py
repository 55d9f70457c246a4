"""One feature in some rows of a tile, as the bodies of elementwise maps see it."""

from collections.abc import Callable
from typing import Any

from flows.compiled.loops.vectors import FLOAT, WORD, Emitter, Vector

# mypy: ignore-errors
# llvmlite has no types.


class Feature:
    """Values of one feature in some rows, a row a lane, and what its map needs."""

    def __init__(self, e: Emitter, addresses: Any, step: Any, *, kept: Any = None) -> None:
        self.e = e
        self._parameters, self._source, self._numbers = addresses
        self._step = step
        self._kept = kept
        self.x = Vector(e, e.load(self._source, e.number(0)))

    def parameter(self, index: Any) -> Vector:
        """Return a parameter of the map."""
        return Vector(self.e, self.e.load(self._place(index), self.e.number(0)))

    def set_parameter(self, index: Any, value: Vector) -> None:
        """Write over a parameter of the map."""
        self.e.store(value.value, self._place(index), self.e.number(0))

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
