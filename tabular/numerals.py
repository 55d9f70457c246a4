"""Numbers written as text: which texts are numbers, which values they have, and how they are written.

A format is like one of a spreadsheet, for numbers that are not negative and, behind a semicolon, for those
that are: `#,##0.00 kg;-#,##0.00 kg`. Its marks are those of the file; `0.#` has as many decimals as a
number needs.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.columns import Column

MAX_DECIMALS = 15
"""The most decimals that a value is rounded to: float64 has no more."""

MAX_PLACES = 40
"""Most decimals of a format of numbers, each of which is a zero in it."""

_LONGEST_BYTES = 4096  # of a text that may be a number

MAX_NUMBER_FORMAT = 256
"""Most characters of a format of numbers."""

CURRENCIES = "$€£¥₹₽₩₺₪฿₫₴₦￥\\"
"""Signs of currencies; a yen is a backslash in Shift-JIS."""

CURRENCY_CODES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN"),
    *("BRL", "MXN", "KRW", "Rs.", "Rs", "Fr.", "kr.", "kr", "R$"),
)
"""Other texts that stand before amounts of money, with or without a space."""

ABBREVIATED = "K|M|B|T"
"""Unit of columns whose numbers may end with a sign for a power of a thousand, each with its own."""

DEGREES = "° ' \""
"""Unit of angles that are written in degrees, minutes and seconds, and may end with a letter: 46°48'12"N."""

FRACTIONS = "1/2"
"""Unit of columns whose numbers may have a fraction behind them: 3 1/2, 3½."""

MARKED = "*"
"""Unit of columns some of whose numbers have a mark behind them that is no part of their value: 12.3 p, 0.5**."""

PRINTED = "\u2212"
"""Unit of columns some of whose numbers have signs that programs do not read: \u22125, (5), 5-, '5, 1.5D+02."""

FOOTNOTE = re.compile(r"(\d)(?: ?\*{1,4}| ?[†‡§¹²³⁴⁵]| [a-z]{1,2}| ?\[\d{1,3}\]| ?\([a-z]\))$")
"""Digit with such a mark behind it."""

OTHER_DIGITS = "[\uff10-\uff19\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59]"
"""Digits of full width, Arabic, Persian, Devanagari, Bengali and Thai ones, as a pattern."""

PLAIN_FORMATS = frozenset({"", "0;-0", "0.#;-0.#"})
"""Formats of numbers that are written as they are."""

_FORMAT = b"number_format"
_DIGITS = re.compile(
    r"(?:#(?P<mark>.)##(?P<pairs>(?P=mark)##)?)?0(?:(?P<point>[.,])(?P<places>0+|#))?"
)
_ZEROS = (0xFF10, 0x660, 0x6F0, 0x966, 0x9E6, 0xE50)
_ASCII_DIGITS = {zero + digit: str(digit) for zero in _ZEROS for digit in range(10)} | {
    0x66B: ".",
    0x66C: ",",
    0xFF0E: ".",
    0xFF0C: ",",
    0xFF0D: "-",
}
_AMOUNT = r"(?:[^\d\s()+-]{1,3} ?)?\d[\d.,' ]*?"
_SPACES = "[\u00a0\u202f\u2009]"
_DEGREES = (
    r"^(?P<sign>[+-]?)(?P<before>[NSEWO]?) ?(?P<d>\d{1,3}(?:\.\d+)?)(?:° ?(?:(?P<m>\d{1,2}(?:\.\d+)?)['′’] ?"  # noqa: RUF001
    r"(?:(?P<s>\d{1,2}(?:\.\d+)?)(?:[\"″”]|'') ?)?)?)? ?(?P<after>[NSEWO]?)$"
)
_FRACTION = (
    r"^(?P<sign>[+-]?)(?:(?P<whole>\d{1,9})[ -])?(?P<over>\d{1,3})[/\x{2044}](?P<under>\d{1,4})$"
)
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"} | {
    sign: f"{over}/8" for sign, over in zip("⅛⅜⅝⅞", (1, 3, 5, 7), strict=True)
}
_POWERS = r"\d[dD][+-]\d|[xX×*·] ?10(?:\^|[⁰¹²³⁴-⁹⁺⁻])"  # noqa: RUF001 - signs of products
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
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


