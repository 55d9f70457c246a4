"""Micro-kernels: sums of products in registers, transposes, activations, written as LLVM code.

numba's loops would leave every partial sum to memory, at a third of the speed.
"""

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import config, types

from flows.engine.fields import PANEL
from flows.engine.loop_cache import intrinsic, jit
from flows.engine.vectors import INT, WORD, Emitter, Vector, erf, exp, in_vectors, tanh

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Rows in a vector.
LANES = 16
# With 32 wide registers a block has 8 units x 2 vectors of rows, otherwise 4 units x 1 vector.
_WIDE = (
    bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
    if config.CPU_NAME is None
    else config.CPU_NAME == "x86-64-v4"  # loops for other processors than this one
)
UNITS, VECTORS = (8, 2) if _WIDE else (4, 1)
# Rows of a block that has all vectors: of a full tile, and of a panel of a training step.
ROWS = LANES * VECTORS

# Panels whose sums of a single row are computed at once, so that none waits for its own last one.
TOGETHER = 8


@intrinsic
def row_blocks(_, panels, reach, units, inputs, biases, source, out):
    """Return the micro-kernel of single rows: the same sums, with a panel's units in the lanes.

    Args:
        panels: Address of the panels' addresses.
        reach: Address of how many inputs each unit sees.
        units: First unit, and the one after the last, in at most `TOGETHER` panels.
        inputs: First input, and the one after the last.
        biases: Address of the biases, or 0 for sums that start from the values in out.
        source: Address of the first input.
        out: Address of the results of all units.
    """

    def generate(context, builder, _signature, args):
        panels, reach, units, inputs, biases, source, out = args
        e = Emitter(builder, PANEL)
        first, end = (builder.extract_value(units, n) for n in range(2))
        begin, stop = (builder.extract_value(inputs, n) for n in range(2))
        last_unit = builder.sub(end, e.number(1))
        lowest, highest = (builder.sdiv(unit, e.number(PANEL)) for unit in (first, last_unit))
        skipped = builder.mul(begin, e.number(4 * PANEL))
        numbers, weights, depths = [], [], []
        for index in range(TOGETHER):
            # Fewer panels than that: the last one is computed more than once.
            panel = _least(builder, builder.add(lowest, e.number(index)), highest)
            numbers.append(panel)
            weights.append(builder.add(e.word(panels, panel), skipped))
            deepest = builder.add(builder.mul(panel, e.number(PANEL)), e.number(PANEL - 1))
            sees = e.word(reach, _least(builder, deepest, last_unit))
            depths.append(builder.sub(_least(builder, stop, sees), begin))
        common = functools.reduce(functools.partial(_least, builder), depths)

        def add(k: Any, sums: list[Any], weights: list[Any]) -> list[Any]:
            value = e.spread(source, k)
            return [
                e.multiply_add(total, e.load(weight, k), value)
                for total, weight in zip(sums, weights, strict=True)
            ]

        start = e.choose(
            builder.icmp_signed("!=", biases, e.number(0)),
            lambda: [e.load(biases, panel) for panel in numbers],
            lambda: [e.load(out, panel) for panel in numbers],
        )
        k, sums = e.loop(e.number(0), common, 1, start, lambda k, sums: add(k, sums, weights))
        lane = ir.Constant(ir.VectorType(WORD, PANEL), list(range(PANEL)))
        for panel, one, weight, depth in zip(numbers, sums, weights, depths, strict=True):
            _, [total] = e.loop(k, depth, 1, [one], lambda k, sums, w=weight: add(k, sums, [w]))
            unit = builder.add(e.splat(builder.mul(panel, e.number(PANEL))), lane)
            wanted = builder.and_(
                builder.icmp_signed(">=", unit, e.splat(first)),
                builder.icmp_signed("<", unit, e.splat(end)),
            )
            e.store(builder.select(wanted, total, e.load(out, panel)), out, panel)
        return context.get_dummy_value()

    pair = types.UniTuple(types.int64, 2)
    return types.void(types.intp, types.intp, pair, pair, *[types.intp] * 3), generate


def _least(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.icmp_signed("<", one, other), one, other)


