"""Types of columns that hold more than numbers, from a look at all of their cells."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.calendar.formats import (
    COMPACT,
    COMPACT_MONTHS,
    FEWEST_MONTHS,
    has_date,
    has_time,
    is_duration,
)
from tabular.cells import numbers_of
from tabular.columns import COMPACT_DATE, COMPACT_MONTH, Column, ColumnType, Level
from tabular.dates import spelled_like
from tabular.formats import ParseOptions, TableWarning
from tabular.ingest.number_formats import marks_of, number_format, reason_of_numbers
from tabular.ingest.profiles import TextProfile
from tabular.ingest.readings import Reading
from tabular.ingest.warnings import about_conversion, warning
from tabular.notations.units import has_unit
from tabular.notations.words import FALSE_TEXTS, TRUE_TEXTS
from tabular.numerals import (
    ABBREVIATED,
    DEGREES,
    FRACTIONS,
    MARKED,
    OTHER_DIGITS,
    PRINTED,
    are_versions,
    parse_numbers,
)

FEW_LEVELS = 20
"""The most levels of a column that may be a category although most of its cells are numbers."""

_ROWS_PER_LEVEL = 20
_FEW_CELLS = 10
_MOST_TOTALS = 0.2  # share of the cells
_SHOWN = 24
_FORMATS_LOOKED_AT = 1000
_COMPACT = {COMPACT_DATE: (COMPACT, 2), COMPACT_MONTH: (COMPACT_MONTHS, FEWEST_MONTHS)}
_DIGITS = re.compile(r"0|-?[1-9]\d{0,14}")
_TRUTH_PAIRS = tuple(zip(FALSE_TEXTS, TRUE_TEXTS, strict=True))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Type of a column.

    Attributes:
        column: Type of the column.
        reason: Reason of the type.
        warnings: Warnings about the column.
        fault: Reason for which the column cannot have the type that the caller wants.
        missing_count: Number of missing cells.
    """

    column: Column
    reason: str
    warnings: Sequence[TableWarning] = ()
    fault: str | None = None
    missing_count: int = 0


@dataclass(frozen=True, kw_only=True)
class TableContext:
    """Findings in the other columns of a table that tell how one is read.

    Attributes:
        comma: True if a comma that may be one of thousands is before decimals.
        day_first: True if dates begin with the day, False if with the month; None if it is not known.
    """

    comma: bool = False
    day_first: bool | None = None


def decide(
    profile: TextProfile, wanted: ColumnType | None, options: ParseOptions, context: TableContext
) -> Decision:
    """Return the type of a column.

    Args:
        profile: Counts of its cells.
        wanted: Type that the caller wants, if any.
        options: Options of reading.
        context: Findings in the other columns of the table.
    """
    settled = profile.settle(day_first=context.day_first)
    comma = context.comma
    if wanted is not None:
        return _wanted(profile, wanted, options, comma=comma)
    if not profile.known:
        return _ignored(profile, "Every cell is missing.")
    if profile.native in {"datetime", "number"}:
        return Decision(column=profile.temporal(), reason="The file says so.")
    truths = _truths(profile)
    if truths is not None:
        return truths
    return (
        _compact_date(profile)
        or _number(profile, comma=comma)
        or _date(profile, settled)
        or _category(profile, options)
    )


def _wanted(
    profile: TextProfile, wanted: ColumnType, options: ParseOptions, *, comma: bool
) -> Decision:
    reason = "The caller says so."
    match wanted:
        case "ignored":
            return Decision(column=_column(profile, "ignored"), reason=reason)
        case "category":
            return Decision(column=_levels(profile, options), reason=reason)
        case "boolean":
            found = _truths(profile, pairs=False)
            if found is not None:
                return Decision(column=found.column, reason=reason)
            return _fault(
                profile, wanted, "It holds other values than true and false, yes and no, 0 and 1."
            )
        case "datetime":
            return _wanted_reading(profile, wanted, "dates", profile.date_readings())
        case "number" | "integer":
            return _wanted_reading(profile, wanted, "numbers", profile.number_readings(comma=comma))


