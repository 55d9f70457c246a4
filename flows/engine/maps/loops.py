"""Loops of elementwise maps over features and rows, around the body of each map.

A map takes the parameters of one feature and its values in all rows of a tile, and returns the mapped
values and the logarithms of the slopes. Its gradient returns that of the values, and sets those of the
parameters. The loops over layers call both by their addresses, so that only the maps of a flow need
compiling.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from flows.engine.blocks import LANES, ROWS
from flows.engine.fields import FIRST, MASKS, NUMBER_BYTES, NUMBERS, OFFSETS, SCRATCH
from flows.engine.loop_cache import intrinsic
from flows.engine.maps.features import Feature, Pull
from flows.engine.vectors import WORD, Emitter, Vector

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

Body = Callable[[Feature], tuple[Vector, Vector]]

# Words of a map's only argument: the direction; the address of the layer's integers; the first feature,
# and the one after the last; the address of the tile and its number of rows; the offset of the
# parameters, and the step from one to the next; the offset of the values, and the address of the
# position of each feature from there; the same of the results; the offset of the masks; and the address
# of the log-determinants, which are added to. In a training step that of the losses, which lose them,
# or of the weights of the rows; and then the address of the gradients of the tile's values, and the
# offsets of those of the parameters, of the values and of the results.
RUN_WORDS, STEP_WORDS = 14, 18


class Map(NamedTuple):
    """Bodies of an elementwise map.

    Attributes:
        inverse: Maps data to noise.
        forward: Maps noise to data.
        density: Returns no noise, and the log density with that of the noise taken off; None without one.
        gradient: Returns the gradient of the density or, without one, of the inverse; None if
            training has no compiled loops for it.
    """

    inverse: Body
    forward: Body
    density: Body | None = None
    gradient: Callable[[Feature, Pull], Vector] | None = None


def emit_run(map: Map, builder: Any, address: Any) -> None:  # noqa: A002  the word for it
    """Emit a map in the direction that its words name: `INVERSE`, `FORWARD` or `DENSITY`."""
    loops = _Loops(builder, address, RUN_WORDS)
    for number, body in enumerate((map.inverse, map.forward, map.density)):
        if body is None:
            continue
        with builder.if_then(loops.goes(number)):
            single = builder.icmp_signed("==", loops.rows, ir.Constant(WORD, 1))
            with builder.if_else(single) as (then, otherwise):
                with then:
                    loops.emit(_run(body), 1)
                with otherwise:
                    loops.emit(_run(body), LANES)


def emit_step(map: Map, builder: Any, address: Any) -> None:  # noqa: A002  the word for it
    """Emit a map in a training step, `FORTH` or `BACK` as its words say."""
    loops = _Loops(builder, address, STEP_WORDS)
    loops.rows = ir.Constant(WORD, ROWS)
    for number, cells in enumerate((_forth(map.density or map.inverse), _back(map.gradient))):
        with builder.if_then(loops.goes(number)):
            loops.emit(cells, LANES)


class _Cells(NamedTuple):
    """Some rows of a feature: how to emit it, where they are, and in which lanes it is observed.

    `at` returns their address in a space from an offset in units: of the values it is `read`, of the
    results `write`, of the first parameter `first`, each from those of all features.
    """

    e: Emitter
    feature: Callable[..., Feature]
    at: Callable[..., Any]
    row: Any
    seen: Any
    read: Any
    write: Any
    first: Any


class _Loops:
    """Loops of a map over features and rows; its words are those above."""

    def __init__(self, builder: Any, address: Any, count: int) -> None:
        self.b = builder
        words = [Emitter(builder, 1).word(address, ir.Constant(WORD, n)) for n in range(count)]
        self.direction, self._layer, self._first, self._end, self.space, self.rows = words[:6]
        self._parameters, self.step, self.source, self._read = words[6:10]
        self.target, self._write, self._masks, self.total, *self.gradients = words[10:]

    def goes(self, direction: int) -> Any:
        """Return whether this is the direction."""
        return self.b.icmp_signed("==", self.direction, ir.Constant(WORD, direction))

    def unit(self, space: Any, number: Any) -> Any:
        """Return the address of a unit's first row."""
        return self.b.add(space, self.b.mul(self.b.mul(self.rows, ir.Constant(WORD, 4)), number))

    def emit(self, cells: Callable[["_Loops", _Cells], None], lanes: int) -> None:
        """Emit the loops, over rows in vectors of this width."""
        e, b = Emitter(self.b, lanes), self.b
        row = b.mul(self.rows, e.number(4))
        step = b.mul(row, self.step)
        first, offsets, numbers, bytes_, masks, scratch = (
            e.word(self._layer, e.number(name))
            for name in (FIRST, OFFSETS, NUMBERS, NUMBER_BYTES, MASKS, SCRATCH)
        )

        def one_feature(i: Any, _: list[Any]) -> list[Any]:
            own = e.word(offsets, b.sub(i, first))
            read, write = e.word(self._read, i), e.word(self._write, i)
            parameters = self.unit(self.space, b.add(self._parameters, own))
            source = self.unit(self.space, b.add(self.source, read))
            kept = self.unit(self.space, scratch)
            own_numbers = b.add(numbers, b.mul(i, bytes_))

            def some_rows(k: Any, _: list[Any]) -> list[Any]:
                moved = b.mul(k, e.number(4))

                def feature(*, trains: bool) -> Feature:
                    addresses = b.add(parameters, moved), b.add(source, moved), own_numbers
                    place = b.add(kept, moved), row
                    return Feature(e, addresses, step, kept=place, trains=trains)

                def at(space: Any, offset: Any) -> Any:
                    return b.add(self.unit(space, offset), moved)

                def mask() -> list[Any]:
                    line = b.add(self._masks, e.word(masks, i))
                    return [e.load(at(self.space, line), e.number(0))]

                has_masks = b.icmp_signed("!=", masks, e.number(0))
                [shown] = e.choose(has_masks, mask, lambda: [e.constant(1.0)])
                cells(self, _Cells(e, feature, at, k, Vector(e, shown) > 0.0, read, write, own))
                return []

            e.loop(e.number(0), self.rows, lanes, [], some_rows)
            return []

        e.loop(self._first, self._end, 1, [], one_feature)


