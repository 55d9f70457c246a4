"""Compiled loops that read rows of numbers from the text of JSON and CSV, exactly rounded.

A number of at most 19 digits is an integer times a power of ten. Where both are exact in float64, one
division rounds them (Clinger 1990); otherwise the product with the first 128 bits of the power does
(D. Lemire, "Number parsing at a gigabyte per second", 2021, section 5). Digits are read eight at a
time, as the bytes of an integer of a little-endian processor. What is left to other parsers is said
by a negative result.

The parts of the loops take the address of a text, not its array: an array that is passed on is
counted, which takes longer than a number.

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
_OPEN_OBJECT, _CLOSE_OBJECT, _COLON = b"{}:"
_LINE_END, _RETURN = b"\n\r"
_SPACES = 1 << 32 | 1 << 9 | 1 << _LINE_END | 1 << _RETURN  # a bit for each
_SMALL_E = ord("e")
_SMALL_N, _SMALL_U, _SMALL_L = b"nul"
_EIGHT = 8  # bytes of a word
_ZEROS = 0x3030303030303030
_HIGH_BITS = 0x8080808080808080
_TO_HIGH_BIT = 0x7676767676767676  # takes 10 and more, but no digit, to the highest bit of a byte
_LOW_HALVES = 0x000000FF000000FF
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
def _trailing_zeros(_, number):
    """Return the number of trailing zeros of a number, 64 of 0."""

    def generate(_context, builder, _signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _load(builder, address, bits):
    """Load an integer of some bits, whatever it is aligned to."""
    pointer = builder.inttoptr(address, ir.IntType(bits).as_pointer())
    return builder.load(pointer, align=1)


@intrinsic
@no_type_check
def _byte(_, address):
    """Return the byte at an address."""

    def generate(_context, builder, _signature, args):
        return builder.zext(_load(builder, args[0], 8), ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic
@no_type_check
def _word(_, address):
    """Return the eight bytes from an address on, the first of them in the lowest bits."""

    def generate(_context, builder, _signature, args):
        return _load(builder, args[0], 64)

    return types.uint64(types.int64), generate


@intrinsic
@no_type_check
def _address(_, array):
    """Return the address of the first byte of an array."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), generate


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


_part = njit(forceinline=True, nogil=True, error_model="numpy")
"""Decorator of a part of the loops, which LLVM puts into them (numba takes four times as long for it)."""


@_part
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


@_part
@no_type_check
def _is_space(byte):
    return byte <= 32 and (_SPACES >> byte) & 1 == 1


@_part
@no_type_check
def _after_spaces(at):
    while _is_space(_byte(at)):
        at += 1
    return at


@_part
@no_type_check
def _power_of_ten(at):
    """Read an exponent behind its letter; return it, and where it ends, or NOT_PLAIN."""
    negative = _byte(at) == _MINUS
    if negative or _byte(at) == _PLUS:
        at += 1
    first, power = at, 0
    while 0 <= _byte(at) - _ZERO <= 9 and at - first < 5:
        power = 10 * power + _byte(at) - _ZERO
        at += 1
    if at == first or at - first == 5:
        return 0, NOT_PLAIN
    return -power if negative else power, at


@_part
@no_type_check
def _leading(at, end):
    """Return the number of zeros and points that a number begins with, without the point."""
    count = 0
    while at < end and (_byte(at) == _ZERO or _byte(at) == _POINT):
        if _byte(at) == _ZERO:
            count += 1
        at += 1
    return count


@_part
@no_type_check
def _other_bytes(values):
    """Return the highest bit of each byte above 9."""
    lower = values & ~uint64(_HIGH_BITS)
    return ((lower + uint64(_TO_HIGH_BIT)) | values) & uint64(_HIGH_BITS)


@_part
@no_type_check
def _of_eight(values):
    """Return the number of eight digits, of which the first is in the lowest byte."""
    pairs = values * uint64(10) + (values >> uint64(8))
    upper = (pairs & uint64(_LOW_HALVES)) * uint64(100 + (1_000_000 << 32))
    lower = ((pairs >> uint64(16)) & uint64(_LOW_HALVES)) * uint64(1 + (10_000 << 32))
    return (upper + lower) >> uint64(32)


