"""Micro-kernels of `flows.compiled.kernels`: sums of products in registers, written as LLVM code.

numba's loops would leave every partial sum to memory, at a third of the speed. The cache of the
compiled kernels watches `kernels.py` only: after a change here, remove `__pycache__`.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import llvmlite.binding
from llvmlite import ir
from numba import float32, int32, types
from numba.extending import intrinsic

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Rows in a vector, and units whose weights are contiguous.
LANES, PANEL = 16, 8
# With 32 wide registers a block has 8 units x 2 vectors of rows, otherwise 4 units x 1 vector.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
UNITS, VECTORS = (8, 2) if _WIDE else (4, 1)

_LOOSE = ("contract", "reassoc", "nsz")
_FLOAT, _WORD, _INT = ir.FloatType(), ir.IntType(64), ir.IntType(32)


class _Emitter:
    """Emitter of the few instructions that the micro-kernels need, on vectors of one width."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.b = builder
        self.lanes = lanes
        self.vector = ir.VectorType(_FLOAT, lanes)

    def number(self, value: int) -> Any:
        return ir.Constant(_WORD, value)

    def load(self, address: Any, index: Any) -> Any:
        """Return the vector at an address, `index` vectors further."""
        return self.b.load(self._at(address, self.vector, index), typ=self.vector, align=4)

    def store(self, value: Any, address: Any, index: Any) -> None:
        self.b.store(value, self._at(address, self.vector, index), align=4)

    def spread(self, address: Any, index: Any) -> Any:
        """Return the number at an address, `index` numbers further, in all lanes."""
        return self.splat(self.b.load(self._at(address, _FLOAT, index), typ=_FLOAT))

    def splat(self, scalar: Any) -> Any:
        nothing = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        zeros = ir.Constant(ir.VectorType(_INT, self.lanes), [0] * self.lanes)
        first = self.b.insert_element(nothing, scalar, ir.Constant(_INT, 0))
        return self.b.shuffle_vector(first, nothing, zeros)

    def add(self, a: Any, b: Any) -> Any:
        return self.b.fadd(a, b, flags=_LOOSE)

    def multiply_add(self, total: Any, a: Any, b: Any) -> Any:
        return self.add(total, self.b.fmul(a, b, flags=_LOOSE))

    def choose(
        self, condition: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]
    ) -> Any:
        """Return the values of one of two branches."""
        with self.b.if_else(condition) as (then, otherwise):
            with then:
                first, end_first = yes(), self.b.block
            with otherwise:
                second, end_second = no(), self.b.block
        chosen = []
        for a, b in zip(first, second, strict=True):
            phi = self.b.phi(self.vector)
            phi.add_incoming(a, end_first)
            phi.add_incoming(b, end_second)
            chosen.append(phi)
        return chosen

    def loop(
        self, begin: Any, end: Any, step: int, start: list[Any], body: Callable[..., list[Any]]
    ) -> Any:
        """Fold `body(k, values)` over a range; return the end of the range and the last values."""
        b, before = self.b, self.b.block
        head, inside, after = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(_WORD)
        k.add_incoming(begin, before)
        values = [b.phi(self.vector) for _ in start]
        for value, first in zip(values, start, strict=True):
            value.add_incoming(first, before)
        following = b.add(k, self.number(step))
        b.cbranch(b.icmp_signed("<=", following, end), inside, after)
        b.position_at_end(inside)
        for value, result in zip(values, body(k, values), strict=True):
            value.add_incoming(result, b.block)
        k.add_incoming(following, b.block)
        b.branch(head)
        b.position_at_end(after)
        return k, values

    def _at(self, address: Any, kind: ir.Type, index: Any) -> Any:
        pointer = self.b.inttoptr(address, kind.as_pointer())
        return self.b.gep(pointer, [index], source_etype=kind)