def _by_cell(text: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """Return texts of which a function has changed those that may be numbers; others may have megabytes."""
    short = pc.less_equal(pc.binary_length(text), _LONGEST_BYTES)
    cells = pc.if_else(short, text, pa.scalar(None, pa.string())).to_pylist()
    changed = pa.array([cell and change(cell) for cell in cells], pa.string())
    return pc.if_else(short, changed, text)


def plain_digits(text: pa.Array) -> pa.Array:
    """Return texts with the digits of ASCII, and the separators that go with them, for those of other scripts."""
    if pc.all(pc.string_is_ascii(text)).as_py():
        return text
    if not pc.any(pc.match_substring_regex(text, OTHER_DIGITS)).as_py():
        return text
    return _by_cell(text, lambda cell: cell.translate(_ASCII_DIGITS))


def plain_marks(text: pa.Array) -> pa.Array:
    """Return texts of numbers with the marks of ASCII: digits, spaces, apostrophes and minus signs of print.

    A number in parentheses, as accountants write it, or with a minus sign or Dr behind it, is negative; a
    dash in place of the decimals of an amount is left out, and one in place of an amount is zero. An
    apostrophe in front, by which a spreadsheet keeps a number as text, is left out.
    """
    if not pc.all(pc.string_is_ascii(text)).as_py():
        text = plain_digits(text)
        text = pc.replace_substring_regex(text, _SPACES, " ")
        text = pc.replace_substring_regex(text, r"^[−–] ?([\d.,]|\p{Sc})", r"-\1")  # noqa: RUF001 - a minus sign, a dash
        text = pc.replace_substring(text, "’", "'")  # noqa: RUF001 - an apostrophe
    text = _with_exponents(text)
    if pc.any(pc.starts_with(text, "'")).as_py():
        text = pc.replace_substring_regex(text, r"^'([+-]?[.,]?\d)", r"\1")
    if pc.any(pc.match_substring_regex(text, r"(?i)\d ?[CD]R\.?$")).as_py():
        text = pc.replace_substring_regex(text, rf"(?i)^({_AMOUNT}) ?DR\.?$", r"-\1")
        text = pc.replace_substring_regex(text, rf"(?i)^([+-]?{_AMOUNT}) ?CR\.?$", r"\1")
    if pc.any(pc.ends_with(text, ")")).as_py():
        text = pc.replace_substring_regex(text, r"^([^\d\s()+-]{1,3} ?)?\(([^()+-]+)\)$", r"-\1\2")
    for sign in "-–—":  # noqa: RUF001 - dashes
        if pc.any(pc.ends_with(text, sign)).as_py():
            text = pc.replace_substring_regex(text, rf"^[{re.escape(CURRENCIES)}] *{sign}$", "0")
            text = pc.replace_substring_regex(text, rf"(\d)[.,]-?{sign}$", r"\1")
            text = pc.replace_substring_regex(text, rf"^(\d[^+-]*){sign}$", r"-\1")
    if pc.any(pc.ends_with(text, "+")).as_py():  # of amounts: 4+ is four and more
        text = pc.replace_substring_regex(text, r"^(\d[^+-]*[.,]\d\d)\+$", r"\1")
    return text


def _with_exponents(text: pa.Array) -> pa.Array:
    """Return texts with the exponents of Fortran (1.5D+02) and of print (1.5*10^2) as those of other programs."""
    if not pc.any(pc.match_substring_regex(text, _POWERS)).as_py():
        return text
    if not pc.all(pc.string_is_ascii(text)).as_py():
        text = _by_cell(text, lambda cell: re.sub("[⁰¹²³⁴-⁹⁺⁻]+", _raised, cell))
    # Seat 29D-7 is no number.
    for digits, power in ((r"\d*[.,][\d.,]*", r"\d{1,3}"), (r"\d+", r"\d{2,3}")):
        pattern = rf"^([+-]?{digits})[dD]([+-]{power})$"
        text = pc.replace_substring_regex(text, pattern, r"\1e\2")
    return pc.replace_substring_regex(
        text,
        r"^([+-]?[\d.,]+) ?[xX×*·] ?10\^([+-]?\d{1,3})$",  # noqa: RUF001 - signs of products
        r"\1e\2",
    )


def _raised(digits: re.Match[str]) -> str:
    return "^" + digits[0].translate(_SUPERSCRIPTS)


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

    A sign of a currency in front is left out.

    Args:
        text: Strings without white space around them.
        decimal: Character before the decimals.
        thousands: Character between groups of three digits; none where it is empty.
    """
    text = pc.replace_substring_regex(text, rf"^([+-]?)[{re.escape(CURRENCIES)}] ?", r"\1")
    # As exponents: 1.1 times a thousand is not 1100.
    for power, signs in enumerate(("[Kk]", "M", "B", "T"), start=1):
        text = pc.replace_substring_regex(text, rf"(\d[.,]?) ?{signs}$", rf"\1e{3 * power}")
    return parse_numbers(text, decimal=decimal, thousands=thousands)


def without_marks(text: pa.Array) -> pa.Array:
    """Return texts of numbers without the mark of a footnote or a flag behind them."""
    return pc.replace_substring_regex(text, FOOTNOTE.pattern, r"\1")


def degrees(text: pa.Array) -> NDArray[np.float64]:
    """Return the value of each angle in degrees, with at most seven decimals, south and west of 0 negative.

    Args:
        text: Strings without white space around them.
    """
    found = pc.extract_regex(text, _DEGREES)
    parts = [
        pc.cast(pc.if_else(pc.equal(part, ""), "0", part), pa.float64())
        for part in (pc.struct_field(found, [name]) for name in ("d", "m", "s"))
    ]
    whole, minutes, seconds = (part.to_numpy(zero_copy_only=False) for part in parts)
    values = np.where(
        (minutes < 60) & (seconds < 60), whole + minutes / 60 + seconds / 3600, np.nan
    )
    sides = pc.binary_join_element_wise(
        *(pc.struct_field(found, [name]) for name in ("sign", "before", "after")), ""
    )
    below = pc.fill_null(pc.match_substring_regex(sides, "[-SW]"), fill_value=False)
    return round_to(np.where(below.to_numpy(zero_copy_only=False), -values, values), 7)


def fractions(text: pa.Array) -> NDArray[np.float64]:
    """Return the value of each text that is a fraction, or a whole number with one behind it.

    Args:
        text: Strings without white space around them.
    """
    for sign, fraction in _VULGAR.items():
        if pc.any(pc.match_substring(text, sign)).as_py():
            text = pc.replace_substring_regex(text, f" ?{sign}", f" {fraction}")
    found = pc.extract_regex(pc.utf8_trim_whitespace(text), _FRACTION)
    sign, *parts = (pc.struct_field(found, [name]) for name in ("sign", "whole", "over", "under"))
    whole, over, under = (
        pc.cast(pc.if_else(pc.equal(part, ""), "0", part), pa.float64()).to_numpy(
            zero_copy_only=False
        )
        for part in parts
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = whole + np.where(under > 0, over / under, np.nan)
    below = pc.fill_null(pc.equal(sign, "-"), fill_value=False).to_numpy(zero_copy_only=False)
    return np.asarray(np.where(below, -values, values), np.float64)


def are_versions(texts: Iterable[str]) -> bool:
    """Return whether some numbers end with a zero that others lack, as versions do: 1.9 and 1.10."""
    places = {text: len(text.partition(".")[2]) for text in texts}
    zeros = [count for text, count in places.items() if count > 1 and text.endswith("0")]
    return bool(zeros) and any(0 < count < max(zeros) for count in places.values())


def round_to(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    """Return values with so many decimals, never a negative zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.round(values, decimals)
    # Beyond 2^53 steps every float64 has so many decimals already.
    kept = np.where(np.isfinite(rounded), rounded, values)
    return np.asarray(kept + 0.0, np.float64)


class _Written(NamedTuple):
    """Format of numbers of one sign."""

    before: str
    after: str
    mark: str
    pairs: bool
    point: str
    places: int | None

    def text(self, number: float) -> str:
        """Return a number without its sign."""
        if self.places is None:
            digits = (f"{number:,}" if self.mark else f"{number}").removesuffix(".0")
        else:
            digits = f"{number:,.{self.places}f}" if self.mark else f"{number:.{self.places}f}"
        whole, _, decimals = digits.partition(".")
        if self.mark:
            whole = _in_pairs(whole) if self.pairs else whole
            whole = whole.replace(",", self.mark)
        return f"{self.before}{whole}{self.point if decimals else ''}{decimals}{self.after}"


def fitting(form: str, decimals: int | None) -> str:
    """Return a format if numbers of so many decimals can be written in it, else an empty one."""
    sides = _sides(form)
    if sides is None or (places := sides[0].places) is None:
        return form
    return form if decimals is not None and decimals <= places else ""


def formatted_field(column: Column, kind: pa.DataType) -> pa.Field:
    """Return the field of a column, which says how its numbers are written as text.

    Args:
        column: Type of the column.
        kind: Type of its cells.
    """
    found = column.number_format or ("" if column.decimal == "." else "0,#;-0,#")
    return pa.field(column.name, kind, metadata={_FORMAT: found} if found else None)


def with_formats(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose numbers are texts where their fields say how they are written."""
    fields, columns = list(batch.schema), batch.columns
    for place, field in enumerate(fields):
        form = (field.metadata or {}).get(_FORMAT)
        if form is not None and (
            pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        ):
            columns[place] = format_numbers(columns[place], form.decode())
            fields[place] = pa.field(field.name, columns[place].type)
    # At once: to set a column takes as long as there are columns.
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def format_numbers(numbers: pa.Array, form: str) -> pa.Array:
    """Return numbers as text, null where they are null or no finite ones; plain ones where the format is none."""
    sides = _sides(form)
    if sides is None:
        return numbers.cast(pa.string())
    above, below = sides
    texts = [
        None
        if number is None or not np.isfinite(number)
        else (below.text(-number) if number < 0 else above.text(number))
        for number in numbers.to_pylist()
    ]
    return pa.array(texts, pa.string())


@lru_cache(maxsize=512)
def _sides(form: str) -> tuple[_Written, _Written] | None:
    """Return the two halves of a format; None where it is none."""
    found = [_written(half) for half in form.split(";")]
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    return found[0], found[1]


def _written(half: str) -> _Written | None:
    found = _DIGITS.search(half)
    if found is None:
        return None
    places = found["places"] or ""
    if len(places) > MAX_PLACES:
        return None
    return _Written(
        before=half[: found.start()],
        after=half[found.end() :],
        mark=found["mark"] or "",
        pairs=found["pairs"] is not None,
        point=found["point"] or ".",
        places=None if places == "#" else len(places),
    )


def _in_pairs(whole: str) -> str:
    """Return digits in groups of two but for the last three, as in India."""
    digits = whole.replace(",", "")
    head, last = digits[:-3], digits[-3:]
    groups = [head[max(0, end - 2) : end] for end in range(len(head), 0, -2)]
    return ",".join([*reversed(groups), last])