@_part
@no_type_check
def _more_digits(at, stop, number):
    """Read digits; return the number that they continue, and where they end."""
    while at + _EIGHT <= stop:
        values = _word(at) ^ uint64(_ZEROS)
        if _other_bytes(values) != uint64(0):
            break
        number = number * uint64(100_000_000) + _of_eight(values)
        at += _EIGHT
    digit = _byte(at) - _ZERO
    while 0 <= digit <= 9:
        number = number * uint64(10) + uint64(digit)
        at += 1
        digit = _byte(at) - _ZERO
    return number, at


@_part
@no_type_check
def _scaled(number, power):
    """Return number * 10**power as the nearest float64; infinity for what needs a closer look."""
    if number <= uint64(_EXACT) and -_EXACT_POWER <= power <= 0:
        return float(number) / _TENS[-power]
    if number == uint64(0):
        return 0.0
    return _rounded(number, power) if _LEAST <= power <= _MOST else np.inf


@_part
@no_type_check
def _read_short(at):
    """Read a number of at most eight bytes without its sign, none of them an exponent.

    No branch depends on the sign or the length, which are seldom those of the number before.

    Returns:
        The number, and where it ends, or NOT_PLAIN. Nine bytes and one more are looked at.
    """
    negative = _byte(at) == _MINUS
    at += int64(negative)
    values = _word(at) ^ uint64(_ZEROS)
    others = _other_bytes(values)
    point = int64(_trailing_zeros(others) >> uint64(3))
    last = int64(_trailing_zeros(others & (others - uint64(1))) >> uint64(3))
    if _byte(at + point) != _POINT:
        last = point
    elif point == last - 1:
        return 0.0, NOT_PLAIN
    else:
        # The bytes behind the point move up to those before it.
        before = (uint64(1) << uint64(8 * point)) - uint64(1)
        values = ((values & before) | ((values >> uint64(8)) & ~before)) << uint64(8)
    if point == 0 or point >= _EIGHT or (point > 1 and _byte(at) == _ZERO):
        return 0.0, NOT_PLAIN
    following = _byte(at + last)
    if following | 32 == _SMALL_E or 0 <= following - _ZERO <= 9:
        return 0.0, NOT_PLAIN
    number = float(int64(_of_eight(values << uint64(8 * (_EIGHT - last)))))
    value = number / _TENS[max(last - point - 1, 0)]
    return -value if negative else value, at + last


@_part
@no_type_check
def _read_long(at, stop):
    """Read any number; return it, and where it ends, or NOT_PLAIN."""
    negative = _byte(at) == _MINUS
    if negative:
        at += 1
    first, power = at, int64(0)
    number, at = _more_digits(at, stop, uint64(0))
    digits = at - first
    is_plain = digits == 1 or (digits > 0 and _byte(first) != _ZERO)
    if _byte(at) == _POINT:
        point = at + 1
        number, at = _more_digits(point, stop, number)
        power = point - at
        digits -= power
        is_plain = is_plain and power < 0
    if digits > _DIGITS and digits - _leading(first, at) > _DIGITS:
        is_plain = False
    if _byte(at) | 32 == _SMALL_E:
        more, at = _power_of_ten(at + 1)
        power += more
    value = _scaled(number, power)
    return -value if negative else value, at if is_plain and value < np.inf else NOT_PLAIN


@_part
@no_type_check
def _read_number(at, stop):
    """Read the number that begins here; return it, and where it ends, or NOT_PLAIN."""
    value, end = 0.0, NOT_PLAIN
    if at + 1 + _EIGHT < stop:
        value, end = _read_short(at)
    if end < 0:
        value, end = _read_long(at, stop)
    return value, end


@_part
@no_type_check
def _read_value(at, stop):
    """Read the number that begins here, or not-a-number for null; return it, and where it ends, or NOT_PLAIN."""
    if _byte(at) != _SMALL_N:
        return _read_number(at, stop)
    if _byte(at + 1) != _SMALL_U or _byte(at + 2) != _SMALL_L or _byte(at + 3) != _SMALL_L:
        return np.nan, NOT_PLAIN
    return np.nan, at + 4


