"""Micro-kernels of sums over the rows of a batch, in registers, written as LLVM code.

Blocks of gradients lie in panels of `ROWS` rows, features first; turned inputs have a line a row.
"""

from typing import Any, no_type_check

from llvmlite import ir
from numba import float32, types
from numba.extending import intrinsic

from flows.compiled.loops.micro_kernels import LANES, UNITS, VECTORS
from flows.compiled.loops.vectors import INT, Emitter
from flows.compiled_training.fields import ROWS

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.


@no_type_check
def weigh_block_of(units: int, vectors: int) -> Any:
    """Return the micro-kernel of weights' gradients, for some outputs and some vectors of inputs.

    out[unit, lane] = sum over rows of left[unit, row] * right[row, lane]. Addresses and strides are
    in bytes.
    """
    cells = [(unit, v) for unit in range(units) for v in range(vectors)]

    @intrinsic
    def weigh_block(_, left, unit_stride, panel_stride, rows, right, line, out, out_line):
        def generate(context, builder, _signature, args):
            left, unit_stride, panel_stride, rows, right, line, out, out_line = args
            e = Emitter(builder, LANES)
            strides = [builder.mul(unit_stride, e.number(n)) for n in range(units)]

            def over_rows(panel: Any, count: Any, sums: list[Any]) -> list[Any]:
                begin = builder.add(left, builder.mul(panel, panel_stride))
                lefts = [builder.add(begin, stride) for stride in strides]
                first = builder.mul(panel, e.number(ROWS))

                def body(k: Any, sums: list[Any]) -> list[Any]:
                    source = builder.add(right, builder.mul(builder.add(first, k), line))
                    inputs = [e.load(source, e.number(v)) for v in range(vectors)]
                    factors = [e.spread(lefts[unit], k) for unit in range(units)]
                    return [
                        e.multiply_add(total, factors[unit], inputs[v])
                        for total, (unit, v) in zip(sums, cells, strict=True)
                    ]

                return e.loop(e.number(0), count, 1, sums, body)[1]

            whole = builder.sdiv(rows, e.number(ROWS))
            rest = builder.sub(rows, builder.mul(whole, e.number(ROWS)))
            zeros = [e.constant(0.0)] * len(cells)
            _, sums = e.loop(
                e.number(0), whole, 1, zeros, lambda p, s: over_rows(p, e.number(ROWS), s)
            )
            sums = over_rows(whole, rest, sums)
            for total, (unit, v) in zip(sums, cells, strict=True):
                place = builder.add(out, builder.mul(out_line, e.number(unit)))
                e.store(total, place, e.number(v))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), generate

    return weigh_block


@intrinsic
@no_type_check
def sum_unit(_, address, panel_stride, panels):
    """Return the sum of a unit over all rows; the stride from panel to panel is in bytes."""

    def generate(_context, builder, _signature, args):
        address, panel_stride, panels = args
        e = Emitter(builder, LANES)

        def add(panel: Any, sums: list[Any]) -> list[Any]:
            at = builder.add(address, builder.mul(panel, panel_stride))
            return [builder.fadd(total, e.load(at, e.number(v))) for v, total in enumerate(sums)]

        _, sums = e.loop(e.number(0), panels, 1, [e.constant(0.0)] * VECTORS, add)
        whole = sums[0]
        for one in sums[1:]:
            whole = builder.fadd(whole, one)
        total = builder.extract_element(whole, ir.Constant(INT, 0))
        for lane in range(1, LANES):
            one = builder.extract_element(whole, ir.Constant(INT, lane))
            total = builder.fadd(total, one)
        return total

    return float32(types.int64, types.int64, types.int64), generate


weigh_1, weigh_2, weigh_4, weigh_all = (weigh_block_of(n, 1) for n in (1, 2, 4, UNITS))
weigh_wide_1, weigh_wide_2, weigh_wide_4, weigh_wide_all = (
    weigh_block_of(n, VECTORS) for n in (1, 2, 4, UNITS)
)
