"""Dates and times written as text, to seconds since 1970 in UTC and back."""

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.calendar.formats import (
    DAY_S,
    DURATION_PATTERNS,
    EITHER,
    ELAPSED,
    ISO_DURATION,
    ISO_PATTERN,
    ORDINAL,
    PADDED,
    compiled,
    is_duration,
    language_of,
    pattern_of,
)
from tabular.calendar.names import month_numbers
from tabular.calendar.parts import DateParts, ShapedParts, TextParts
from tabular.calendar.weeks import first_monday
from tabular.calendar.writing import format_dates
from tabular.numerals import plain_digits

_PARTS = {"W": 7 * DAY_S, "D": DAY_S, "H": 3600, "M": 60, "S": 1}


def spelled_like(texts: pa.Array, format: str) -> str:  # noqa: A002 - as above
    """Return a format with the spelling that most texts have: long or short names, zeros in front.

    Args:
        texts: Dates in the format.
        format: Format of dates.
    """
    if EITHER in format or format in DURATION_PATTERNS:
        return format
    seconds = parse_dates(texts, format)
    if is_duration(format):
        padded = [format, re.sub(rf"%([{ELAPSED}])", r"%0\1", format)]
        signed = [f"+{form}" for form in padded if "%D" not in form]
        return _most_like(texts, seconds, [*padded, *signed])
    plain = pc.replace_substring_regex(texts, rf"(\d){ORDINAL}([ ,]|$)", r"\1\2")
    months = [format.replace("%B", "%b"), format.replace("%b", "%B")]
    days = [[form.replace("%A", "%a"), form.replace("%a", "%A")] for form in months]
    named = [format, *(form for forms in days for form in forms)]
    for letter in "AP" if "%p" in format else "":
        plain = pc.replace_substring_regex(
            plain, f"(?i)\\b{letter}(\\. ?|\u00a0)m\\.?", f"{letter}M"
        )
    named += [form.replace("%p", "%P") for form in named if "%p" in form]
    # Days and months, or hours, or both may lack the zero in front.
    short = [
        re.sub(rf"%([{some}])(?!%)", r"%-\1", form)
        for some in (PADDED, "dm", "HI")
        for form in named
    ]
    return _most_like(plain, seconds, [*named, *short])


def _most_like(texts: pa.Array, seconds: NDArray[np.float64], formats: Iterable[str]) -> str:
    """Return the format in which most dates are written as texts are."""
    best, most = "", -1
    for form in dict.fromkeys(formats):
        same = pc.sum(pc.equal(format_dates(seconds, form), texts)).as_py() or 0
        if same > most:
            best, most = form, same
        if most == len(texts):
            break
    return best


def parse_dates(text: pa.Array, format: str | None = None) -> NDArray[np.float64]:  # noqa: A002
    """Return the seconds since 1970 of each text, not-a-number where it is null or no such date.

    Args:
        text: Strings without white space around them.
        format: Format of `datetime.strptime`, or several; None for ISO 8601. A date without a zone is
            in UTC. Durations are their seconds.
    """
    text = plain_digits(text)
    if format is not None and EITHER in format:
        first, rest = format.split(EITHER, 1)
        seconds = parse_dates(text, first)
        return np.where(np.isnan(seconds), parse_dates(text, rest), seconds)
    if format in DURATION_PATTERNS:
        return _parse_durations(text, format)
    language, bare = language_of(format)
    shaped = ShapedParts.of(text, compiled(bare))
    if shaped is not None:
        return _seconds(shaped, language)
    parts = pc.extract_regex(text, ISO_PATTERN if bare is None else pattern_of(bare))
    if parts.null_count == len(parts):
        return np.full(len(parts), np.nan)
    is_date = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    return np.where(is_date, _seconds(TextParts(parts), language), np.nan)


def _seconds(parts: DateParts, language: str) -> NDArray[np.float64]:
    """Return the seconds since 1970 of dates, not-a-number where there is none such."""
    days, valid = _days(parts, language)
    time_s, valid_time = _time_of_day(parts)
    zone_s, valid_zone = parts.zone()
    seconds = days * DAY_S + time_s + parts.fraction() - zone_s
    return np.where(valid & valid_time & valid_zone, seconds * _sign(parts), np.nan)


def _parse_durations(text: pa.Array, format: str) -> NDArray[np.float64]:  # noqa: A002 - as above
    parts = pc.extract_regex(text, DURATION_PATTERNS[format])
    fields = TextParts(parts)
    seconds = fields.fraction()
    for name, size in _PARTS.items():
        seconds = seconds + fields.number(name) * size
    bare = pc.replace_substring_regex(text, "^[+-]", "")
    empty = pc.is_in(bare, pa.array(["", ISO_DURATION, f"{ISO_DURATION}T"]))
    known = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    signed = seconds * _sign(fields)
    return np.where(known & ~empty.to_numpy(zero_copy_only=False), signed, np.nan)


def _sign(parts: DateParts) -> NDArray[np.float64]:
    """Return the sign of durations; 1 where there is none."""
    if not parts.has("g"):
        return np.ones(len(parts))
    below = pc.fill_null(pc.equal(parts.words("g"), "-"), fill_value=False)
    return np.where(below.to_numpy(zero_copy_only=False), -1.0, 1.0)


def _days(parts: DateParts, language: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the days since 1970, and which dates exist."""
    if parts.has("V"):
        return _weeks(parts)
    if not (parts.has("Y") or parts.has("y")):
        return np.zeros(len(parts), np.int64), np.ones(len(parts), np.bool_)
    year, month, day = parts.number("Y"), _month(parts, language), parts.number("d", 1)
    if parts.has("y"):
        two = parts.number("y")
        year = np.where(two < 69, 2000, 1900) + two  # as `strptime` does
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    following = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    valid = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= following - first)
    return first + day - 1, valid


def _weeks(parts: DateParts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the days of weeks of ISO 8601, Mondays if none is named, and which weeks exist."""
    year, week, day = parts.number("G"), parts.number("V"), parts.number("u", 1)
    first = first_monday(year)
    valid = (year >= 1) & (week >= 1) & (first + 7 * (week - 1) < first_monday(year + 1))
    return first + 7 * (week - 1) + day - 1, valid


def _month(parts: DateParts, language: str) -> NDArray[np.int64]:
    if parts.has("q"):
        return 3 * parts.number("q") - 2
    for name in ("b", "B"):
        if parts.has(name):
            known = month_numbers(language)
            place = pc.index_in(parts.words(name), value_set=pa.array(known.keys()))
            months = np.append(np.array(list(known.values()), np.int64) + 1, 0)
            places = pc.fill_null(place, len(known)).to_numpy(zero_copy_only=False)
            return np.asarray(months[places], np.int64)
    return parts.number("m", 1)


def _time_of_day(parts: DateParts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    hour, minute, second = parts.number("H"), parts.number("M"), parts.number("S")
    valid = (hour < 24) & (minute < 60) & (second < 60)
    if parts.has("I"):
        twelve = parts.number("I")
        valid &= (twelve >= 1) & (twelve <= 12)
        hour = twelve % 12
    if parts.has("p"):
        after = pc.fill_null(pc.equal(parts.words("p"), "p"), fill_value=False)
        hour = hour + 12 * after.to_numpy(zero_copy_only=False).astype(np.int64)
    elapsed = parts.number("E") * 3600 + parts.number("N") * 60 + parts.number("D") * DAY_S
    return elapsed + hour * 3600 + minute * 60 + second, valid
