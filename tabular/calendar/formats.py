"""Formats of dates and times: their patterns, and what they have."""

import re
from collections.abc import Iterable
from functools import lru_cache

from tabular.calendar.names import ENGLISH, NAMES, month_numbers

ISO_DATE = "%Y-%m-%d"
"""Format of dates without a time of day."""

COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
"""Dates of two centuries that are eight digits."""

COMPACT_MONTHS = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])")
"""Months of two centuries that are six digits."""

FEWEST_MONTHS = 10
"""The fewest distinct numbers that are such months, and hardly by chance."""

DAY_S = 86_400
"""Seconds of a day."""

EITHER = "|"
"""Mark between the formats of a column that has several: a date is read in the first that fits."""

ISO_DURATION = "P"
"""Format of durations of ISO 8601, such as PT1H30M."""

WORDED_DURATION = "h m s"
"""Format of durations with words or letters for their units, such as 1h 20m."""

_AND = r",?(?: (?:and|und|et|y|e)\b)? ?"
_WORDED_DURATION = (
    rf"^(?P<g>[+-])?(?i:(?:(?P<W>\d{{1,6}}) ?(?:w|wks?|weeks?|wochen?){_AND})?"
    rf"(?:(?P<D>\d{{1,6}}) ?(?:d|days?|tag(?:en?)?|jours?|d[ií]as?|giorn[io]){_AND})?"
    rf"(?:(?P<H>\d{{1,6}}) ?(?:h|hrs?|hours?|std\.?|stunden?|heures?|horas?|or[ae]){_AND})?"
    rf"(?:(?P<M>\d{{1,6}}) ?(?:m|mins?\.?|minuten?|minutes?|minutos?|minut[io]){_AND})?"
    r"(?:(?P<S>\d{1,6})(?:[.,](?P<f>\d{1,9}))? ?"
    r"(?:s|secs?\.?|seconds?|sek\.?|sekunden?|secondes?|segundos?|second[io]))?)$"
)
_ISO_DURATION = (
    r"^(?P<g>[+-])?P(?:(?P<W>\d{1,6})W)?(?:(?P<D>\d{1,6})D)?(?:T(?:(?P<H>\d{1,6})H)?(?:(?P<M>\d{1,6})M)?"
    r"(?:(?P<S>\d{1,6})(?:[.,](?P<f>\d{1,9}))?S)?)?$"
)
DURATION_PATTERNS = {ISO_DURATION: _ISO_DURATION, WORDED_DURATION: _WORDED_DURATION}
"""Patterns of durations, by their formats."""

ISO_PATTERN = (
    r"^(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
    r"(?:[Tt ](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    r" ?(?P<z>Z|z|UTC|[+-]\d\d(?::?\d\d)?)?)?$"
)
"""Pattern of dates of ISO 8601, with times of day and zones."""

# Letters, and whatever is not ASCII: to compile a class of all letters takes Arrow a millisecond each time.
_LETTERS = "[A-Za-z\u0080-\U0010ffff]+"
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
    "p": "(?P<p>[AaPp])\\.?[ \u00a0]?[Mm]\\.?",
    "P": "(?P<p>[AaPp])\\.?[ \u00a0]?[Mm]\\.?",
    "b": rf"(?P<b>{_LETTERS})\.?",
    "B": rf"(?P<B>{_LETTERS})",
    "a": rf"{_LETTERS}\.?",
    "A": _LETTERS,
    "z": r"(?P<z>Z|[+-](?:\d\d(?::?\d\d)?|\d))",
    "q": r"(?P<q>[1-4])",
    "G": r"(?P<G>\d{4})",
    "V": r"(?P<V>\d\d)",
    "u": r"(?P<u>[1-7])",
    "E": r"(?P<E>\d{1,6})",
    "N": r"(?P<N>\d{1,6})",
    "D": r"(?P<D>-?\d{1,6})",
    "%": "%",
}
_LANGUAGE = re.compile(rf"^({'|'.join(NAMES)}):(?=.*%)", re.DOTALL)
PADDED = "dmHI"
"""Directives that may be written without the zeros in front."""

ORDINAL = "(?:[snrt][tdh]|er|º)?"
"""Pattern of what follows a number, as in 1st, 3rd, 1er."""

ELAPSED = "EN"
"""Directives of hours and minutes that have elapsed, which are written in one digit, or as `%0E` in two."""

_ALWAYS_PADDED = {f"-{name}" for name in _DIRECTIVES if name not in PADDED} | {
    f"0{name}" for name in _DIRECTIVES if name not in ELAPSED
}
MAX_FORMAT = 64
"""The most characters of a format."""


