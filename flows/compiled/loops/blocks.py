"""Blocks of matrix products, by the micro-kernel for their size."""

from typing import no_type_check

from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import UNITS, VECTORS, product_block_of, stay_apart

# mypy: ignore-errors
# numba compiles these functions by its own types.

_narrow_1, _narrow_2, _narrow_4, _narrow_all = (product_block_of(n, 1) for n in (1, 2, 4, UNITS))
_wide_1, _wide_2, _wide_4, _wide_all = (product_block_of(n, VECTORS) for n in (1, 2, 4, UNITS))


@jit()
@no_type_check
def block(units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias):
    """Compute a block of a product by the micro-kernel for this number of units and vectors."""
    stay_apart()
    if vectors == VECTORS:
        if units == UNITS:
            _wide_all(left, unit_stride, step, depth, right, line, out, out_line, bias)
        elif units == 4:
            _wide_4(left, unit_stride, step, depth, right, line, out, out_line, bias)
        elif units == 2:
            _wide_2(left, unit_stride, step, depth, right, line, out, out_line, bias)
        else:
            _wide_1(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == UNITS:
        _narrow_all(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == 4:
        _narrow_4(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == 2:
        _narrow_2(left, unit_stride, step, depth, right, line, out, out_line, bias)
    else:
        _narrow_1(left, unit_stride, step, depth, right, line, out, out_line, bias)
