"""Numbers written as text: which texts are numbers, and which values they have."""

import re

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

MAX_DECIMALS = 15
"""The most decimals that a value is rounded to: float64 has no more."""

CURRENCIES = "$€£¥₹₽₩₺₪฿₫₴₦￥\\"
"""Signs of currencies; a yen is a backslash in Shift-JIS."""

CURRENCY_CODES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN"),
    *("BRL", "MXN", "KRW", "Rs", "kr"),
)
"""Other texts that stand before amounts of money, with or without a space."""

ABBREVIATED = "K|M|B|T"
"""Unit of columns whose numbers may end with a sign for a power of a thousand, each with its own."""

_MARK = b"decimal_mark"
_SPACES = "[\u00a0\u202f\u2009]"
_PLAIN = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)$"


def parse_numbers(
    text: pa.Array, *, decimal: str = ".", thousands: str = ""
) -> NDArray[np.float64]:
    """Return the value of each text, not-a-number where it is null or no number.

    Args:
        text: Strings without white space around them.
        decimal: Character before the decimals.
        thousands: Character between groups of three digits; none where it is empty.
    """
    if (decimal, thousands) != (".", ""):
        grouped = pc.match_substring_regex(text, _grouped(decimal, thousands))
        text = pc.if_else(grouped, text, pa.scalar(None, pa.string()))
        if thousands:
            text = pc.replace_substring(text, thousands, "")
        if decimal != ".":
            text = pc.replace_substring(text, decimal, ".")
    numeric = pc.match_substring_regex(text, _PLAIN)
    known = pc.if_else(numeric, text, pa.scalar(None, pa.string()))
    values: NDArray[np.float64] = pc.cast(known, pa.float64()).to_numpy(zero_copy_only=False)
    return values


def plain_marks(text: pa.Array) -> pa.Array:
    """Return texts of numbers with the marks of ASCII: spaces, apostrophes and minus signs of print.

    A number in parentheses, as accountants write it, or with a minus sign behind it, is negative.
    """
    if not pc.all(pc.string_is_ascii(text)).as_py():
        text = pc.replace_substring_regex(text, _SPACES, " ")
        text = pc.replace_substring_regex(text, "^−", "-")  # noqa: RUF001 - a minus sign
        text = pc.replace_substring(text, "’", "'")  # noqa: RUF001 - an apostrophe
    if pc.any(pc.ends_with(text, ")")).as_py():
        text = pc.replace_substring_regex(text, r"^\(([^()+-]+)\)$", r"-\1")
    if pc.any(pc.ends_with(text, "-")).as_py():
        text = pc.replace_substring_regex(text, r"^(\d[^+-]*)-$", r"-\1")
    return text


def _grouped(decimal: str, thousands: str) -> str:
    """Return the pattern of numbers with these separators.

    Groups have three digits; as in India, those before the last may have two.
    """
    point, mark = re.escape(decimal), re.escape(thousands)
    groups = rf"(({mark}\d{{3}})+|({mark}\d{{2}})+{mark}\d{{3}})"
    whole = rf"[1-9]\d{{0,2}}{groups}|\d+" if thousands else r"\d+"
    return rf"(?i)^[+-]?(({whole})({point}\d*)?|{point}\d+)(e[+-]?\d+)?$"


def abbreviated_numbers(
    text: pa.Array, *, decimal: str = ".", thousands: str = ""
) -> NDArray[np.float64]:
    """Return the value of each text, which may end with K, M, B or T, for powers of a thousand.

    Args:
        text: Strings without white space around them.
        decimal: Character before the decimals.
        thousands: Character between groups of three digits; none where it is empty.
    """
    values = parse_numbers(
        pc.replace_substring_regex(text, r"^(.*\d[.,]?) ?[KkMBT]$", r"\1"),
        decimal=decimal,
        thousands=thousands,
    )
    ends = pc.fill_null(pc.utf8_slice_codeunits(text, -1), "")
    for power, signs in enumerate(("Kk", "M", "B", "T"), start=1):
        found = pc.is_in(ends, pa.array(list(signs))).to_numpy(zero_copy_only=False)
        values = np.where(found, values * 1000.0**power, values)
    return values


def marked_field(name: str, kind: pa.DataType, decimal: str) -> pa.Field:
    """Return a field that says which decimal mark the text of its numbers has.

    Args:
        name: Name of the column.
        kind: Type of its cells.
        decimal: Character before the decimals.
    """
    return pa.field(name, kind, metadata=None if decimal == "." else {_MARK: decimal})


def with_marks(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose numbers with another decimal mark than a point are texts that have it."""
    for place, field in enumerate(batch.schema):
        mark = (field.metadata or {}).get(_MARK)
        if mark is not None and pa.types.is_floating(field.type):
            text = pc.replace_substring(batch.column(place).cast(pa.string()), ".", mark.decode())
            batch = batch.set_column(place, field.name, text)
    return batch


def count_decimals(values: NDArray[np.float64]) -> int | None:
    """Return the decimals that all values have at most; None beyond `MAX_DECIMALS`, or without values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    for decimals in range(MAX_DECIMALS + 1):
        finite = finite[round_to(finite, decimals) != finite]
        if not finite.size:
            return decimals
    return None


def round_to(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    """Return values with so many decimals, never a negative zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.round(values, decimals)
    # Beyond 2^53 steps every float64 has so many decimals already.
    kept = np.where(np.isfinite(rounded), rounded, values)
    return np.asarray(kept + 0.0, np.float64)
