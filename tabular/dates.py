"""Dates and times written as text, to seconds since 1970 in UTC and back.

A format is one of `datetime.strptime`, with English names of months and days; None is ISO 8601, with or without
a time of day and a zone.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

DAY_S = 86_400
"""Seconds of a day."""

ISO_DATE = "%Y-%m-%d"
"""Format of dates without a time of day."""

COMPACT_DATE = "%Y%m%d"
"""Format of dates that are eight digits."""

MAX_FORMAT = 64
"""The most characters of a format."""

_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0  # of the years 1 to 9999
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHORT_MONTHS = {"sept": 9} | {name[:3]: place for place, name in enumerate(_MONTHS, 1)}
_MONTH_NUMBERS = _SHORT_MONTHS | {name: place for place, name in enumerate(_MONTHS, 1)}
_THURSDAY = 3  # the day of the week of 1970-01-01

_ZONE = r"(?P<z>Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)"
_ISO_PATTERN = (
    r"^(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
    rf"(?:[Tt ](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{{1,9}}))?)? ?{_ZONE}?)?$"
)
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "M": r"(?P<M>\d\d)",
    "S": r"(?P<S>\d\d)",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>[AaPp])\.?[Mm]\.?",
    "b": r"(?P<b>[A-Za-z]{3,4})\.?",
    "B": r"(?P<B>[A-Za-z]{3,9})",
    "a": r"[A-Za-z]{3}",
    "A": r"[A-Za-z]{6,9}",
    "z": _ZONE,
    "%": "%",
}
_DATES = (
    *("%Y/%m/%d", "%Y.%m.%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y"),
    *("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M")
FORMATS: tuple[str | None, ...] = (
    *(
        ISO_DATE,
        *(f"{ISO_DATE}{t}" for t in (" %H:%M:%S", "T%H:%M:%S", "T%H:%M:%SZ", " %H:%M")),
        None,
    ),
    *(COMPACT_DATE, "%Y%m%dT%H%M%S", "%Y-%m", "%H:%M", "%H:%M:%S"),
    *(f"{date}{time}" for date in _DATES for time in _TIMES),
    *(
        "%d/%b/%Y:%H:%M:%S",
        "%d/%b/%Y:%H:%M:%S %z",
        "%a, %d %b %Y %H:%M:%S %z",
        "%a, %d %b %Y %H:%M:%S",
    ),
    *("%a %b %d %H:%M:%S %Y", "%Y/%m/%d %H:%M:%S %z", "%A, %B %d, %Y", "%a, %d %b %Y"),
)
"""Formats that columns of text are compared with, the first that fits first."""


def parse_dates(
    text: pa.Array,
    format: str | None = None,  # noqa: A002 - the word for it
    *,
    first_year: int | None = None,
) -> NDArray[np.float64]:
    """Return the seconds since 1970 of each text, not-a-number where it is null or no such date.

    Args:
        text: Strings without white space around them.
        format: Format of the dates. A date without a zone is in UTC.
        first_year: First of the hundred years that years of two digits stand for; None: those of
            `strptime`, 1969 to 2068.
    """
    parts = pc.extract_regex(text, _pattern(format))
    if parts.null_count == len(parts):
        return np.full(len(parts), np.nan)
    known = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    fields = _Parts(parts)
    days, valid = _days(fields, 1969 if first_year is None else first_year)
    time_s, valid_time = _time_of_day(fields)
    zone_s, valid_zone = fields.zone()
    seconds = days * DAY_S + time_s + fields.fraction() - zone_s
    return np.where(known & valid & valid_time & valid_zone, seconds, np.nan)


def format_dates(
    seconds: NDArray[np.floating],
    format: str | None = None,  # noqa: A002 - as above
    *,
    date_only: bool = False,
    decimals: int = 0,
) -> pa.Array:
    """Return dates as text, null where they are not-a-number; those beyond the years 1 to 9999 are cut.

    Args:
        seconds: Seconds since 1970 in UTC.
        format: Format of the dates.
        date_only: True to write the nearest date, without a time of day, in ISO 8601.
        decimals: Decimals of the seconds.
    """
    values = np.asarray(seconds, np.float64)
    missing = np.isnan(values)
    values = np.clip(np.where(missing, 0.0, values), _FIRST_S, _LAST_S)
    if date_only:
        half = 0 if format is None or re.search("%-?d", format) else 15  # to the middle of a month
        values = np.minimum((np.rint(values / DAY_S) + half) * DAY_S, _LAST_S)
    scale = 10 ** min(max(decimals, 0), 6)
    ticks = np.rint((values - np.floor(values)) * scale).astype(np.int64)
    whole = np.floor(values).astype(np.int64) + ticks // scale
    ticks = np.where(whole > _LAST_S, scale - 1, ticks % scale)
    clock = _Clock(np.minimum(whole, int(_LAST_S)), ticks, digits=len(str(scale)) - 1)
    iso = ISO_DATE if date_only else "%Y-%m-%dT%H:%M:%S" + (".%f" if clock.digits else "") + "Z"
    parts = [clock.part(token) for token in _tokens(format or iso)]
    joined = pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else parts[0]
    return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), joined)


def check_format(format: str) -> None:  # noqa: A002 - as above
    """Refuse a format that is not understood, or does not give a date.

    Raises:
        ValueError: The format is too long, has an unknown directive or one of them twice, or has
            neither one year and one month nor a time alone.
    """
    _pattern(format)


def has_date(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a date; one of a time of day alone stands for 1970-01-01."""
    return format is None or re.search("%-?[YymdbB]", format) is not None