@_part
@no_type_check
def _after_key(at, end, key, key_end):
    """Return where the value of a key begins, of which the bytes are given; NOT_PLAIN for others."""
    if at + key_end - key >= end:
        return NOT_PLAIN
    while key < key_end:
        if _byte(at) != _byte(key):
            return NOT_PLAIN
        at += 1
        key += 1
    at = _after_spaces(at)
    return at + 1 if _byte(at) == _COLON else NOT_PLAIN


@_part
@no_type_check
def _read_row(at, end, stop, keys, places, out):
    """Write the values of the row that begins here, and return where it ends, or NOT_PLAIN."""
    keyed = len(places) > 0
    if _byte(at) != (_OPEN_OBJECT if keyed else _OPEN):
        return NOT_PLAIN
    for place in range(len(out)):
        at = _after_spaces(at + 1)
        if keyed:
            at = _after_key(at, end, keys + places[place], keys + places[place + 1])
            if at < 0:
                return NOT_PLAIN
            at = _after_spaces(at)
        out[place], at = _read_value(at, stop)
        if at < 0:
            return NOT_PLAIN
        at = _after_spaces(at)
        if _byte(at) != _COMMA and place < len(out) - 1:
            return NOT_PLAIN
    return at + 1 if _byte(at) == (_CLOSE_OBJECT if keyed else _CLOSE) else NOT_PLAIN


@njit(
    types.UniTuple(int64, 2)(TEXT, int64, int64, int64, TEXT, int64[::1], int64, float64[::1]),
    cache=True,
    nogil=True,
    error_model="numpy",
)
@no_type_check
def read_rows(text, at, end, width, keys, places, between, out):
    """Read rows of numbers, `[...], [...]` or `{...}, {...}`, until there are no more or no room.

    Args:
        text: Text of JSON. A closing bracket is its last byte before `end`, where lines end there, or
            comes at `end` and one more byte after it, so that no loop passes it.
        at: Place of the first row.
        end: Place of the end of the rows.
        width: Number of values of a row.
        keys: Quoted keys of rows that are objects, one after another in the order of their values.
        places: Place of each key in `keys`, and the end of the last; empty where rows are lists.
        between: Byte between two rows: a comma, or the end of a line.
        out: Room for the values of some rows.

    Returns:
        Number of values, or NOT_PLAIN; and where the next row begins, or `end`.
    """
    count, start, first_key = 0, _address(text), _address(keys)
    at, end, stop = start + at, start + end, start + len(text)
    while count + width <= len(out):
        at = _after_spaces(at)
        at = _read_row(at, end, stop, first_key, places, out[count : count + width])
        if at < 0:
            return NOT_PLAIN, at
        count += width
        while at < end and _byte(at) != between and _is_space(_byte(at)):
            at += 1
        if at == end:
            return count, end - start
        if at > end or _byte(at) != between or at + 1 == end:
            return NOT_PLAIN, at - start
        at += 1
    return count, at - start


@njit(
    types.UniTuple(int64, 2)(TEXT, int64, int64, int64, float64[::1]),
    cache=True,
    nogil=True,
    error_model="numpy",
)
@no_type_check
def read_lines(text, at, end, width, out):
    """Read lines of numbers with commas between them until there are no more or no room for them.

    Args:
        text: Text of CSV, of which the last byte before `end` ends a line.
        at: Place of the first line.
        end: Place after the last line.
        width: Number of values of a row.
        out: Room for the values of some rows.

    Returns:
        Number of values, or NOT_PLAIN; and where the next line begins, or `end`.
    """
    count, start = 0, _address(text)
    at, end, stop = start + at, start + end, start + len(text)
    while at < end and count + width <= len(out):
        for column in range(width):
            out[count], at = _read_number(at, stop)
            if at < 0:
                return NOT_PLAIN, at
            count += 1
            if column == width - 1 and _byte(at) == _RETURN:
                at += 1
            if _byte(at) != (_COMMA if column < width - 1 else _LINE_END):
                return NOT_PLAIN, at - start
            at += 1
    return count, at - start