def _wanted_reading(
    profile: TextProfile, wanted: ColumnType, what: str, readings: list[Reading]
) -> Decision:
    if profile.native in {"datetime", "number"}:
        column = profile.temporal()
        if column.type == wanted or (column.type, wanted) == ("number", "integer"):
            return Decision(column=column, reason="The caller says so.")
        return _fault(profile, wanted, f"The file holds {column.type} values.")
    if not readings:
        return _fault(profile, wanted, f"Few or none of its cells are {what}.")
    if what == "dates" and profile.ambiguous:
        return _fault(profile, wanted, "Its dates may begin with the day or with the month.")
    best = readings[0]
    if best.bad:
        rows = ", ".join(str(row) for row, _ in best.examples)
        bad = "One cell is" if best.bad == 1 else f"{best.bad} cells are"
        return _fault(profile, wanted, f"{bad} no {what}, the first in row {rows}.")
    return Decision(column=_read(profile, best), reason="The caller says so.")


def _fault(profile: TextProfile, wanted: ColumnType, fault: str) -> Decision:
    return Decision(column=_column(profile, wanted), reason="", fault=fault)


def _number(profile: TextProfile, *, comma: bool) -> Decision | None:
    readings = profile.number_readings(comma=comma)
    if not readings or profile.codes:
        return None
    best = readings[0]
    column = _read(profile, best)
    few = len(profile.counts) <= FEW_LEVELS and not (profile.overflow or profile.long)
    enough = profile.known >= _ROWS_PER_LEVEL * len(profile.counts)
    if few and enough and are_versions(profile.counts):
        return None
    if not best.bad:
        marks = marks_of(column)
        reason = f"All cells are numbers{marks}."
        warnings = [*about_conversion(column), *_about_digits(profile, column)]
        return Decision(column=column, reason=reason, warnings=warnings)
    if few and enough and not best.only_placeholders:
        return None
    if not best.tolerates(profile.known, len(profile.counts)):
        return None
    return Decision(
        column=column,
        reason=f"All cells but {best.bad} are numbers{marks_of(column)}.",
        warnings=[
            _unreadable(profile, best, "numbers"),
            *about_conversion(column),
            *_about_digits(profile, column),
        ],
    )


def _about_digits(profile: TextProfile, column: Column) -> Iterator[TableWarning]:
    """Yield the warnings about numbers in other digits, and about those without the unit of the others."""
    if any(map(re.compile(OTHER_DIGITS).search, profile.counts)):
        detail = "Its numbers are in digits of another script. Samples are in 0 to 9."
        yield warning("converted", profile.name, detail)
    if column.unit in ("", ABBREVIATED, DEGREES, FRACTIONS, MARKED, PRINTED):
        return
    bare = [
        text
        for text in profile.counts
        if not has_unit(text, column.unit)
        and re.search("[1-9]", text)
        and text not in column.na_values
    ]
    if bare:
        detail = (
            f"{sum(profile.counts[text] for text in bare)} of {profile.known} cells lack the unit"
            f" {column.unit} of the others, such as {bare[0][:_SHOWN]!r}, and are read as if they had it."
        )
        yield warning("converted", profile.name, detail)


def _date(profile: TextProfile, settled: str | None) -> Decision | None:
    readings = profile.date_readings()
    if not readings:
        return None
    best = readings[0]
    if best.bad and not best.tolerates(profile.known, len(profile.counts)):
        return None
    if profile.ambiguous and not best.bad:
        return None
    found = _dated(profile, best)
    if settled is None:
        return found
    detail = (
        "Its dates may begin with the day or with the month, and are read in the format"
        f" {found.column.datetime_format}, {settled}. State another by datetime_format=."
    )
    return replace(
        found, warnings=[*found.warnings, warning("ambiguous_dates", profile.name, detail)]
    )


