"""Dates and times written as text, to seconds since 1970 in UTC and back.

A format is one of `datetime.strptime`, with English names of months and days; None is ISO 8601, with or without
a time of day and a zone.
"""

import re
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

DATE_DECIMALS = 6
"""The most decimals of the seconds of a date."""

FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0
"""Seconds of the first and the last date, of the years 1 to 9999."""
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_SHORT_MONTHS = {"sept": 9} | {name[:3]: place for place, name in enumerate(_MONTHS, 1)}
_MONTH_NUMBERS = _SHORT_MONTHS | {name: place for place, name in enumerate(_MONTHS, 1)}

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
    found = _Parts(parts)
    days, valid_day = _days(found, 1969 if first_year is None else first_year)
    time_s, valid_time = _time_of_day(found)
    zone_s, valid_zone = _zone(found)
    seconds = (days * DAY_S + time_s - zone_s).astype(np.float64)
    if "f" in found.texts:
        seconds += _integers(pc.utf8_rpad(found.texts["f"], 9, "0")) / 1e9
    known = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    return np.where(known & valid_day & valid_time & valid_zone, seconds, np.nan)


def format_dates(
    seconds: NDArray[np.floating],
    format: str | None = None,  # noqa: A002 - as above
    *,
    date_only: bool = False,
    decimals: int = 0,
) -> pa.Array:
    """Return dates as text, null where they are not-a-number; those beyond the years 1 to 9999 are cut.

    Args:
        date_only: True to write the nearest date, without a time of day, in ISO 8601.
    """
    values = np.asarray(seconds, np.float64)
    missing = np.isnan(values)
    values = np.clip(np.where(missing, 0.0, values), FIRST_S, LAST_S)
    if date_only:
        half = 0 if format is None or "%d" in format else 15  # to the middle of a month
        values = np.minimum((np.rint(values / DAY_S) + half) * DAY_S, LAST_S)
    digits = min(max(decimals, 0), DATE_DECIMALS)
    ticks = np.rint((values - np.floor(values)) * 10**digits).astype(np.int64)
    whole = np.floor(values).astype(np.int64) + ticks // 10**digits
    ticks = np.where(whole > LAST_S, 10**digits - 1, ticks % 10**digits)
    moments = pa.array(np.minimum(whole, int(LAST_S)), mask=missing).cast(pa.timestamp("s"))
    iso = ISO_DATE if date_only else "%Y-%m-%dT%H:%M:%S" + (".%f" if digits else "") + "Z"
    written = (format or iso).replace("%z", "+0000")
    before, fraction, behind = written.partition("%f")
    text = pc.strftime(moments, format=before)
    if not fraction:
        return text
    tick = pc.utf8_lpad(pa.array(ticks).cast(pa.string()), max(1, digits), "0")
    return pc.binary_join_element_wise(text, tick, pc.strftime(moments, format=behind), "")


def check_format(format: str) -> None:  # noqa: A002 - as above
    """Refuse a format that is not understood, or does not give a date.

    Raises:
        ValueError: The format is too long, has an unknown directive or one of them twice, or has
            neither one year and one month nor a time alone.
    """
    _pattern(format)


def has_date(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a date; one of a time of day alone stands for 1970-01-01."""
    return format is None or re.search("%[YymdbB]", format) is not None


def has_time(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a time of day."""
    return format is None or re.search("%[HI]", format) is not None


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
    """Parts of dates as a regular expression finds them; empty where a date lacks one, null where there is no date."""

    def __init__(self, parts: pa.StructArray) -> None:
        names = [field.name for field in parts.type]
        self._rows = len(parts)
        self.texts: dict[str, pa.Array] = dict(zip(names, parts.flatten(), strict=True))

    def number(self, name: str, default: int = 0) -> NDArray[np.int64]:
        """Return a part as numbers, the default where it is absent."""
        if name not in self.texts:
            return np.full(self._rows, default)
        text = self.texts[name]
        return _integers(pc.if_else(pc.equal(text, ""), str(default), text))


def _integers(digits: pa.Array) -> NDArray[np.int64]:
    """Return digits as numbers, zero where they are null."""
    numbers = pc.fill_null(digits, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return np.asarray(numbers, np.int64)


def _are(found: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(found, fill_value=False).to_numpy(zero_copy_only=False), bool)


def _days(parts: _Parts, first: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the days since 1970, and which dates exist."""
    if not {"Y", "y"} & parts.texts.keys():
        every = parts.number("d")
        return every, np.ones(every.size, np.bool_)
    year, month, day = parts.number("Y"), _month(parts), parts.number("d", 1)
    if "y" in parts.texts:
        year = first + (parts.number("y") - first) % 100
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    start = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    following = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - start)
    return start + day - 1, valid


def _month(parts: _Parts) -> NDArray[np.int64]:
    for name in ("b", "B"):
        if name in parts.texts:
            place = pc.index_in(
                pc.utf8_lower(parts.texts[name]), value_set=pa.array(_MONTH_NUMBERS.keys())
            )
            numbers = np.array([*_MONTH_NUMBERS.values(), 0], np.int64)
            places = pc.fill_null(place, len(_MONTH_NUMBERS)).to_numpy(zero_copy_only=False)
            return np.asarray(numbers[places], np.int64)
    return parts.number("m", 1)


def _time_of_day(parts: _Parts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    hour, minute, second = parts.number("H"), parts.number("M"), parts.number("S")
    valid = (hour < 24) & (minute < 60) & (second < 60)
    if "I" in parts.texts:
        twelve = parts.number("I")
        valid &= (twelve >= 1) & (twelve <= 12)
        hour = twelve % 12
    if "p" in parts.texts:
        hour = hour + 12 * _are(pc.equal(pc.utf8_lower(parts.texts["p"]), "p"))
    return hour * 3600 + minute * 60 + second, valid


def _zone(parts: _Parts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the seconds by which local time is before UTC's, and which zones can be."""
    if "z" not in parts.texts:
        nothing = parts.number("z")
        return nothing, nothing == 0
    text = parts.texts["z"]
    four = _integers(pc.utf8_rpad(pc.replace_substring_regex(text, "[^0-9]", ""), 4, "0"))
    hours, minutes = four // 100, four % 100
    sign = np.where(_are(pc.starts_with(text, "-")), -1, 1)
    return sign * (hours * 3600 + minutes * 60), (hours < 24) & (minutes < 60)


@lru_cache(maxsize=512)
def _pattern(format: str | None) -> str:  # noqa: A002 - as above
    """Return the pattern of a format, for `pyarrow.compute`."""
    if format is None:
        return _ISO_PATTERN
    tokens = re.findall(r"%.|[^%]+|%", format, re.DOTALL)
    directives = [one[1:] for one in tokens if one.startswith("%") and one != "%%"]
    unknown = [name for name in directives if name not in _DIRECTIVES]
    if unknown or len(format) > MAX_FORMAT:
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


def _token_pattern(before: str, token: str, after: str, *, wide: bool) -> str:
    if not token.startswith("%"):
        return re.escape(token).replace(r"\ ", " +")
    pattern = _DIRECTIVES[token[1]]
    beside_digits = before.startswith("%") or after.startswith("%")
    return pattern.replace(r"\d{1,2}", r"\d\d") if beside_digits or wide else pattern
