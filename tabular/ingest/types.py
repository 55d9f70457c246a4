"""Types of the columns of a table: those that the caller wants, those of the file, and those that all cells show."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.columns import Column, ColumnType, Level
from tabular.dates import COMPACT_DATE, first_year, has_date, has_short_year, swapped
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableWarning
from tabular.ingest.profiles import Reading, TextProfile
from tabular.ingest.warnings import warning
from tabular.numbers import is_sure
from tabular.source import MAX_NAME_LENGTH, Source
from tabular.words import FALSE_TEXTS, TRUE_TEXTS

_FEW_LEVELS = 20  # of a column that may be a category although its cells are numbers
_ROWS_PER_LEVEL = 20
_FEW_CELLS = 10
_FEWEST_DATES = 5  # distinct ones that are eight digits, and hardly by chance
_SHOWN = 24
_YEAR_2000_S = 946_684_800.0
_DIGITS = re.compile(r"0|-?[1-9]\d{0,14}")
_COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TOTAL = re.compile(r"(grand |sub-?|sub )?totals?:?|(zwischen|gesamt)?summe:?", re.IGNORECASE)
_TRUTH_PAIRS = tuple(zip(FALSE_TEXTS, TRUE_TEXTS, strict=True))
_CALLER = "The caller says so."
_REMEDY = "Name texts that mean a missing value by na_values=, or choose another type."


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


def wanted_types(table: Source, options: ParseOptions) -> dict[int, ColumnType]:
    """Return the types that the caller wants, by position.

    Raises:
        TableError: ``unknown-column``, naming all names that the table lacks.
    """
    places = {name: place for place, name in enumerate(table.names)}
    named = [*(options.columns or ()), *options.exclude, *options.types]
    unknown = [name for name in dict.fromkeys(named) if name not in places]
    if unknown:
        raise TableError(
            "unknown-column",
            f"The table has no column {unknown[0][:MAX_NAME_LENGTH]!r}"
            f"{f' and {len(unknown) - 1} more' if unknown[1:] else ''} that the options name;"
            " several names are a JSON list, or an option each.",
            errors=[(name, "The table has no such column.") for name in unknown],
        )
    wanted = {places[name]: kind for name, kind in options.types.items()}
    left_out = set(options.exclude)
    if options.columns is not None:
        left_out |= set(table.names) - set(options.columns)
    return wanted | {places[name]: "ignored" for name in left_out}


def text_profiles(
    table: Source, wanted: Mapping[int, ColumnType], options: ParseOptions
) -> dict[int, TextProfile]:
    """Return empty profiles of the columns whose cells tell their type: texts, dates, and what is wanted as such.

    Raises:
        TableError: ``dataset-dtype``, naming columns without single values that the caller wants.
    """
    refuse_faults(
        [
            Decision(column=Column(name=table.names[at], type=wanted[at]), reason="", fault=reason)
            for at, reason in table.unread.items()
            if wanted.get(at, "ignored") != "ignored"
        ]
    )
    return {
        at: TextProfile(table.names[at], options=options)
        for at, kind in enumerate(table.types)
        if at not in table.unread
        and wanted.get(at) != "ignored"
        and (not _holds_numbers(kind) or wanted.get(at, "number") not in {"number", "integer"})
    }


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def decide_types(
    table: Source,
    profiles: Mapping[int, TextProfile],
    wanted: Mapping[int, ColumnType],
    options: ParseOptions,
) -> dict[int, Decision]:
    """Return the types of the columns that have a profile, and of those that are ignored.

    Raises:
        TableError: ``dataset-dtype``, naming all columns that cannot have the type that the caller
            wants.
    """
    ignored = {at for at, kind in wanted.items() if kind == "ignored"} | table.unread.keys()
    comma = _has_decimal_commas(table, profiles.values())
    decisions = {
        at: replace(
            _decide(profile, wanted.get(at), options, comma=comma), missing_count=profile.missing
        )
        for at, profile in profiles.items()
    }
    refuse_faults([decision for decision in decisions.values() if decision.fault])
    for at in ignored:
        column = Column(name=table.names[at], type="ignored")
        if at in wanted:
            decisions[at] = Decision(column=column, reason="The caller leaves it out.")
            continue
        reason = table.unread[at]
        warnings = [ignored_warning(column.name, reason)]
        decisions[at] = Decision(column=column, reason=reason, warnings=warnings)
    return decisions


def refuse_faults(faulty: list[Decision]) -> None:
    """Refuse columns that cannot have the type that the caller wants.

    Raises:
        TableError: ``dataset-dtype``, naming all of them.
    """
    if not faulty:
        return
    first = faulty[0]
    raise TableError(
        "dataset-dtype",
        f"Column {first.column.name!r} cannot be of type {first.column.type}. {first.fault}",
        column=first.column.name,
        errors=[
            (
                decision.column.name,
                f"It cannot be of type {decision.column.type}. {decision.fault} {_REMEDY}",
            )
            for decision in faulty
        ],
    )


def ignored_warning(name: str, reason: str) -> TableWarning:
    """Return the warning about a column that is not modelled."""
    return warning("ignored", name, f"The column is not modelled: {reason[0].lower()}{reason[1:]}")


def _has_decimal_commas(table: Source, profiles: Iterable[TextProfile]) -> bool | None:
    """Return whether the numbers of a table have decimal commas; None where nothing tells."""
    sure = {
        reading.style.decimal
        for profile in profiles
        for reading in profile.readings
        if reading.column.type == "number"
        and not reading.others
        and is_sure(list(profile.counts), reading.style)
    }
    if len(sure) == 1:
        return sure == {","}
    return None if table.semicolons or sure else False


def _decide(
    profile: TextProfile, wanted: ColumnType | None, options: ParseOptions, *, comma: bool | None
) -> Decision:
    if wanted is not None:
        return _wanted(profile, wanted, options, comma=comma)
    if not profile.known:
        return _ignored(profile, "Every cell is missing.")
    if profile.native in {"datetime", "number"}:
        return Decision(column=profile.temporal(), reason="The file says so.")
    found = (
        _truths(profile)
        or _compact_date(profile)
        or _number(profile, comma=comma)
        or _date(profile)
        or _category(profile, options, comma=comma)
    )
    return replace(found, warnings=[*found.warnings, *_about_total(profile)])


def _wanted(
    profile: TextProfile, wanted: ColumnType, options: ParseOptions, *, comma: bool | None
) -> Decision:
    if wanted == "ignored":
        return Decision(column=_column(profile, "ignored"), reason=_CALLER)
    if wanted == "category":
        return Decision(column=_levels(profile, options), reason=_CALLER)
    if wanted == "boolean":
        found = _truths(profile, pairs=False)
        fault = "It holds other values than true and false, yes and no, 0 and 1."
        return _fault(profile, wanted, fault) if found is None else replace(found, reason=_CALLER)
    if profile.native in {"datetime", "number"}:
        column = profile.temporal()
        fits = column.type == wanted or (column.type, wanted) == ("number", "integer")
        fault = f"The file holds {column.type} values."
        return Decision(column=column, reason=_CALLER) if fits else _fault(profile, wanted, fault)
    if wanted == "datetime" and _is_ambiguous(profile):
        return _fault(profile, wanted, "Its dates may begin with the day or with the month.")
    is_date = wanted == "datetime"
    reading = _chosen_date(profile) if is_date else _chosen_number(profile, comma=comma)
    return _wanted_reading(profile, wanted, reading, "dates" if is_date else "numbers")


def _wanted_reading(
    profile: TextProfile, wanted: ColumnType, reading: Reading | None, what: str
) -> Decision:
    if reading is None:
        return _fault(profile, wanted, f"Few or none of its cells are {what}, or not all alike.")
    if reading.others:
        bad = "One cell is" if reading.others == 1 else f"{reading.others} cells are"
        row = "" if reading.row is None else f", such as in row {reading.row}"
        return _fault(profile, wanted, f"{bad} no {what} as the others are{row}.")
    return Decision(
        column=_read(profile, reading), reason=_CALLER, warnings=_about_gaps(profile, reading)
    )


def _fault(profile: TextProfile, wanted: ColumnType, fault: str) -> Decision:
    return Decision(column=_column(profile, wanted), reason="", fault=fault)


def _chosen_number(profile: TextProfile, *, comma: bool | None) -> Reading | None:
    """Return the way to read a column as numbers; None where two ways differ, and nothing tells which is meant.

    Args:
        profile: Counts of the cells.
        comma: True if the table has decimal commas elsewhere, False if it has points; None if it is not known.
    """
    found = [r for r in profile.readings if r.column.type == "number"]
    fits = [r for r in found if (r.others, r.bad) == (found[0].others, found[0].bad)]
    options = profile.options
    if len(fits) < 2 or options.decimal is not None or options.thousands is not None:
        return fits[0] if fits else None
    texts = list(profile.counts)
    plain = [r for r in fits if (r.style.decimal, r.style.thousands) == (".", "")]
    if plain:
        grouped = [r for r in fits if r.style.thousands == "."]
        return grouped[0] if comma and grouped and not is_sure(texts, plain[0].style) else plain[0]
    sure = [r for r in fits if is_sure(texts, r.style)]
    if sure or comma is None:
        return sure[0] if sure else None
    return next((r for r in fits if (r.style.decimal == ",") == comma), None)


def _number(profile: TextProfile, *, comma: bool | None) -> Decision | None:
    reading = _chosen_number(profile, comma=comma)
    if reading is None or profile.codes or not _is_enough(profile, reading):
        return None
    few = len(profile.counts) <= _FEW_LEVELS and not (profile.overflow or profile.long)
    enough = profile.known >= _ROWS_PER_LEVEL * len(profile.counts)
    if few and enough and _are_versions(profile.counts):
        return None
    column = _read(profile, reading)
    but = f" but {reading.bad}" if reading.bad else ""
    reason = f"All cells{but} are numbers{reading.style.told()}."
    return Decision(column=column, reason=reason, warnings=_about_gaps(profile, reading))


def _is_enough(profile: TextProfile, reading: Reading) -> bool:
    """Return whether a reading fits all cells but such that stand for no value."""
    return not reading.bad or (not reading.others and profile.known - reading.bad >= _FEW_CELLS)


def _chosen_date(profile: TextProfile) -> Reading | None:
    return next((r for r in profile.readings if r.column.type == "datetime"), None)


def _is_ambiguous(profile: TextProfile) -> bool:
    """Return whether days and months of all dates could be each other."""
    found = [r for r in profile.readings if r.column.type == "datetime"]
    best = found[0] if found else None
    if best is None or best.others:
        return False
    other = swapped(best.column.datetime_format)
    turned = next((r for r in found if r.column.datetime_format == other), None)
    if turned is None or turned.others or turned.bad != best.bad:
        return False
    return turned.total != best.total


def _date(profile: TextProfile) -> Decision | None:
    reading = _chosen_date(profile)
    if reading is None or not _is_enough(profile, reading) or _is_ambiguous(profile):
        return None
    return _dated(profile, reading)


def _compact_date(profile: TextProfile) -> Decision | None:
    """Return the type of a column of dates that are eight digits, which are numbers, too."""
    for reading in profile.readings:
        is_compact = reading.column.datetime_format == COMPACT_DATE and not reading.bad
        enough = len(profile.counts) >= _FEWEST_DATES
        if is_compact and enough and all(map(_COMPACT.fullmatch, profile.counts)):
            return _dated(profile, reading)
    return None


def _dated(profile: TextProfile, reading: Reading) -> Decision:
    column = _read(profile, reading)
    form = column.datetime_format
    what = "dates" if has_date(form) else "times of day"
    reason = f"The cells are {what} in the format {form or 'ISO 8601'}"
    warnings = _about_gaps(profile, reading)
    if column.first_year is not None:
        years = f"{column.first_year} to {column.first_year + 99}"
        reason += f", with years of two digits from {years}"
        if reading.latest >= _YEAR_2000_S:
            detail = (
                f"Its years have two digits, and are read as {years}, the newest that give no date in the"
                " future. If older ones are meant, upload the file again with years of four digits."
            )
            warnings.append(warning("ambiguous_dates", profile.name, detail))
    return Decision(column=column, reason=f"{reason}.", warnings=warnings)


def _category(profile: TextProfile, options: ParseOptions, *, comma: bool | None) -> Decision:
    nearly = _nearly(profile, comma=comma)
    distinct = len(profile.counts)
    reason = None
    if profile.overflow or (profile.long and not distinct):
        reason = "It is free text: its cells are long, or too many of them are distinct."
    elif profile.known > _FEW_CELLS and distinct == profile.known:
        reason = "All its cells are distinct, as ids are."
    elif profile.known > _FEW_CELLS and distinct > profile.known / 2:
        reason = "Most of its cells are distinct, as in free text."
    if reason is not None:
        return _ignored(profile, nearly["detail"] if nearly else reason)
    column = _levels(profile, options)
    rare = f", and {distinct - len(column.levels)} rare ones as *other*" if column.other else ""
    plural = "value" if len(column.levels) == 1 else "values"
    return Decision(
        column=column,
        reason=f"The cells are text of {len(column.levels)} {plural}{rare}.",
        warnings=[nearly] if nearly else [],
    )


def _nearly(profile: TextProfile, *, comma: bool | None) -> TableWarning | None:
    """Return the sentence that says why cells that are nearly all numbers or dates are taken as text."""
    if _is_ambiguous(profile):
        return warning(
            "ambiguous_dates",
            profile.name,
            "Its dates may begin with the day or with the month, and are taken as text. State the"
            " format by datetime_format=.",
        )
    best = next(iter(profile.readings), None)
    if best is None or profile.codes:
        return None
    what = "numbers" if best.column.type == "number" else "dates"
    if not best.others and what == "numbers" and _chosen_number(profile, comma=comma) is None:
        return warning(
            "unreadable",
            profile.name,
            "Its numbers may have decimal commas or commas between thousands, and are taken as text. State"
            " decimal= or thousands=.",
        )
    if not best.others or best.example is None:
        return None
    where = "" if best.row is None else f" in row {best.row}"
    like = (
        best.style.told()
        if what == "numbers"
        else f" in the format {best.column.datetime_format or 'ISO 8601'}"
    )
    return warning(
        "unreadable",
        profile.name,
        f"Its cells are taken as text: {profile.known - best.bad} of {profile.known} are {what}{like}, but not"
        f" {best.example[:_SHOWN]!r}{where}. If such texts mean no value, name them by na_values=; else write all"
        " cells alike.",
    )


def _about_gaps(profile: TextProfile, reading: Reading) -> list[TableWarning]:
    """Return the warning about texts among values that stand for none."""
    if not reading.bad or reading.example is None:
        return []
    what = "numbers" if reading.column.type == "number" else "dates"
    detail = (
        f"{reading.bad} of {profile.known} cells are not {what}, and are taken as missing, such as"
        f" {reading.example[:_SHOWN]!r}. If these texts mean more than a gap, state another type"
        " by types=."
    )
    return [warning("unreadable", profile.name, detail)]


def _about_total(profile: TextProfile) -> Iterator[TableWarning]:
    if _TOTAL.fullmatch(profile.last):
        detail = (
            f"The last row, {profile.rows}, names a total, and is modelled like the others: if it sums them up,"
            " delete it and upload the file again."
        )
        yield warning("totals", profile.name, detail)


def _are_versions(texts: dict[str, int]) -> bool:
    """Return whether some numbers end with a zero that others lack, as versions do: 1.9 and 1.10."""
    places = {text: len(text.partition(".")[2]) for text in texts}
    zeros = [count for text, count in places.items() if count > 1 and text.endswith("0")]
    return bool(zeros) and any(0 < count < max(zeros) for count in places.values())


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
        column = _column(profile, "boolean", levels=bools)
        return Decision(column=column, reason="The cells are true or false.")
    lower = {text.lower() for text in profile.counts}
    if profile.overflow or profile.long or not lower:
        return None
    whole = [pair for pair in _TRUTH_PAIRS if lower.issuperset(pair)]
    if not lower <= {*FALSE_TEXTS, *TRUE_TEXTS}:
        return None
    if pairs and (len(whole) != 1 or lower != set(whole[0])):
        return None
    ordered = sorted(profile.counts, key=lambda text: (-profile.counts[text], text))
    spellings: dict[bool, str] = {}
    for text in ordered:
        spellings.setdefault(text.lower() in TRUE_TEXTS, text)
    levels: tuple[Level, ...] = tuple(spellings.values())
    if lower <= {"0", "1"}:
        levels = tuple(sorted(int(text) for text in spellings.values()))
    return Decision(
        column=_column(profile, "boolean", levels=levels),
        reason=f"The cells are {' or '.join(spellings.values())}.",
    )


def _read(profile: TextProfile, reading: Reading) -> Column:
    column = reading.column
    return replace(
        column,
        missing=profile.missing + reading.bad > 0,
        na_values=(*column.na_values, *(() if reading.others else reading.words)),
        first_year=first_year(reading.latest) if has_short_year(column.datetime_format) else None,
    )


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
