"""Compiled loops that read lists of numbers from JSON text, exactly rounded.

A number of at most 19 digits is an integer times a power of ten. Where both are exact in float64, one
division rounds them (Clinger 1990); otherwise the product with the first 128 bits of the power does
(D. Lemire, "Number parsing at a gigabyte per second", 2021, section 5). What is left to other
parsers is said by a negative result.

Importing this module compiles it, or reads numba's cache.
"""

from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import float64, int64, njit, types, uint8, uint64
from numba.extending import intrinsic

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

NOT_PLAIN = -1
"""Result for text that is not rows of numbers, or has numbers that need a closer look."""

_LEAST, _MOST = -342, 308  # powers of ten between which a product can be a float64
_DIGITS = 19  # which 64 bits always hold
_EXACT, _EXACT_POWER = 1 << 53, 22
_OPEN, _CLOSE, _COMMA, _MINUS, _PLUS, _POINT, _ZERO = b"[],-+.0"
_SMALL_E = ord("e")
TEXT = types.Array(uint8, 1, "C", readonly=True)


@intrinsic
@no_type_check
def _high_product(_, left, right):
    """Return the upper 64 bits of a product."""

    def generate(_context, builder, _signature, args):
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(number, wide) for number in args))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
@no_type_check
def _leading_zeros(_, number):
    """Return the number of leading zeros of a number that is not 0."""

    def generate(_context, builder, _signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
@no_type_check
def _as_float(_, bits):
    """Return the float64 of some bits."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), generate


def _powers() -> Any:
    """Return the first 128 bits of each power of five; of reciprocals the next larger number."""
    powers = []
    for exponent in range(_LEAST, _MOST + 1):
        power = 5 ** abs(exponent)
        if exponent < 0:
            size = (power - 1).bit_length()
            power = 2 ** (size + 127 if exponent >= -27 else 2 * size + 128) // power + 1
        excess = power.bit_length() - 128
        power = power >> excess if excess > 0 else power << -excess
        powers.append((power >> 64, power & (2**64 - 1)))
    return np.array(powers, np.uint64)


_POWERS = _powers()
_TENS = 10.0 ** np.arange(_EXACT_POWER + 1)


@njit(float64(uint64, int64), inline="always", cache=True, nogil=True)
@no_type_check
def _rounded(number, exponent):
    """Return number * 10**exponent as the nearest float64; infinity if it is not a normal one."""
    zeros = _leading_zeros(number)
    number = number << zeros
    power = exponent - _LEAST
    high, low = _high_product(number, _POWERS[power, 0]), number * _POWERS[power, 0]
    if high & uint64(0x1FF) == uint64(0x1FF):
        more = _high_product(number, _POWERS[power, 1])
        low += more
        if more > low:
            high += uint64(1)
    upper = high >> uint64(63)
    mantissa = high >> (upper + uint64(9))
    binary = ((int64(217706) * exponent) >> 16) + 63 + int64(upper) - int64(zeros) + 1023
    is_tie = low <= uint64(1) and mantissa & uint64(3) == uint64(1)
    if is_tie and -4 <= exponent <= 23 and mantissa << (upper + uint64(9)) == high:
        mantissa &= ~uint64(1)
    mantissa += mantissa & uint64(1)
    mantissa >>= uint64(1)
    if mantissa >= uint64(1 << 53):
        mantissa = uint64(1 << 52)
        binary += 1
    if binary <= 0 or binary >= 2047:
        return np.inf
    return _as_float((mantissa & ~uint64(1 << 52)) | (uint64(binary) << uint64(52)))


@njit(int64(TEXT, int64), inline="always", cache=True, nogil=True)
@no_type_check
def _after_spaces(text, at):
    while text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9:
        at += 1
    return at


@njit(types.UniTuple(int64, 2)(TEXT, int64), inline="always", cache=True, nogil=True)
@no_type_check
def _power_of_ten(text, at):
    """Read an exponent behind its letter; return it, and where it ends, or NOT_PLAIN."""
    negative = text[at] == _MINUS
    at += negative or text[at] == _PLUS
    first, power = at, 0
    while 0 <= text[at] - _ZERO <= 9 and at - first < 5:
        power = 10 * power + text[at] - _ZERO
        at += 1
    if at == first or at - first == 5:
        return 0, NOT_PLAIN
    return -power if negative else power, at


@njit(int64(TEXT, int64, int64), inline="always", cache=True, nogil=True)
@no_type_check
def _leading(text, at, end):
    """Return the number of zeros and points that a number begins with, without the point."""
    count = 0
    while at < end and (text[at] == _ZERO or text[at] == _POINT):
        count += text[at] == _ZERO
        at += 1
    return count


@njit(types.Tuple((uint64, int64))(TEXT, int64, uint64), inline="always", cache=True, nogil=True)
@no_type_check
def _more_digits(text, at, number):
    """Read digits; return the number that they continue, and where they end."""
    digit = text[at] - _ZERO
    while 0 <= digit <= 9:
        number = number * uint64(10) + uint64(digit)
        at += 1
        digit = text[at] - _ZERO
    return number, at


@njit(float64(uint64, int64), inline="always", cache=True, nogil=True)
@no_type_check
def _scaled(number, power):
    """Return number * 10**power as the nearest float64; infinity for what needs a closer look."""
    if number <= uint64(_EXACT) and -_EXACT_POWER <= power <= 0:
        return float(number) / _TENS[-power]
    if number == uint64(0):
        return 0.0
    return _rounded(number, power) if _LEAST <= power <= _MOST else np.inf


@njit(int64(TEXT, int64, float64[::1], int64), inline="always", cache=True, nogil=True)
@no_type_check
def _read_number(text, at, out, place):
    """Write the number that begins here, and return where it ends, or NOT_PLAIN."""
    negative = text[at] == _MINUS
    if negative:  # a branch lets the processor go on before it has seen the sign
        at += 1
    first, power = at, int64(0)
    number, at = _more_digits(text, at, uint64(0))
    digits = at - first
    is_plain = digits == 1 or (digits > 0 and text[first] != _ZERO)
    if text[at] == _POINT:
        point = at + 1
        number, at = _more_digits(text, point, number)
        power = point - at
        digits -= power
        is_plain = is_plain and power < 0
    if digits > _DIGITS and digits - _leading(text, first, at) > _DIGITS:
        is_plain = False
    if text[at] | 32 == _SMALL_E:
        more, at = _power_of_ten(text, at + 1)
        power += more
    value = _scaled(number, power)
    out[place] = -value if negative else value
    return at if is_plain and value < np.inf else NOT_PLAIN


@njit(types.UniTuple(int64, 2)(TEXT, int64, int64, int64, float64[::1]), cache=True, nogil=True)
@no_type_check
def read_rows(text, at, end, width, out):
    """Read rows of numbers, `[...], [...]`, until there are no more or no room for them.

    Args:
        text: Text of JSON, in which a bracket `]` and one more byte come at `end`: no loop passes them.
        at: Place of the first row.
        end: Place of the end of the list.
        width: Number of values of a row.
        out: Room for the values of some rows.

    Returns:
        Number of values, or NOT_PLAIN; and where the next row begins, or `end`.
    """
    count = 0
    while count + width <= len(out):
        at = _after_spaces(text, at)
        if text[at] != _OPEN:
            return NOT_PLAIN, at
        at += 1
        for column in range(width):
            at = _read_number(text, _after_spaces(text, at), out, count)
            if at < 0:
                return NOT_PLAIN, at
            count += 1
            at = _after_spaces(text, at)
            if text[at] != (_COMMA if column < width - 1 else _CLOSE):
                return NOT_PLAIN, at
            at += 1
        at = _after_spaces(text, at) if at < end else at
        if at == end:
            return count, end
        if at > end or text[at] != _COMMA or at + 1 == end:
            return NOT_PLAIN, at
        at += 1
    return count, at
