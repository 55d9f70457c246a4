"""Micro-kernels of `flows.compiled.kernels`: sums of products in registers, written as LLVM code.

numba's loops would leave every partial sum to memory, at a third of the speed.
"""

import functools
from typing import Any, no_type_check

import llvmlite.binding
from llvmlite import ir
from numba import float32, int32, types
from numba.core import cgutils
from numba.extending import intrinsic

from flows.compiled.loops.vectors import FLOAT, INT, WORD, Emitter
from flows.compiled.packed_fields import PANEL

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Rows in a vector.
LANES = 16
# With 32 wide registers a block has 8 units x 2 vectors of rows, otherwise 4 units x 1 vector.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
UNITS, VECTORS = (8, 2) if _WIDE else (4, 1)


# Panels whose sums of a single row are computed at once, so that none waits for its own last one.
TOGETHER = 8


@intrinsic
@no_type_check
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
@no_type_check
def stay_apart(_):
    """Prevent inlining of the calling function into each of its callers."""

    def generate(context, builder, _signature, _args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
@no_type_check
def two_to_the(_, _exponent):
    """Return 2 to an integer from -126 to 127."""

    def generate(_context, builder, _signature, args):
        word = ir.IntType(32)
        biased = builder.add(args[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), FLOAT)

    return float32(int32), generate


@intrinsic
@no_type_check
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


@no_type_check
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
@no_type_check
def bits_of(_, _number):
    """Return the bits of a number as an integer."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return int32(float32), generate


@intrinsic
@no_type_check
def number_of(_, _bits):
    """Return the number that has these bits."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], FLOAT)

    return float32(int32), generate


@intrinsic
@no_type_check
def word(_, address, index):
    """Return the integer at an address, `index` integers further."""

    def generate(_context, builder, _signature, args):
        return Emitter(builder, 1).word(args[0], args[1])

    return types.int64(types.int64, types.int64), generate


@no_type_check
def product_block_of(units: int, vectors: int) -> Any:
    """Return the micro-kernel of products of any two matrices, for some rows of the first.

    out[unit, lane] = start + sum over k < depth of left[unit, k] * right[k, lane], where start is
    the bias of the unit or, if the address of the biases is 0, the value in out. Addresses and
    strides are in bytes: the lanes of a line are contiguous, all else may lie anywhere.
    """
    cells = [(unit, v) for unit in range(units) for v in range(vectors)]

    @intrinsic
    def product_block(_, left, unit_stride, step, depth, right, line, out, out_line, bias):
        def generate(context, builder, _signature, args):
            left, unit_stride, step, depth, right, line, out, out_line, bias = args
            e = Emitter(builder, LANES)
            lefts = [builder.add(left, builder.mul(unit_stride, e.number(n))) for n in range(units)]
            outs = [builder.add(out, builder.mul(out_line, e.number(n))) for n in range(units)]

            def biases() -> list[Any]:
                values = [e.spread(bias, e.number(unit)) for unit in range(units)]
                return [values[unit] for unit, _ in cells]

            def there() -> list[Any]:
                return [e.load(outs[unit], e.number(v)) for unit, v in cells]

            def body(k: Any, sums: list[Any]) -> list[Any]:
                source = builder.add(right, builder.mul(k, line))
                rows = [e.load(source, e.number(v)) for v in range(vectors)]
                offset = builder.mul(k, step)
                factors = [
                    e.spread(builder.add(lefts[unit], offset), e.number(0)) for unit in range(units)
                ]
                return [
                    e.multiply_add(total, factors[unit], rows[v])
                    for total, (unit, v) in zip(sums, cells, strict=True)
                ]

            start = e.choose(builder.icmp_signed("!=", bias, e.number(0)), biases, there)
            _, sums = e.loop(e.number(0), depth, 1, start, body)
            for total, (unit, v) in zip(sums, cells, strict=True):
                e.store(total, outs[unit], e.number(v))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), generate

    return product_block


# Number of arguments of a map.
ARGUMENTS = 13
_MAP = ir.FunctionType(ir.VoidType(), [WORD])


@intrinsic
@no_type_check
def call_map(_, address, words):
    """Call the map at an address (`flows.compiled.loops.maps`), which maps some features in all rows of a tile.

    Its argument is the address of these: the direction; the address of the layer's integers; the first
    feature, and the one after the last; the address of the tile and its number of rows; the offset of the parameters and the
    step from one to the next; the offset of the values, and the address of the position of each feature
    from there; the same of the results; and the address of the log-determinants, which are added to.
    """

    def generate(context, builder, _signature, args):
        words = cgutils.alloca_once_value(builder, args[1])
        function = builder.inttoptr(args[0], _MAP.as_pointer())
        builder.call(function, [builder.ptrtoint(words, WORD)])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, ARGUMENTS)), generate