@no_type_check
def tile_block_of(units: int, vectors: int) -> Any:
    """Return the micro-kernel of tiles, for some units of a panel.

    out[unit, row] = start + sum over k < depth of weight[k, unit] * source[k, row], where start
    is the bias of the unit or, if the address of the biases is 0, the value in out.
    """
    cells = [(unit, v) for unit in range(units) for v in range(vectors)]

    @intrinsic
    def tile_block(_, weight, bias, depth, source, out):
        def generate(context, builder, _signature, args):
            weight, bias, depth, source, out = args
            e = _Emitter(builder, LANES)

            def biases() -> list[Any]:
                values = [e.spread(bias, e.number(unit)) for unit in range(units)]
                return [values[unit] for unit, _ in cells]

            def there() -> list[Any]:
                return [e.load(out, e.number(unit * vectors + v)) for unit, v in cells]

            def body(k: Any, sums: list[Any]) -> list[Any]:
                first = builder.mul(k, e.number(vectors))
                rows = [e.load(source, builder.add(first, e.number(v))) for v in range(vectors)]
                line = builder.mul(k, e.number(PANEL))
                factors = [
                    e.spread(weight, builder.add(line, e.number(unit))) for unit in range(units)
                ]
                return [
                    e.multiply_add(total, factors[unit], rows[v])
                    for total, (unit, v) in zip(sums, cells, strict=True)
                ]

            start = e.choose(builder.icmp_signed("!=", bias, e.number(0)), biases, there)
            _, sums = e.loop(e.number(0), depth, 1, start, body)
            for total, (unit, v) in zip(sums, cells, strict=True):
                e.store(total, out, e.number(unit * vectors + v))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), generate

    return tile_block


@intrinsic
@no_type_check
def row_block(_, weight, bias, depth, source, out, first, count):
    """Return the micro-kernel of single rows: the same sums, with a panel's units in the lanes.

    Weight, bias and out are those of the whole panel; `count` units from `first` on are stored.
    """

    def generate(context, builder, _signature, args):
        weight, bias, depth, source, out, first, count = args
        e = _Emitter(builder, PANEL)
        chains = 4

        def body(k: Any, sums: list[Any]) -> list[Any]:
            indices = [builder.add(k, e.number(n)) for n in range(len(sums))]
            return [
                e.multiply_add(total, e.spread(source, index), e.load(weight, index))
                for total, index in zip(sums, indices, strict=True)
            ]

        def add_one(k: Any, sums: list[Any]) -> list[Any]:
            return body(k, sums[:1])

        [start] = e.choose(
            builder.icmp_signed("!=", bias, e.number(0)),
            lambda: [e.load(bias, e.number(0))],
            lambda: [e.load(out, e.number(0))],
        )
        zero = ir.Constant(e.vector, [0.0] * PANEL)
        k, sums = e.loop(e.number(0), depth, chains, [start] + [zero] * (chains - 1), body)
        total = e.add(e.add(sums[0], sums[1]), e.add(sums[2], sums[3]))
        _, [total] = e.loop(k, depth, 1, [total], add_one)
        lane = ir.Constant(ir.VectorType(_WORD, PANEL), list(range(PANEL)))
        offset = builder.sub(lane, e.splat(first))
        wanted = builder.icmp_unsigned("<", offset, e.splat(count))
        e.store(builder.select(wanted, total, e.load(out, e.number(0))), out, e.number(0))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate


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
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), _FLOAT)

    return float32(int32), generate


@intrinsic
@no_type_check
def turn_block(_, source, line, out, out_line):
    """Transpose a square of `LANES` lines; addresses and strides are in bytes."""

    def generate(context, builder, _signature, args):
        source, line, out, out_line = args
        e = _Emitter(builder, LANES)
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
    kind = ir.VectorType(_INT, LANES)
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
        return builder.bitcast(args[0], _FLOAT)

    return float32(int32), generate


@intrinsic
@no_type_check
def word(_, address, index):
    """Return the integer at an address, `index` integers further."""

    def generate(_context, builder, _signature, args):
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        return builder.load(builder.gep(pointer, [args[1]], source_etype=_WORD), typ=_WORD)

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
            e = _Emitter(builder, LANES)
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