def check_format(format: str) -> None:  # noqa: A002 - the word for it
    """Refuse a format that is not understood, or does not give a date.

    Besides directives of `strptime` there are `%P`, am and pm in small letters, `%q`, the number of a quarter, `%E` and `%N`, hours and
    minutes that have elapsed, and `%D`, days that have; a `+` before them is the sign of a duration. `P` is
    a duration of ISO 8601, `h m s` one such as 1h 20m, and `|` stands between several formats of a column. A
    language before a format, as in `fr:%d %B %Y`, is that
    of its months and days.

    Raises:
        ValueError: The format is too long, has an unknown directive or one of them twice, has
            neither year and month, quarter or week, nor a time alone, or two names side by side.
    """
    for one in format.split(EITHER):
        pattern_of(language_of(one)[1] or "")
        if re.search("%[aAbB]%[aAbB]", one):
            raise ValueError("the format of dates has two names with nothing in between")


def language_of(format: str | None) -> tuple[str, str | None]:  # noqa: A002 - as above
    """Return the language of a format, and the format without it."""
    named = None if format is None else _LANGUAGE.match(format)
    if format is None or named is None:
        return ENGLISH, format
    return named[1], format[named.end() :]


def languages_of(texts: Iterable[str], format: str) -> list[str]:  # noqa: A002 - as above
    """Return the languages that know the most months of texts in a format, but English."""
    matches = [match for text in texts if (match := compiled(format).match(text))]
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
    return format in DURATION_PATTERNS or (
        format is not None and re.search("%0?[END]", format) is not None
    )


def has_time(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a time of day."""
    plain = "%H" if format is None else format.replace("%-", "%")
    return is_duration(format) or "%H" in plain or "%I" in plain


def has_some_digits(format: str | None) -> bool:  # noqa: A002 - as above
    """Return whether a format has a part that not any digit can be in: a quarter, or a day of a week."""
    return format is not None and ("%q" in format or "%u" in format)


def look_like_dates(texts: Iterable[str], format: str | None = None) -> bool:  # noqa: A002 - as above
    """Return whether some of the texts have the form of dates in a format, though none may be one."""
    pattern = compiled(language_of(format)[1])
    return any(pattern.match(text) for text in texts)


@lru_cache(maxsize=512)
def compiled(format: str | None) -> re.Pattern[str]:  # noqa: A002 - as above
    """Return the pattern of a format as Python has it, with bounds on the letters of a name.

    Names that stand beside each other, as in `%A%B`, could otherwise take time with the cube of a text's
    length.
    """
    pattern = ISO_PATTERN if format is None else pattern_of(format)
    return re.compile(pattern.replace(_LETTERS, r"[^\W\d_]{1,40}"))


@lru_cache(maxsize=512)
def pattern_of(format: str) -> str:  # noqa: A002 - as above
    """Return the pattern of a format, for `pyarrow.compute`.

    Raises:
        ValueError: It is no format of dates; see `check_format`.
    """
    if format in DURATION_PATTERNS:
        return DURATION_PATTERNS[format]
    has_sign = is_duration(format) and "%D" not in format
    tokens = tokens_of(format.removeprefix("+") if has_sign else format)
    directives = [part[-1] for part in tokens if part.startswith("%") and part != "%%"]
    unknown = [
        part
        for part in tokens
        if part.startswith("%") and (part[-1] not in _DIRECTIVES or part[1:] in _ALWAYS_PADDED)
    ]
    if unknown or len(format) > MAX_FORMAT or format.endswith("%") != format.endswith("%%"):
        raise ValueError(f"the format of dates has no directives {', '.join(unknown) or '%'}")
    if len(set(directives)) < len(directives):
        raise ValueError("the format of dates names a directive twice")
    months = len({"m", "b", "B", "q"} & set(directives))
    dated = len({"Y", "y"} & set(directives)) == months == 1 or {"G", "V"} <= set(directives)
    if not dated and (has_date(format) or not has_time(format)):
        raise ValueError("the format of dates must have one year and one month, or a time alone")
    around = zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False)
    named = bool({"b", "B"} & set(directives))
    body = "".join(_token_pattern(*three, named=named) for three in around)
    if not has_date(format):
        body = body.replace(r"(?P<M>\d{1,2})", r"(?P<M>\d\d)")  # 16:9 is no time
    return f"^{'(?P<g>[+-])?' if has_sign else ''}{body}$"


def tokens_of(format: str) -> list[str]:  # noqa: A002 - as above
    """Return the directives of a format and the texts between them."""
    return re.findall(r"%[-0]?.|[^%]+|%", format, re.DOTALL)


def _token_pattern(before: str, token: str, after: str, *, named: bool) -> str:
    """Return the pattern of a directive or of a text, in between its neighbours.

    Args:
        before: Token before it.
        token: Directive or text.
        after: Token after it.
        named: True if the format has the name of a month, beside which days may be ordinal numbers.
    """
    if not token.startswith("%"):
        # As Python and pandas write a day, and what is less than none.
        days = before == "%D" and after.startswith("%H")
        return re.escape(token).replace("days", "days?") + r"\+?" if days else re.escape(token)
    pattern = _DIRECTIVES[token[-1]] + (ORDINAL if token[-1] == "d" and named else "")
    # Digits without a separator have a fixed width.
    is_beside_digits = before.startswith("%") or after.startswith("%")
    return pattern.replace(r"\d{1,2}", r"\d\d") if is_beside_digits else pattern