@intrinsic
def stay_apart(_):
    """Prevent inlining of the calling function into each of its callers."""

    def generate(context, builder, _signature, _args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def turn_block(_, source, line, out, out_line):
    """Transpose a square of `LANES` lines; addresses and strides are in bytes."""

    def generate(context, builder, _signature, args):
        source, line, out, out_line = args
        e = Emitter(builder, LANES)
        nowhere = e.number(0)
        rows = [
            e.load(builder.add(source, builder.mul(line, e.number(n))), nowhere)
            for n in range(LANES)
        ]
        distance = 1
        while distance < LANES:
            # Exchange the lanes of pairs of lines whose numbers differ in one bit (Eklundh 1972).
            for n in range(LANES):
                if n & distance == 0:
                    rows[n], rows[n + distance] = _exchanged(
                        builder, rows[n], rows[n + distance], distance
                    )
            distance *= 2
        for n, row in enumerate(rows):
            e.store(row, builder.add(out, builder.mul(out_line, e.number(n))), nowhere)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


def _exchanged(builder: Any, one: Any, other: Any, distance: int) -> tuple[Any, Any]:
    """Return two lines with those lanes exchanged that are `distance` apart between them."""
    lanes = range(LANES)
    first = [n if n & distance == 0 else LANES + n - distance for n in lanes]
    second = [n + distance if n & distance == 0 else LANES + n for n in lanes]
    kind = ir.VectorType(INT, LANES)
    return tuple(
        builder.shuffle_vector(one, other, ir.Constant(kind, mask)) for mask in (first, second)
    )


@intrinsic
def word(_, address, index):
    """Return the integer at an address, `index` integers further."""

    def generate(_context, builder, _signature, args):
        return Emitter(builder, 1).word(args[0], args[1])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _product(_, units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias):
    """Compute a block of a product; see `block`."""

    def generate(context, builder, _signature, args):
        units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias = args
        e = Emitter(builder, LANES)

        def emit(count: int, wide: int) -> None:
            lefts, outs = _lines(e, left, unit_stride, count), _lines(e, out, out_line, count)

            def biases() -> list[Any]:
                return [b for n in range(count) for b in [e.spread(bias, e.number(n))] * wide]

            def there() -> list[Any]:
                return [e.load(one, e.number(v)) for one in outs for v in range(wide)]

            def body(k: Any, sums: list[Any]) -> list[Any]:
                source, offset = builder.add(right, builder.mul(k, line)), builder.mul(k, step)
                factors = [e.spread(builder.add(one, offset), e.number(0)) for one in lefts]
                return _added(e, sums, factors, source)

            start = e.choose(builder.icmp_signed("!=", bias, e.number(0)), biases, there)
            _, sums = e.loop(e.number(0), depth, 1, start, body)
            _store(e, sums, outs)

        _by_size(e, units, vectors, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11), generate


@jit()
def block(units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias):
    """Compute a block of a product of any two matrices, for some rows of the first.

    out[unit, lane] = start + sum over k < depth of left[unit, k] * right[k, lane], where start is
    the bias of the unit or, if the address of the biases is 0, the value in out. Addresses and
    strides are in bytes: the lanes of a line are contiguous, all else may lie anywhere. There are 1,
    2, 4 or `UNITS` units, and 1 or `VECTORS` vectors of lanes.
    """
    stay_apart()
    _product(units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias)


@intrinsic
def _row_sums(_, units, vectors, left, unit_stride, panel_stride, rows, right, line, out):
    """Compute a block of weights' gradients; see `weigh_block`."""

    def generate(context, builder, _signature, args):
        units, vectors, left, unit_stride, panel_stride, rows, right, line, out = args
        e = Emitter(builder, LANES)

        def emit(count: int, wide: int) -> None:
            strides = [builder.mul(unit_stride, e.number(n)) for n in range(count)]

            def over_rows(panel: Any, end: Any, sums: list[Any]) -> list[Any]:
                begin = builder.add(left, builder.mul(panel, panel_stride))
                lefts = [builder.add(begin, stride) for stride in strides]
                first = builder.mul(panel, e.number(ROWS))

                def body(k: Any, sums: list[Any]) -> list[Any]:
                    source = builder.add(right, builder.mul(builder.add(first, k), line))
                    return _added(e, sums, [e.spread(one, k) for one in lefts], source)

                return e.loop(e.number(0), end, 1, sums, body)[1]

            whole = builder.sdiv(rows, e.number(ROWS))
            rest = builder.sub(rows, builder.mul(whole, e.number(ROWS)))
            zeros = [e.constant(0.0)] * (count * wide)
            _, sums = e.loop(
                e.number(0), whole, 1, zeros, lambda p, s: over_rows(p, e.number(ROWS), s)
            )
            sums = over_rows(whole, rest, sums)
            _store(e, sums, _lines(e, out, e.number(4 * ROWS), count))

        _by_size(e, units, vectors, emit)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), generate


