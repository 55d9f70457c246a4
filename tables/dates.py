"""Dates and times written as text, to seconds since 1970 in UTC and back."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tables.calendar.names import ENGLISH, NAMES, month_numbers
from tables.calendar.parts import DateParts, ShapedParts, TextParts

ISO_DATE = "%Y-%m-%d"
"""Format of dates without a time of day."""

COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
"""Dates of two centuries that are eight digits."""

DAY_S = 86_400
"""Seconds of a day."""

EITHER = "|"
"""Mark between the formats of a column that has several: a date is read in the first that fits."""

ISO_DURATION = "P"
"""Format of durations of ISO 8601, such as PT1H30M."""

WORDED_DURATION = "h m s"
"""Format of durations with words or letters for their units, such as 1h 20m."""

_WORDED_DURATION = (
    r"^(?i:(?:(?P<D>\d{1,6}) ?(?:d|days?),? ?)?(?:(?P<H>\d{1,6}) ?(?:h|hrs?|hours?|std\.?),? ?)?"
    r"(?:(?P<M>\d{1,6}) ?(?:m|mins?\.?|minutes?),? ?)?"
    r"(?:(?P<S>\d{1,6})(?:[.,](?P<f>\d{1,9}))? ?(?:s|secs?\.?|seconds?))?)$"
)
_ISO_DURATION = (
    r"^P(?:(?P<W>\d{1,6})W)?(?:(?P<D>\d{1,6})D)?(?:T(?:(?P<H>\d{1,6})H)?(?:(?P<M>\d{1,6})M)?"
    r"(?:(?P<S>\d{1,6})(?:[.,](?P<f>\d{1,9}))?S)?)?$"
)
_DURATION_PATTERNS = {ISO_DURATION: _ISO_DURATION, WORDED_DURATION: _WORDED_DURATION}
_PARTS = {"W": 7 * DAY_S, "D": DAY_S, "H": 3600, "M": 60, "S": 1}
_ISO = (
    r"^(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
    r"(?:[Tt ](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    r" ?(?P<z>Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?$"
)
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d\d)",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>[AaPp])\.?[Mm]\.?",
    "b": r"(?P<b>\pL+)\.?",
    "B": r"(?P<B>\pL+)",
    "a": r"\pL+\.?",
    "A": r"\pL+",
    "z": r"(?P<z>Z|[+-](?:\d\d(?::?\d\d)?|\d))",
    "q": r"(?P<q>[1-4])",
    "G": r"(?P<G>\d{4})",
    "V": r"(?P<V>\d\d)",
    "u": r"(?P<u>[1-7])",
    "E": r"(?P<E>\d{1,6})",
    "D": r"(?P<D>\d{1,6})",
    "%": "%",
}
# Days from the start of a period to its middle: a sample is of the period whose start is nearest.
_HALVES = {"d": 0, "u": 0, "V": 3, "q": 45, "m": 15, "b": 15, "B": 15}
_LANGUAGE = re.compile(rf"^({'|'.join(NAMES)}):(?=.*%)", re.DOTALL)
_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0  # of the years 1 to 9999
_PADDED = "dmHI"
_ALWAYS_PADDED = {f"-{name}" for name in _DIRECTIVES if name not in _PADDED}
_ORDINAL = "(?:[snrt][tdh]|er|º)?"  # as in 1st, 3rd, 1er
_THURSDAY = 3  # the first of January 1970
_MAX_FORMAT = 64
_DIGITS = {"Y": 4, "G": 4, "q": 1, "u": 1, "E": 1, "D": 1}


def check_format(format: str) -> None:  # noqa: A002 - the word for it
    """Refuse a format that is not understood, or does not give a date.

    Besides directives of `strptime` there are `%q`, the number of a quarter, `%E`, hours that have
    elapsed, and `%D`, days that have; `P` is a duration of ISO 8601, `h m s` one such as 1h 20m, and `|`
    stands between several formats of a column. A language before a format, as in `fr:%d %B %Y`, is that
    of its months and days.

    Raises:
        ValueError: The format is too long, has an unknown directive or one of them twice, or has
            neither year and month, quarter or week, nor a time alone.
    """
    for one in format.split(EITHER):
        _pattern(language_of(one)[1] or "")


def spelled_like(texts: pa.Array, format: str) -> str:  # noqa: A002 - as above
    """Return a format with the spelling that most texts have: long or short names, zeros in front.

    Args:
        texts: Dates in the format.
        format: Format of dates.
    """
    if EITHER in format or format in _DURATION_PATTERNS:
        return format
    seconds = parse_dates(texts, format)
    plain = pc.replace_substring_regex(texts, rf"(\d){_ORDINAL}([ ,]|$)", r"\1\2")
    months = [format.replace("%B", "%b"), format.replace("%b", "%B")]
    days = [[form.replace("%A", "%a"), form.replace("%a", "%A")] for form in months]
    named = [format, *(form for forms in days for form in forms)]
    short = [re.sub(rf"%([{_PADDED}])(?!%)", r"%-\1", form) for form in named]
    best, most = format, -1
    for form in dict.fromkeys([*named, *short]):
        same = pc.sum(pc.equal(format_dates(seconds, form), plain)).as_py() or 0
        if same > most:
            best, most = form, same
        if most == len(texts):
            break
    return best


def language_of(format: str | None) -> tuple[str, str | None]:  # noqa: A002 - as above
    """Return the language of a format, and the format without it."""
    named = None if format is None else _LANGUAGE.match(format)
    if format is None or named is None:
        return ENGLISH, format
    return named[1], format[named.end() :]


def languages_of(texts: Iterable[str], format: str) -> list[str]:  # noqa: A002 - as above
    """Return the languages that know the most months of texts in a format, but English."""
    matches = [match for text in texts if (match := _compiled(format).match(text))]
    words = {(match["b"] if "%b" in format else match["B"]).lower() for match in matches}
    known = {name: sum(word in month_numbers(name) for word in words) for name in NAMES}
    most = max(known.values())
    if known[ENGLISH] == most:
        return []
    return [name for name, count in known.items() if count == most]


def has_date(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a date; one of a time of day alone stands for 1970-01-01."""
    return format is None or any(f"%{name}" in format.replace("%-", "%") for name in "YymdbBqGV")


