"""Dates and times as text."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.calendar.formats import (
    DAY_S,
    DURATION_PATTERNS,
    EITHER,
    ISO_DATE,
    ISO_DURATION,
    is_duration,
    language_of,
    tokens_of,
)
from tabular.calendar.names import NAMES
from tabular.calendar.weeks import THURSDAY, first_monday

# Days from the start of a period to its middle: a sample is of the period whose start is nearest.
_HALVES = {"d": 0, "u": 0, "V": 3, "q": 45, "m": 15, "b": 15, "B": 15}
_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0  # of the years 1 to 9999
_DIGITS = {"Y": 4, "G": 4, "q": 1, "u": 1, "E": 1, "N": 1, "D": 1}


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
    has_sign = wanted is not None and is_duration(wanted) and "%D" not in wanted
    below = has_sign & (values < 0)
    values = np.abs(values) if has_sign else values
    scale = 10 ** min(max(decimals, 0), 6)
    ticks = np.rint((values - np.floor(values)) * scale).astype(np.int64)
    whole = np.floor(values).astype(np.int64) + ticks // scale
    ticks = np.where(whole > _LAST_S, scale - 1, ticks % scale)
    below &= (whole > 0) | (ticks > 0)
    above = ""
    if has_sign and wanted is not None and wanted.startswith("+"):
        above, wanted = "+", wanted[1:]
    language, wanted = language_of(wanted)
    clock = _Clock(
        np.minimum(whole, int(_LAST_S)), ticks, digits=len(str(scale)) - 1, language=language
    )
    if wanted is not None and wanted in DURATION_PATTERNS:
        joined = _format_durations(clock.whole, clock.part("%f") if clock.digits else None, wanted)
    else:
        chosen = wanted or (ISO_DATE if date_only else _iso_format(clock.digits))
        parts = [clock.part(token) for token in tokens_of(chosen)]
        joined = pc.binary_join_element_wise(*parts, "") if len(parts) > 1 else parts[0]
    if above or below.any():
        sign = pc.if_else(pa.array(below), "-", above)
        joined = pc.binary_join_element_wise(sign, joined, "")
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
        self._weekday = (days.astype(np.int64) + THURSDAY) % 7

    def part(self, token: str) -> pa.Array:
        """Return the text of a directive, or of the characters between two."""
        hour = self._time // 3600
        match token[1:].lstrip("-0") if token.startswith("%") else "":
            case ("b" | "B") as name:
                names = self._names.months if name == "B" else self._names.short_months
                return _named(self._month - 1, names)
            case ("a" | "A") as name:
                return _named(
                    self._weekday, [day if name == "A" else day[:3] for day in self._names.days]
                )
            case ("p" | "P") as name:
                return _named(hour // 12, ("AM", "PM") if name == "p" else ("am", "pm"))
            case "f":
                return _padded(self._ticks, max(1, self.digits))
            case (
                "Y"
                | "y"
                | "m"
                | "d"
                | "H"
                | "I"
                | "M"
                | "S"
                | "q"
                | "G"
                | "V"
                | "u"
                | "E"
                | "N"
                | "D"
            ) as name:
                width = {"-": 1, "0": 2}.get(token[1]) or _DIGITS.get(name, 2)
                return _padded(self._number(name, hour), width)
            case _:
                pass
        fixed = {"%%": "%", "%z": "+0000"}.get(token, token)
        return pa.array([fixed] * hour.size, pa.string())

    def _number(self, directive: str, hour: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers: dict[str, Callable[[], NDArray[np.int64]]] = {
            "q": lambda: (self._month + 2) // 3,
            "G": self._iso_year,
            "V": lambda: (self._thursday() - first_monday(self._iso_year())) // 7 + 1,
            "u": lambda: self._weekday + 1,
            "E": lambda: self.whole // 3600,
            "N": lambda: self.whole // 60,
            "D": lambda: self.whole // DAY_S,
            "Y": lambda: self._year,
            "y": lambda: self._year % 100,
            "m": lambda: self._month,
            "d": lambda: self._day,
            "H": lambda: hour,
            "I": lambda: (hour + 11) % 12 + 1,
            "M": lambda: self._time // 60 % 60,
            "S": lambda: self._time % 60,
        }
        return np.asarray(numbers[directive](), np.int64)

    def _thursday(self) -> NDArray[np.int64]:
        days = self.whole // DAY_S
        return np.asarray(days - (days + THURSDAY) % 7 + THURSDAY, np.int64)

    def _iso_year(self) -> NDArray[np.int64]:
        return self._thursday().astype("M8[D]").astype("M8[Y]").astype(np.int64) + 1970


def _iso_format(digits: int) -> str:
    return "%Y-%m-%dT%H:%M:%S" + (".%f" if digits else "") + "Z"


def _padded(numbers: NDArray[np.int64], width: int) -> pa.Array:
    return pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")


def _named(places: NDArray[np.int64], names: Sequence[str]) -> pa.Array:
    return pa.array(names).take(pa.array(places))