@jit()
def weigh_block(units, vectors, left, unit_stride, panel_stride, rows, right, line, out):
    """Compute a block of weights' gradients, for some outputs and some vectors of inputs.

    out[unit, lane] = sum over rows of left[unit, row] * right[row, lane]. Addresses and strides are
    in bytes; the left side lies in panels of `ROWS` rows, and a line of the result has as many lanes.
    """
    stay_apart()
    _row_sums(units, vectors, left, unit_stride, panel_stride, rows, right, line, out)


def _lines(e: Emitter, address: Any, stride: Any, count: int) -> list[Any]:
    return [e.b.add(address, e.b.mul(stride, e.number(n))) for n in range(count)]


def _added(e: Emitter, sums: list[Any], factors: list[Any], source: Any) -> list[Any]:
    """Return the sums of all units, to which a line times the factor of each is added."""
    wide = len(sums) // len(factors)
    line = [e.load(source, e.number(v)) for v in range(wide)]
    pairs = [(factor, one) for factor in factors for one in line]
    return [e.multiply_add(total, *pair) for total, pair in zip(sums, pairs, strict=True)]


def _store(e: Emitter, sums: list[Any], lines: list[Any]) -> None:
    wide = len(sums) // len(lines)
    for n, total in enumerate(sums):
        e.store(total, lines[n // wide], e.number(n % wide))


def _by_size(e: Emitter, units: Any, vectors: Any, emit: Callable[[int, int], None]) -> None:
    """Emit the block of each size, and the choice of one."""
    sizes = sorted({(n, v) for n in (1, 2, 4, UNITS) for v in (1, VECTORS)}, reverse=True)
    b, after = e.b, e.b.append_basic_block()
    nowhere = b.append_basic_block()
    choice = b.switch(b.add(b.mul(units, e.number(VECTORS + 1)), vectors), nowhere)
    for count, wide in sizes:
        own = b.append_basic_block()
        choice.add_case(e.number(count * (VECTORS + 1) + wide), own)
        b.position_at_end(own)
        emit(count, wide)
        b.branch(after)
    b.position_at_end(nowhere)
    b.unreachable()
    b.position_at_end(after)


@intrinsic
def sum_unit(_, address, panel_stride, panels):
    """Return the sum of a unit over all rows; the stride from panel to panel is in bytes."""

    def generate(_context, builder, _signature, args):
        address, panel_stride, panels = args
        e = Emitter(builder, LANES)

        def add(panel: Any, sums: list[Any]) -> list[Any]:
            at = builder.add(address, builder.mul(panel, panel_stride))
            return [builder.fadd(total, e.load(at, e.number(v))) for v, total in enumerate(sums)]

        _, sums = e.loop(e.number(0), panels, 1, [e.constant(0.0)] * VECTORS, add)
        return e.total(sums)

    return types.float32(types.int64, types.int64, types.int64), generate


@intrinsic
def _activate(_, kind, address, count):
    """Apply an activation in place."""

    def generate(context, builder, _signature, args):
        kind, address, count = args
        for number, function in enumerate((_relu, tanh, _elu, _gelu)):
            with builder.if_then(builder.icmp_signed("==", kind, ir.Constant(WORD, number))):
                of = functools.partial(_applied, function, address)
                in_vectors(builder, LANES, ir.Constant(WORD, 0), count, of)
        return context.get_dummy_value()

    return types.void(types.int64, types.intp, types.int64), generate


def _applied(
    function: Callable[[Vector], Vector], address: Any, e: Emitter
) -> Callable[[Any], None]:
    def some(k: Any) -> None:
        place = e.b.add(address, e.b.mul(k, e.number(4)))
        e.store(function(Vector(e, e.load(place, e.number(0)))).value, place, e.number(0))

    return some


def _relu(x: Vector) -> Vector:
    return x.of(0.0).where(x < 0.0, x)


def _elu(x: Vector) -> Vector:
    return (exp(x) - 1.0).where(x < 0.0, x)


def _gelu(x: Vector) -> Vector:
    return 0.5 * x * (1.0 + erf(x * 0.70710678118654752))


@jit()
def activate(kind, address, count):
    """Apply an activation, a number of `fields.ACTIVATIONS`, to numbers at an address."""
    stay_apart()
    _activate(kind, address, count)