def _run(body: Body) -> Callable[[_Loops, _Cells], None]:
    def emit(loops: _Loops, cells: _Cells) -> None:
        e, b = cells.e, cells.e.b
        slope = _mapped(body, loops, cells, trains=False)
        e.add_to_doubles(slope.value, b.add(loops.total, b.mul(cells.row, e.number(8))))

    return emit


def _forth(body: Body) -> Callable[[_Loops, _Cells], None]:
    def emit(loops: _Loops, cells: _Cells) -> None:
        e, b = cells.e, cells.e.b
        slope = _mapped(body, loops, cells, trains=True)
        losses = b.add(loops.total, b.mul(cells.row, e.number(4)))
        e.store((Vector(e, e.load(losses, e.number(0))) - slope).value, losses, e.number(0))

    return emit


def _mapped(body: Body, loops: _Loops, cells: _Cells, *, trains: bool) -> Vector:
    """Store the mapped values; return the logarithms of the slopes."""
    e = cells.e
    results = body(cells.feature(trains=trains))
    result, slope = (value.where(cells.seen, 0.0) for value in results)
    target = cells.at(loops.space, e.b.add(loops.target, cells.write))
    e.store(result.value, target, e.number(0))
    return slope


def _back(body: Callable[[Feature, Pull], Vector]) -> Callable[[_Loops, _Cells], None]:
    def emit(loops: _Loops, cells: _Cells) -> None:
        e, b = cells.e, cells.e.b
        grads, grad_parameters, grad_source, grad_target = loops.gradients
        known = [
            cells.at(loops.space, b.add(loops.target, cells.write)),
            cells.at(grads, b.add(grad_target, cells.write)),
            b.add(loops.total, b.mul(cells.row, e.number(4))),
        ]
        own = cells.at(grads, b.add(grad_parameters, cells.first))
        step = b.mul(e.number(4 * ROWS), loops.step)
        f = cells.feature(trains=True)
        found = body(f, Pull(f, known, own, step, cells.seen)).where(cells.seen, 0.0)
        place = cells.at(grads, b.add(grad_source, cells.read))
        e.store(found.value, place, e.number(0))

    return emit


_MAP = ir.FunctionType(ir.VoidType(), [WORD])


@intrinsic
def call_map(_, address, words):
    """Call the map or the step at an address with its words, which maps some features in all rows of a tile."""

    def generate(context, builder, _signature, args):
        words = cgutils.alloca_once_value(builder, args[1])
        function = builder.inttoptr(args[0], _MAP.as_pointer())
        builder.call(function, [builder.ptrtoint(words, WORD)])
        return context.get_dummy_value()

    return types.void(types.int64, words), generate