def is_duration(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format is one of durations, which may be longer than a day."""
    return format in _DURATION_PATTERNS or (
        format is not None and ("%E" in format or "%D" in format)
    )


def has_time(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a time of day."""
    plain = "%H" if format is None else format.replace("%-", "%")
    return is_duration(format) or "%H" in plain or "%I" in plain


def look_like_dates(texts: Iterable[str], format: str | None = None) -> bool:  # noqa: A002 - as above
    """Return whether some of the texts have the form of dates in a format, though none may be one."""
    pattern = _compiled(language_of(format)[1])
    return any(pattern.match(text) for text in texts)


def parse_dates(text: pa.Array, format: str | None = None) -> NDArray[np.float64]:  # noqa: A002
    """Return the seconds since 1970 of each text, not-a-number where it is null or no such date.

    Args:
        text: Strings without white space around them.
        format: Format of `datetime.strptime`, or several; None for ISO 8601. A date without a zone is
            in UTC. Durations are their seconds.
    """
    if format is not None and EITHER in format:
        first, rest = format.split(EITHER, 1)
        seconds = parse_dates(text, first)
        return np.where(np.isnan(seconds), parse_dates(text, rest), seconds)
    if format in _DURATION_PATTERNS:
        return _parse_durations(text, format)
    language, bare = language_of(format)
    shaped = ShapedParts.of(text, _compiled(bare))
    if shaped is not None:
        return _seconds(shaped, language)
    parts = pc.extract_regex(text, _ISO if bare is None else _pattern(bare))
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
    return np.where(valid & valid_time & valid_zone, seconds, np.nan)


def _parse_durations(text: pa.Array, format: str) -> NDArray[np.float64]:  # noqa: A002 - as above
    parts = pc.extract_regex(text, _DURATION_PATTERNS[format])
    fields = TextParts(parts)
    seconds = fields.fraction()
    for name, size in _PARTS.items():
        seconds = seconds + fields.number(name) * size
    empty = pc.is_in(text, pa.array(["", ISO_DURATION, f"{ISO_DURATION}T"]))
    known = pc.is_valid(parts).to_numpy(zero_copy_only=False)
    return np.where(known & ~empty.to_numpy(zero_copy_only=False), seconds, np.nan)


def _format_durations(
    whole: NDArray[np.int64],
    ticks: pa.Array | None,
    format: str,  # noqa: A002 - as above
) -> pa.Array:
    """Return durations of ISO 8601, or with small letters and blanks.

    Args:
        whole: Whole seconds.
        ticks: Decimals of the seconds as text; None if there are none.
        format: Format of durations.
    """
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    nothing = pa.scalar("", pa.string())
    parts = [pa.array(["PT"] * whole.size, pa.string())]
    for numbers, sign in ((hours, "H"), (minutes, "M")):
        written = pc.binary_join_element_wise(pc.cast(pa.array(numbers), pa.string()), sign, "")
        parts.append(pc.if_else(pa.array(numbers > 0), written, nothing))
    digits = [
        pc.cast(pa.array(seconds), pa.string()),
        *([] if ticks is None else [".", ticks]),
        "S",
    ]
    shown = (seconds > 0) | (whole == 0) if ticks is None else np.ones(whole.size, np.bool_)
    parts.append(pc.if_else(pa.array(shown), pc.binary_join_element_wise(*digits, ""), nothing))
    joined = pc.binary_join_element_wise(*parts, "")
    if format == ISO_DURATION:
        return joined
    apart = pc.replace_substring_regex(pc.utf8_slice_codeunits(joined, 2), r"([HM])(.)", r"\1 \2")
    return pc.utf8_lower(apart)


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
        format: Format of `datetime.strptime`; None for ISO 8601.
        date_only: True to write the nearest date, without a time of day, in ISO 8601.
        decimals: Decimals of the seconds.
    """
    wanted = None if format is None else format.split(EITHER)[0]
    values = np.asarray(seconds, np.float64)
    missing = np.isnan(values)
    values = np.clip(np.where(missing, 0.0, values), _FIRST_S, _LAST_S)
    if date_only:
        values = np.minimum((np.rint(values / DAY_S) + _half(wanted)) * DAY_S, _LAST_S)
    if is_duration(wanted):
        values = np.maximum(values, 0.0)
    scale = 10 ** min(max(decimals, 0), 6)
    ticks = np.rint((values - np.floor(values)) * scale).astype(np.int64)
    whole = np.floor(values).astype(np.int64) + ticks // scale
    ticks = np.where(whole > _LAST_S, scale - 1, ticks % scale)
    language, wanted = language_of(wanted)
    clock = _Clock(
        np.minimum(whole, int(_LAST_S)), ticks, digits=len(str(scale)) - 1, language=language
    )
    if wanted is not None and wanted in _DURATION_PATTERNS:
        joined = _format_durations(clock.whole, clock.part("%f") if clock.digits else None, wanted)
        return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), joined)
    chosen = wanted or (ISO_DATE if date_only else _iso_format(clock.digits))
    parts = [clock.part(token) for token in _tokens(chosen)]
    joined = pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else parts[0]
    return pc.if_else(pa.array(missing), pa.scalar(None, pa.string()), joined)


def _half(format: str | None) -> int:  # noqa: A002 - as above
    """Return the days from the start of the shortest period that a format names to its middle."""
    plain = None if format is None else format.replace("%-", "%")
    found = [days for name, days in _HALVES.items() if plain is None or f"%{name}" in plain]
    return found[0] if found else 0


class _Clock:
    """Parts of dates as text."""

    def __init__(
        self, whole: NDArray[np.int64], ticks: NDArray[np.int64], *, digits: int, language: str
    ) -> None:
        self.digits = digits
        self._names = NAMES[language]
        self.whole = whole
        self._ticks = ticks
        self._time = whole % DAY_S
        days = (whole // DAY_S).astype("M8[D]")
        months = days.astype("M8[M]")
        self._day = (days - months).astype(np.int64) + 1
        self._month = months.astype(np.int64) % 12 + 1
        self._year = months.astype(np.int64) // 12 + 1970
        self._weekday = (days.astype(np.int64) + _THURSDAY) % 7

    def part(self, token: str) -> pa.Array:
        """Return the text of a directive, or of the characters between two."""
        hour = self._time // 3600
        match token[1:].removeprefix("-") if token.startswith("%") else "":
            case ("b" | "B") as name:
                names = self._names.months if name == "B" else self._names.short_months
                return _named(self._month - 1, names)
            case ("a" | "A") as name:
                return _named(
                    self._weekday, [day if name == "A" else day[:3] for day in self._names.days]
                )
            case "p":
                return _named(hour // 12, ("AM", "PM"))
            case "f":
                return _padded(self._ticks, max(1, self.digits))
            case (
                "Y" | "y" | "m" | "d" | "H" | "I" | "M" | "S" | "q" | "G" | "V" | "u" | "E" | "D"
            ) as name:
                width = 1 if token[1] == "-" else _DIGITS.get(name, 2)
                return _padded(self._number(name, hour), width)
            case _:
                pass
        fixed = {"%%": "%", "%z": "+0000"}.get(token, token)
        return pa.array([fixed] * hour.size, pa.string())

    def _number(self, directive: str, hour: NDArray[np.int64]) -> NDArray[np.int64]:
        days = self.whole // DAY_S
        thursday = days - (days + _THURSDAY) % 7 + _THURSDAY
        year = thursday.astype("M8[D]").astype("M8[Y]").astype(np.int64) + 1970
        numbers = {
            "q": (self._month + 2) // 3,
            "G": year,
            "V": (thursday - _first_monday(year)) // 7 + 1,
            "u": self._weekday + 1,
            "E": self.whole // 3600,
            "D": days,
            "Y": self._year,
            "y": self._year % 100,
            "m": self._month,
            "d": self._day,
            "H": hour,
            "I": (hour + 11) % 12 + 1,
            "M": self._time // 60 % 60,
            "S": self._time % 60,
        }
        return np.asarray(numbers[directive], np.int64)


@lru_cache(maxsize=512)
def _compiled(format: str | None) -> re.Pattern[str]:  # noqa: A002 - as above
    """Return the pattern of a format as Python has it."""
    pattern = _ISO if format is None else _pattern(format)
    return re.compile(pattern.replace(r"\pL", r"[^\W\d_]"))


@lru_cache(maxsize=512)
def _pattern(format: str) -> str:  # noqa: A002 - as above
    if format in _DURATION_PATTERNS:
        return _DURATION_PATTERNS[format]
    tokens = _tokens(format)
    directives = [part[-1] for part in tokens if part.startswith("%") and part != "%%"]
    unknown = [
        part
        for part in tokens
        if part.startswith("%") and (part[-1] not in _DIRECTIVES or part[1:] in _ALWAYS_PADDED)
    ]
    if unknown or len(format) > _MAX_FORMAT or format.endswith("%") != format.endswith("%%"):
        raise ValueError(f"the format of dates has no directives {', '.join(unknown) or '%'}")
    if len(set(directives)) < len(directives):
        raise ValueError("the format of dates names a directive twice")
    months = len({"m", "b", "B", "q"} & set(directives))
    dated = len({"Y", "y"} & set(directives)) == months == 1 or {"G", "V"} <= set(directives)
    if not dated and (has_date(format) or not has_time(format)):
        raise ValueError("the format of dates must have one year and one month, or a time alone")
    around = zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)
    named = bool({"b", "B"} & set(directives))
    return "^" + "".join(_token_pattern(*three, named=named) for three in around) + "$"


def _tokens(format: str) -> list[str]:  # noqa: A002 - as above
    """Return the directives of a format and the texts between them."""
    return re.findall(r"%-?.|[^%]+|%$", format, re.DOTALL)


def _token_pattern(before: str, token: str, after: str, *, named: bool) -> str:
    """Return the pattern of a directive or of a text, in between its neighbours.

    Args:
        before: Token before it.
        token: Directive or text.
        after: Token after it.
        named: True if the format has the name of a month, beside which days may be ordinal numbers.
    """
    if not token.startswith("%"):
        return re.escape(token)
    pattern = _DIRECTIVES[token[-1]] + (_ORDINAL if token[-1] == "d" and named else "")
    # Digits without a separator have a fixed width.
    is_beside_digits = before.startswith("%") or after.startswith("%")
    return pattern.replace(r"\d{1,2}", r"\d\d") if is_beside_digits else pattern


def _iso_format(digits: int) -> str:
    return "%Y-%m-%dT%H:%M:%S" + (".%f" if digits else "") + "Z"


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
    first = _first_monday(year)
    valid = (year >= 1) & (week >= 1) & (first + 7 * (week - 1) < _first_monday(year + 1))
    return first + 7 * (week - 1) + day - 1, valid


def _first_monday(year: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the Monday of the week with the fourth of January."""
    fourth = (year - 1970).astype("M8[Y]").astype("M8[D]").astype(np.int64) + 3
    return fourth - (fourth + _THURSDAY) % 7


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
    elapsed = parts.number("E") * 3600 + parts.number("D") * DAY_S
    return elapsed + hour * 3600 + minute * 60 + second, valid


def _padded(numbers: NDArray[np.int64], width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def _named(places: NDArray[np.int64], names: Sequence[str]) -> pa.Array:
    return pa.array(names).take(pa.array(places))