def _compact_date(profile: TextProfile) -> Decision | None:
    """Return the type of a column of dates that are eight or six digits, which are numbers, too."""
    for reading in profile.date_readings():
        form = reading.column.datetime_format
        if form not in _COMPACT or reading.bad:
            continue
        pattern, fewest = _COMPACT[form]
        if len(profile.counts) >= fewest and all(map(pattern.fullmatch, profile.counts)):
            return _dated(profile, reading)
    return None


def _dated(profile: TextProfile, reading: Reading) -> Decision:
    column = _read(profile, reading)
    form = column.datetime_format
    what = "durations" if is_duration(form) else "dates" if has_date(form) else "times of day"
    return Decision(
        column=column,
        reason=f"The cells are {what} in the format {form or 'ISO 8601'}.",
        warnings=[
            *([_unreadable(profile, reading, what)] if reading.bad else []),
            *about_conversion(reading.column),
        ],
    )


def _category(profile: TextProfile, options: ParseOptions) -> Decision:
    warnings: list[TableWarning] = []
    if profile.ambiguous:
        detail = (
            "Its dates may begin with the day or with the month, and are taken as text. State the"
            " format by datetime_format=."
        )
        warnings.append(warning("ambiguous_dates", profile.name, detail))
    distinct = len(profile.counts)
    reason = None
    if profile.overflow or (profile.long and not distinct):
        reason = "It is free text: its cells are long, or too many of them are distinct."
    elif profile.known > _FEW_CELLS and distinct == profile.known:
        reason = "All its cells are distinct, as ids are."
    elif profile.known > _FEW_CELLS and distinct > profile.known / 2:
        reason = "Most of its cells are distinct, as in free text."
    if reason is not None:
        ignored = _ignored(profile, reason_of_numbers(profile) or reason)
        warnings += _about_totals(profile)
        return replace(ignored, warnings=[*ignored.warnings, *warnings])
    warnings += _about_totals(profile)
    column = _levels(profile, options)
    rare = f", and {distinct - len(column.levels)} rare ones as *other*" if column.other else ""
    plural = "value" if len(column.levels) == 1 else "values"
    return Decision(
        column=column,
        reason=f"The cells are text of {len(column.levels)} {plural}{rare}.",
        warnings=warnings,
    )


def _about_totals(profile: TextProfile) -> Iterator[TableWarning]:
    """Yield the warning about a few cells that name totals of other rows."""
    if 0 < profile.totals <= _MOST_TOTALS * profile.known:
        cells = "1 cell names" if profile.totals == 1 else f"{profile.totals} cells name"
        detail = (
            f"{cells} totals, the first in row {profile.first_total}. A row that sums up others is"
            " modelled like them: delete such rows, and upload the file again."
        )
        yield warning("totals", profile.name, detail)


def _levels(profile: TextProfile, options: ParseOptions) -> Column:
    """Return a category of the most frequent texts; whole numbers are levels that are numbers."""
    ordered = sorted(profile.counts, key=lambda text: (-profile.counts[text], text))
    kept = ordered[: options.max_levels]
    other = len(kept) < len(ordered) or profile.overflow or profile.long
    levels: tuple[Level, ...] = tuple(kept)
    if not other and kept and all(_DIGITS.fullmatch(text) for text in kept):
        levels = tuple(sorted(int(text) for text in kept))
    if not levels:
        return _column(profile, "ignored")
    return _column(profile, "category", levels=levels, other=other)


