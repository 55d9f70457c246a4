"""Formats of dates that are tried on a column, and those that its texts may have."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from string import digits

from tabular.calendar.formats import (
    EITHER,
    ISO_DATE,
    ISO_DURATION,
    MAX_FORMAT,
    WORDED_DURATION,
    has_date,
)
from tabular.columns import COMPACT_DATE, COMPACT_MONTH

_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y"),
    *("%d/%b/%Y", "%d/%b/%y"),
    *("%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%a %d %b %Y", "%d. %B %Y", "%d. %b %Y"),
    *("%d de %B de %Y", "%A, %B %d, %Y", "%A %d %B %Y", "%A, %d. %B %Y", "%A, %d %B %Y"),
    *("%A, %d de %B de %Y", "%a, %d %b %Y"),
    *("%Y年%m月%d日", "%Y년 %m월 %d일", "%Y년%m월%d일"),
)
_PERIODS = (
    *(
        "%YQ%q",
        "%Y-Q%q",
        "%Y Q%q",
        "%Y/Q%q",
        "Q%q %Y",
        "Q%q-%Y",
        "Q%q/%Y",
        "Q%q%Y",
        "%qQ%Y",
        "%qQ %Y",
        "%Yq%q",
    ),
    *("%G-W%V", "%GW%V", "%G W%V", "W%V %G", "W%V-%G", "W%V/%G"),
    *("%G-W%V-%u", "%GW%V%u"),
)
_DURATIONS = (
    WORDED_DURATION,
    "%E:%M:%S",
    "%E:%M:%S.%f",
    "%E:%M",
    "%N:%S.%f",
    "%D days %H:%M:%S",
    "%D days %H:%M:%S.%f",
    "%D days, %H:%M:%S",
    "%D days, %H:%M:%S.%f",
)
_MONTHS = (
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%Y", "%b %y", "%b-%y"),
    *("%YM%m", "%Y-M%m", "%Ym%m", "%b%Y", "%Y年%m月", "%Y년 %m월"),
)
_TIMES = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p"),
    *(", %H:%M", ", %H:%M:%S", ", %I:%M %p", ", %I:%M:%S %p", " %I:%M:%S %p GMT%z"),
    *(" %H時%M分", " %H時%M分%S秒", " %H时%M分", " %H时%M分%S秒", " %H点%M分", " %H시 %M분"),
    *(" %Hh%M", " %H.%M Uhr", " %H:%M Uhr"),
)
_LOGGED = (  # as of version control, backups, web servers, C, and mail
    *("%Y-%m-%d %H:%M:%S %z", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%z"),
    *("[%d/%b/%Y:%H:%M:%S %z]", "%d/%b/%Y:%H:%M:%S %z", "%d/%b/%Y:%H:%M:%S"),
    *("%a %b %d %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%d%b%Y"),
    *("%Y-%m-%d %H", "%Y-%m-%dT%H", "%Y/%m/%d %H"),
    *("%d%b%Y:%H:%M:%S", "%d%b%Y:%H:%M:%S.%f", "%d%b%y:%H:%M:%S", "%a %b %d %H:%M:%S UTC %Y"),
)
_ISO_TIMES = ("T%H:%M", "T%H:%M:%S", "T%H:%M:%S.%f", "T%H:%MZ", "T%H:%M:%SZ", "T%H:%M:%S.%fZ")


_ZONED = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%dT%H:%M%z")
_NAMES = (
    "UTC|GMT|BST|WES?T|CES?T|MES?Z|EES?T|MSK|[ECMP][SD]T|AK[SD]T|HST|[JK]ST|SGT|HKT|A[EC][SD]T|AWST|NZ[SD]T"
    "|SAST|BRT|ART|PKT|WIB"
)
_ZONE = re.compile(rf"(?<=[\dZMm])(?: ?\[[A-Za-z_]+(?:/[A-Za-z_+-]+)*\]| \(?(?:{_NAMES})\)?)$")
_MOST_ZONES = 2  # in winter and in summer


def with_zones(texts: Sequence[str]) -> list[str]:
    """Return the formats that dates may have before the name of a zone, which is a text of the format.

    Two names, as those of a zone in winter and in summer, are two formats.
    """
    found = Counter(match[0] for match in map(_ZONE.search, texts) if match)
    if not found or len(found) > _MOST_ZONES:
        return []
    before = [_ZONE.sub("", text) for text in texts]
    names = [name for name, _ in found.most_common()]
    forms = [*(form for form in likely_formats(before) if has_date(form) and form), *_ZONED]
    short = [form for form in forms if len(form) + max(map(len, names)) <= MAX_FORMAT]
    return [EITHER.join(f"{form}{name}" for name in names) for form in short]


def likely_formats(texts: Sequence[str]) -> list[str | None]:
    """Return the formats whose marks one of the texts has: these are told faster than digits."""
    found = {frozenset(text).difference(digits) for text in texts}
    likely = {marks for marks in _marked_formats() if any(marks <= text for text in found)}
    return [form for form, marks in _formats().items() if marks in likely]


def swapped(form: str) -> str:
    """Return the format of dates with day and month in each other's place."""
    return form.replace("%d", "%#").replace("%m", "%d").replace("%#", "%m")


def _date_formats() -> Iterator[str | None]:
    """Yield the spellings of dates that are tried on a column; None is ISO 8601 in any spelling."""
    for date in _DATES:
        for time in _TIMES:
            yield date + time
    yield from _MONTHS
    yield from _PERIODS
    yield from _LOGGED
    yield from (ISO_DATE + time for time in _ISO_TIMES)
    yield from (time.strip() for time in _TIMES if time.startswith(" "))
    yield from (*_DURATIONS, ISO_DURATION)
    yield from (COMPACT_DATE, COMPACT_MONTH, None)


@cache
def _formats() -> dict[str | None, frozenset[str]]:
    """Return the formats that are tried, with the marks of each."""
    return {form: _marks(form) for form in _date_formats()}


@cache
def _marked_formats() -> frozenset[frozenset[str]]:
    return frozenset(_formats().values())


def _marks(form: str | None) -> frozenset[str]:
    """Return the characters that all dates in a format have between its directives."""
    if form == WORDED_DURATION:
        return frozenset()
    return frozenset(re.sub(r"%.", "", "--" if form is None else form).replace(EITHER, ""))