def has_time(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a time of day."""
    return format is None or re.search("%-?[HI]", format) is not None


def has_short_year(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether the years of a format have two digits."""
    return format is not None and "%y" in format


def swapped(format: str | None) -> str | None:  # noqa: A002 - as above
    """Return a format of digits with day and month in each other's place; None where that is no format."""
    if format is None or not re.search("%d.%m.%[Yy]|%m.%d.%[Yy]", format):
        return None
    return format.translate(str.maketrans("dm", "md"))


def first_year(latest_s: float) -> int:
    """Return the first of the newest hundred years that give no date in the future.

    Args:
        latest_s: Last of the dates of a column whose years have two digits, in seconds since 1970, read as of
            the hundred years that end with this one.
    """
    today = datetime.now(UTC)
    tomorrow_s = (today.timestamp() // DAY_S + 1) * DAY_S
    return today.year - 99 - int(latest_s >= tomorrow_s)


class _Parts:
    """Parts of dates as a regular expression finds them; empty where a date lacks one."""

    def __init__(self, text: pa.StructArray) -> None:
        self._text = text

    def has(self, name: str) -> bool:
        return bool(self._text.type.get_field_index(name) >= 0)

    def number(self, name: str, default: int = 0) -> NDArray[np.int64]:
        """Return a part as numbers, the default where it is absent."""
        if not self.has(name):
            return np.full(len(self._text), default)
        text = self.text(name)
        return _integers(pc.if_else(pc.equal(text, ""), str(default), text))

    def text(self, name: str) -> pa.Array:
        return pc.struct_field(self._text, [self._text.type.get_field_index(name)])

    def fraction(self) -> NDArray[np.float64]:
        """Return the decimals of the seconds."""
        if not self.has("f"):
            return np.zeros(len(self._text))
        return _integers(pc.utf8_rpad(self.text("f"), 9, "0")) / 1e9

    def zone(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the seconds by which local time is before UTC's, and which zones can be."""
        if not self.has("z"):
            return np.zeros(len(self._text), np.int64), np.ones(len(self._text), np.bool_)
        text = self.text("z")
        digits = pc.replace_substring_regex(text, "[^0-9]", "")
        four = _integers(pc.utf8_rpad(digits, 4, "0"))
        hours, minutes = four // 100, four % 100
        west = pc.fill_null(pc.starts_with(text, "-"), fill_value=False)
        sign = np.where(west.to_numpy(zero_copy_only=False), -1, 1)
        return sign * (hours * 3600 + minutes * 60), (hours < 24) & (minutes < 60)


def _days(parts: _Parts, first: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the days since 1970, and which dates exist."""
    if not (parts.has("Y") or parts.has("y")):
        every = parts.number("d")
        return every, np.ones(every.size, np.bool_)
    year, month, day = parts.number("Y"), _month(parts), parts.number("d", 1)
    if parts.has("y"):
        year = first + (parts.number("y") - first) % 100
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    start = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    following = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - start)
    return start + day - 1, valid


def _month(parts: _Parts) -> NDArray[np.int64]:
    for name in ("b", "B"):
        if parts.has(name):
            words = pc.utf8_lower(parts.text(name))
            place = pc.index_in(words, value_set=pa.array(_MONTH_NUMBERS.keys()))
            numbers = np.array([*_MONTH_NUMBERS.values(), 0], np.int64)
            places = pc.fill_null(place, len(_MONTH_NUMBERS)).to_numpy(zero_copy_only=False)
            return np.asarray(numbers[places], np.int64)
    return parts.number("m", 1)


def _time_of_day(parts: _Parts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    hour, minute, second = parts.number("H"), parts.number("M"), parts.number("S")
    valid = (hour < 24) & (minute < 60) & (second < 60)
    if parts.has("I"):
        twelve = parts.number("I")
        valid &= (twelve >= 1) & (twelve <= 12)
        hour = twelve % 12
    if parts.has("p"):
        after = pc.fill_null(pc.equal(pc.utf8_lower(parts.text("p")), "p"), fill_value=False)
        hour = hour + 12 * after.to_numpy(zero_copy_only=False).astype(np.int64)
    return hour * 3600 + minute * 60 + second, valid


@lru_cache(maxsize=512)
def _pattern(format: str | None) -> str:  # noqa: A002 - as above
    """Return the pattern of a format, for `pyarrow.compute`."""
    if format is None:
        return _ISO_PATTERN
    tokens = _tokens(format)
    directives = [token[-1] for token in tokens if token.startswith("%") and token[1] != "%"]
    unknown = [name for name in directives if name not in _DIRECTIVES]
    if unknown or len(format) > MAX_FORMAT or "%" in tokens:
        raise ValueError(f"the format of dates has no directives {', '.join(unknown) or '%'}")
    if len(set(directives)) < len(directives):
        raise ValueError("the format of dates names a directive twice")
    dated = len({"Y", "y"} & set(directives)) == len({"m", "b", "B"} & set(directives)) == 1
    if not dated and (has_date(format) or not has_time(format)):
        raise ValueError("the format of dates must have one year and one month, or a time alone")
    around = zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)
    # Digits without a separator have a fixed width, and so have hours and minutes alone: 16:9 is no time.
    wide = not has_date(format) and "S" not in directives
    return f"^{''.join(_token_pattern(*three, wide=wide) for three in around)}$"


def _tokens(format: str) -> Sequence[str]:  # noqa: A002 - as above
    """Return the directives of a format and the texts between them."""
    return re.findall(r"%-?.|[^%]+|%", format, re.DOTALL)


def _token_pattern(before: str, token: str, after: str, *, wide: bool) -> str:
    if not token.startswith("%"):
        return re.escape(token).replace(r"\ ", " +")
    pattern = _DIRECTIVES[token[-1]]
    beside_digits = before.startswith("%") or after.startswith("%")
    return pattern.replace(r"\d{1,2}", r"\d\d") if beside_digits or wide else pattern


class _Clock:
    """Parts of dates as text."""

    def __init__(self, whole: NDArray[np.int64], ticks: NDArray[np.int64], *, digits: int) -> None:
        self.digits = digits
        self._ticks = ticks
        self._time = whole % DAY_S
        days = (whole // DAY_S).astype("M8[D]")
        months = days.astype("M8[M]")
        self._day = (days - months).astype(np.int64) + 1
        self._month = months.astype(np.int64) % 12
        self._year = months.astype(np.int64) // 12 + 1970
        self._weekday = (days.astype(np.int64) + _THURSDAY) % 7

    def part(self, token: str) -> pa.Array:
        """Return the text of a directive, or of the characters between two."""
        hour = self._time // 3600
        name = token.replace("-", "") if token.startswith("%") else ""
        numbers = {
            "%Y": self._year,
            "%y": self._year % 100,
            "%m": self._month + 1,
            "%d": self._day,
            "%H": hour,
            "%I": (hour + 11) % 12 + 1,
            "%M": self._time // 60 % 60,
            "%S": self._time % 60,
            "%f": self._ticks,
        }
        if name in numbers:
            width = {"%Y": 4, "%f": max(1, self.digits)}.get(name, 1 if "-" in token else 2)
            return _padded(numbers[name], width)
        end = 3 if name in {"%b", "%a"} else None
        if name in {"%b", "%B"}:
            return _named(self._month, [month[:end].capitalize() for month in _MONTHS])
        if name in {"%a", "%A"}:
            return _named(self._weekday, [day[:end] for day in _DAYS])
        if name == "%p":
            return _named(hour // 12, ("AM", "PM"))
        fixed = {"%%": "%", "%z": "+0000"}
        return pa.array([fixed.get(token, token)] * hour.size, pa.string())


def _padded(numbers: NDArray[np.int64], width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def _named(places: NDArray[np.int64], names: Sequence[str]) -> pa.Array:
    return pa.array(names).take(pa.array(places))


def _integers(digits: pa.Array) -> NDArray[np.int64]:
    """Return digits as numbers, zero where they are null."""
    numbers: NDArray[np.int64] = pc.cast(pc.fill_null(digits, "0"), pa.int64()).to_numpy(
        zero_copy_only=False
    )
    return numbers