def _truths(profile: TextProfile, *, pairs: bool = True) -> Decision | None:
    """Return the type of a column of truth values, with the spellings that are most frequent."""
    if profile.native == "boolean" and set(profile.counts) <= {"true", "false"}:
        bools = tuple(
            value for value, text in ((False, "false"), (True, "true")) if text in profile.counts
        )
        return Decision(
            column=_column(profile, "boolean", levels=bools),
            reason="The cells are true or false.",
        )
    lower = {text.lower() for text in profile.counts}
    if profile.overflow or profile.long or not lower:
        return None
    known = lower <= {*FALSE_TEXTS, *TRUE_TEXTS}
    whole = [pair for pair in _TRUTH_PAIRS if lower.issuperset(pair)]
    if not known or (pairs and lower != {text for pair in whole for text in pair}):
        return None
    ordered = sorted(profile.counts, key=lambda text: (-profile.counts[text], text))
    # Of several pairs of words, those of the most frequent word.
    chosen = next((pair for pair in whole if ordered[0].lower() in pair), ())
    spellings: dict[bool, str] = {}
    for text in sorted(ordered, key=lambda text: text.lower() not in chosen):
        spellings.setdefault(text.lower() in TRUE_TEXTS, text)
    levels: tuple[Level, ...] = tuple(spellings.values())
    if lower <= {"0", "1"}:
        levels = tuple(sorted(int(text) for text in spellings.values()))
    return Decision(
        column=_column(profile, "boolean", levels=levels),
        reason=f"The cells are {' or '.join(spellings.values())}{', in several words' * (len(whole) > 1)}.",
    )


def _read(profile: TextProfile, reading: Reading) -> Column:
    column = reading.column
    form = column.datetime_format
    date_only = column.type == "datetime" and form is not None and not has_time(form)
    words = tuple(reading.words) if reading.knows_words else ()
    some = dict(islice(profile.counts.items(), _FORMATS_LOOKED_AT))
    written, unit = "", column.unit
    if column.type == "number":
        unit = _unit(profile, reading)
        written = number_format(some, column, numbers_of(pa.array(list(some)), column))
    elif form is not None and profile.options.datetime_format is None:
        form = spelled_like(pa.array(list(some)), form)
    return Column(
        name=column.name,
        type=column.type,
        missing=profile.missing + reading.bad > 0,
        na_values=(*column.na_values, *words),
        decimal=column.decimal,
        thousands=column.thousands,
        unit=unit,
        number_format=written,
        datetime_format=form,
        date_only=date_only,
    )


def _unit(profile: TextProfile, reading: Reading) -> str:
    """Return the unit of numbers, or what says that some are no plain ones though they have none."""
    column = reading.column
    if column.unit or column.thousands or column.decimal != ".":
        return column.unit
    texts = pa.array([text for text in profile.counts if text not in reading.words], pa.string())
    return PRINTED if np.isnan(parse_numbers(texts)).any() and reading.knows_words else ""


def _column(
    profile: TextProfile, kind: ColumnType, *, levels: tuple[Level, ...] = (), other: bool = False
) -> Column:
    return Column(
        name=profile.name,
        type=kind,
        levels=levels,
        other=other,
        missing=profile.missing > 0,
        na_values=tuple(profile.options.na_values),
    )


def _ignored(profile: TextProfile, reason: str) -> Decision:
    return Decision(
        column=_column(profile, "ignored"),
        reason=reason,
        warnings=[ignored_warning(profile.name, reason)],
    )


def ignored_warning(name: str, reason: str) -> TableWarning:
    """Return the warning about a column that is not modelled."""
    return warning("ignored", name, f"The column is not modelled: {reason[0].lower()}{reason[1:]}")


def _unreadable(profile: TextProfile, reading: Reading, what: str) -> TableWarning:
    cells = ", ".join(f"{text[:_SHOWN]!r} in row {row}" for row, text in reading.examples)
    more = " and others" if reading.bad > len(reading.examples) else ""
    detail = (
        f"{reading.bad} of {profile.known} cells are not {what}, and are taken as missing: {cells}{more}."
        " If these texts mean more than a gap, state another type by types=."
    )
    return warning("unreadable", profile.name, detail)
