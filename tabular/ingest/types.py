"""Types of the columns of a table: those that the caller wants, those of the file, and those that all cells show."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.columns import Column, ColumnType, Level
from tabular.dates import COMPACT_DATE, first_year, has_date, has_short_year, swapped
from tabular.errors import TableError
from tabular.formats import ParseOptions, Remedy, TableWarning, remedy, warning
from tabular.ingest.profiles import Reading, TextProfile
from tabular.numbers import is_sure, told_style
from tabular.source import MAX_NAME_LENGTH, Source
from tabular.words import FALSE_TEXTS, TRUE_TEXTS

_FEW_LEVELS = 20  # of a column that may be a category although its cells are numbers
_ROWS_PER_LEVEL = 20
_FEW_CELLS = 10
_FEWEST_NAMES, _ROWS_OF_A_NAME = (
    100,
    20,
)  # values of a text, and the fewest rows of one that many share
_FEWEST_DATES = 5  # distinct ones that are eight digits, and hardly by chance
_SHOWN = 24
_SHOWN_TEXTS = 3
_YEAR_2000_S = 946_684_800.0
_DIGITS = re.compile(r"0|-?[1-9]\d{0,14}")
_COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TOTAL = re.compile(r"(grand |sub-?|sub )?totals?:?|(zwischen|gesamt)?summe:?", re.IGNORECASE)
_TRUTH_PAIRS = tuple(zip(FALSE_TEXTS, TRUE_TEXTS, strict=True))
_CALLER = "The caller says so."
_NO_LEVELS = "No cell has a text that is short enough for a level."
_NOUNS = {"datetime": "date"}
_REMEDY = "Name texts that mean a missing value by na_values=, or choose another type."


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Type of a column, with its reason, warnings about it, and its number of missing cells."""

    column: Column
    reason: str
    warnings: Sequence[TableWarning] = ()
    missing_count: int = 0


def wanted_types(table: Source, options: ParseOptions) -> dict[int, ColumnType]:
    """Return the types that the caller wants, by position.

    Raises:
        TableError: ``unknown-column``, naming all names that the table lacks.
    """
    places = {name: place for place, name in enumerate(table.names)}
    named = [
        *(options.columns or ()),
        *options.exclude,
        *options.types,
        *options.merge_levels,
    ]
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
    refuse_types(
        (table.names[at], wanted[at], reason)
        for at, reason in table.unread.items()
        if wanted.get(at, "ignored") != "ignored"
    )
    return {
        at: TextProfile(table.names[at], options=options)
        for at, kind in enumerate(table.types)
        if at not in table.unread
        and wanted.get(at) != "ignored"
        and not (_holds_numbers(kind) and wanted.get(at, "number") in {"number", "integer"})
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
    comma = _has_decimal_commas(table, profiles.values())
    decisions, faults = {}, []
    for at, profile in profiles.items():
        if profile.name in options.merge_levels:
            profile.merge()
        kind = wanted.get(at)
        found = (
            _decide(profile, options, comma=comma)
            if kind is None
            else _wanted(profile, kind, options, comma=comma)
        )
        if isinstance(found, Decision):
            decisions[at] = replace(found, missing_count=profile.missing)
        else:
            faults.append((profile.name, kind, found))
    refuse_types(faults)
    for at, reason in table.unread.items():
        decisions[at] = _ignored(Column(name=table.names[at]), reason)
    for at in (at for at, kind in wanted.items() if kind == "ignored"):
        column = Column(name=table.names[at], type="ignored")
        decisions[at] = Decision(column=column, reason="The caller leaves it out.")
    return decisions


def refuse_types(faults: Iterable[tuple[str, ColumnType | None, str]]) -> None:
    """Refuse columns that cannot have the type that the caller wants.

    Args:
        faults: Name of each, its type, and why it cannot have it.

    Raises:
        TableError: ``dataset-dtype``, naming all of them.
    """
    found = list(faults)
    for name, kind, fault in found:
        raise TableError(
            "dataset-dtype",
            f"Column {name!r} cannot be of type {kind}. {fault}",
            column=name,
            errors=[(n, f"It cannot be of type {k}. {why} {_REMEDY}") for n, k, why in found],
        )


def ignored_warning(name: str, reason: str, *, model_as: ColumnType | None = None) -> TableWarning:
    """Return the warning about a column that is not modelled, with the type that it could have."""
    detail = f"The column is not modelled: {reason[0].lower()}{reason[1:]}"
    if model_as is None:
        return warning("ignored", name, detail)
    label = f"Model it as a {_NOUNS.get(model_as, model_as)}"
    return warning("ignored", name, detail, remedy("types", {name: model_as}, label))


def _ignored(
    column: Column, reason: str, *others: Remedy, model_as: ColumnType | None = None
) -> Decision:
    column = replace(column, type="ignored")
    told = ignored_warning(column.name, reason, model_as=model_as)
    told["remedies"] = [*others, *told["remedies"]]
    warnings = [told]
    return Decision(column=column, reason=reason, warnings=warnings)


def _has_decimal_commas(table: Source, profiles: Iterable[TextProfile]) -> bool | None:
    """Return whether the numbers of a table have decimal commas; None where nothing tells."""
    sure = {
        reading.column.decimal
        for profile in profiles
        for reading in profile.readings
        if reading.is_number and not reading.others and is_sure(profile.counts, reading.column)
    }
    if len(sure) == 1:
        return sure == {","}
    return None if table.semicolons or sure else False


def _decide(profile: TextProfile, options: ParseOptions, *, comma: bool | None) -> Decision:
    """Return the type that the cells of a column show."""
    if not profile.known:
        return _ignored(profile.column, "Every cell is missing.")
    if profile.native is not None and profile.native.type != "boolean":
        return Decision(column=profile.native, reason="The file says so.")
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
) -> Decision | str:
    """Return the type that the caller wants for a column, or why it cannot have it."""
    if profile.native is not None and profile.native.type != "boolean":
        kind = profile.native.type
        fits = kind == wanted or (kind, wanted) == ("number", "integer")
        column = profile.native
        return Decision(column=column, reason=_CALLER) if fits else f"The file holds {kind} values."
    if wanted == "category":
        column = _levels(profile, options)
        return Decision(column=column, reason=_CALLER if column.levels else _NO_LEVELS)
    if wanted == "boolean":
        found = _truths(profile, pairs=False)
        if found is None:
            return "It holds other values than true and false, yes and no, 0 and 1."
        return replace(found, reason=_CALLER)
    return _wanted_reading(profile, comma=comma, is_date=wanted == "datetime")


def _wanted_reading(profile: TextProfile, *, comma: bool | None, is_date: bool) -> Decision | str:
    if is_date and _is_ambiguous(profile):
        return "Its dates may begin with the day or with the month."
    what = "dates" if is_date else "numbers"
    reading = _chosen_date(profile) if is_date else _chosen_number(profile, comma=comma)
    if reading is None:
        return f"Few or none of its cells are {what}, or not all alike."
    if reading.others:
        bad = "One cell is" if reading.others == 1 else f"{reading.others} cells are"
        row = "" if reading.row is None else f", such as in row {reading.row}"
        return f"{bad} no {what} as the others are{row}."
    return _read(profile, reading, _CALLER)


def _chosen_number(profile: TextProfile, *, comma: bool | None) -> Reading | None:
    """Return the way to read a column as numbers; None where two ways differ, and nothing tells which is meant.

    Args:
        comma: True if the table has decimal commas elsewhere, False if it has points; None if it is not known.
    """
    found = [r for r in profile.readings if r.is_number]
    fits = [r for r in found if (r.others, r.bad) == (found[0].others, found[0].bad)]
    options = profile.options
    if len(fits) < 2 or options.decimal is not None or options.thousands is not None:
        return fits[0] if fits else None
    sure = [r for r in fits if is_sure(profile.counts, r.column)]
    plain = [r for r in fits if r.column.decimal == "." and not r.column.thousands]
    if plain:
        grouped = [r for r in fits if r.column.thousands == "."]
        return grouped[0] if comma and grouped and plain[0] not in sure else plain[0]
    if sure or comma is None:
        return sure[0] if sure else None
    return next((r for r in fits if (r.column.decimal == ",") == comma), None)


def _number(profile: TextProfile, *, comma: bool | None) -> Decision | None:
    reading = _chosen_number(profile, comma=comma)
    if reading is None or profile.codes or not _is_enough(profile, reading):
        return None
    few = len(profile.counts) <= _FEW_LEVELS and not profile.is_free
    enough = profile.known >= _ROWS_PER_LEVEL * len(profile.counts)
    if few and enough and _are_versions(profile.counts):
        return None
    but = f" but {reading.bad}" if reading.bad else ""
    return _read(profile, reading, f"All cells{but} are numbers{told_style(reading.column)}.")


def _is_enough(profile: TextProfile, reading: Reading) -> bool:
    """Return whether a reading fits all cells but such that stand for no value."""
    return not reading.bad or (not reading.others and profile.known - reading.bad >= _FEW_CELLS)


def _chosen_date(profile: TextProfile) -> Reading | None:
    return next((r for r in profile.readings if not r.is_number), None)


def _is_ambiguous(profile: TextProfile) -> bool:
    """Return whether days and months of all dates could be each other."""
    best = _chosen_date(profile)
    if best is None or best.others:
        return False
    other = swapped(best.column.datetime_format)
    turned = [r for r in profile.readings if other and r.column.datetime_format == other]
    return any(not r.others and r.bad == best.bad and r.total != best.total for r in turned)


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
    form = reading.column.datetime_format
    what = "dates" if has_date(form) else "times of day"
    found = _read(profile, reading, f"The cells are {what} in the format {form or 'ISO 8601'}.")
    first = found.column.first_year
    if first is None:
        return found
    years = f"{first} to {first + 99}"
    reason = f"{found.reason[:-1]}, with years of two digits from {years}."
    if reading.latest < _YEAR_2000_S:
        return replace(found, reason=reason)
    detail = (
        f"Its years have two digits, and are read as {years}, the newest that give no date in the"
        " future. If older ones are meant, upload the file again with years of four digits."
    )
    doubt = warning("ambiguous_dates", profile.name, detail)
    return replace(found, reason=reason, warnings=[*found.warnings, doubt])


def _category(profile: TextProfile, options: ParseOptions, *, comma: bool | None) -> Decision:
    nearly = _nearly(profile, comma=comma)
    distinct = len(profile.counts)
    reason = None
    if profile.is_free and (profile.overflow or not distinct):
        reason = "It is free text: its cells are long, or too many of them are distinct."
    elif profile.known > _FEW_CELLS and distinct == profile.known:
        reason = "All its cells are distinct, as ids are."
    elif profile.known > _FEW_CELLS and distinct > profile.known / 2:
        reason = "Most of its cells are distinct, as in free text."
    elif distinct > _FEWEST_NAMES and 2 * _shared_rows(profile) < profile.known:
        reason = (
            f"Its {distinct} values are shared by few rows each, as names and ids are. State the type"
            " category to model it."
        )
    if reason is not None:
        told, others = (nearly["detail"], nearly["remedies"]) if nearly else (reason, [])
        kind: ColumnType | None = "category" if distinct else None
        return _ignored(profile.column, told, *others, model_as=kind)
    column = _levels(profile, options)
    rare = f", and {distinct - len(column.levels)} rare ones as *other*" if column.other else ""
    plural = "value" if len(column.levels) == 1 else "values"
    reason = f"The cells are text of {len(column.levels)} {plural}{rare}."
    warnings = [*([nearly] if nearly else []), *_about_spellings(profile)]
    return Decision(column=column, reason=reason, warnings=warnings)


def _shared_rows(profile: TextProfile) -> int:
    """Return the number of rows whose text many others share."""
    return sum(count for count in profile.counts.values() if count >= _ROWS_OF_A_NAME)


def _nearly(profile: TextProfile, *, comma: bool | None) -> TableWarning | None:
    """Return the sentence that says why cells that are nearly all numbers or dates are taken as text."""
    best = next(iter(profile.readings), None)
    if _is_ambiguous(profile):
        return warning(
            "ambiguous_dates",
            profile.name,
            "Its dates may begin with the day or with the month, and are taken as text. State the"
            " format by datetime_format=.",
            *_orders(profile),
        )
    if best is None or profile.codes:
        return None
    if best.is_number and not best.others and _chosen_number(profile, comma=comma) is None:
        return warning(
            "unreadable",
            profile.name,
            "Its numbers may have decimal commas or commas between thousands, and are taken as text. State"
            " decimal= or thousands=.",
            remedy("decimal", ",", "Read decimal commas"),
            remedy("decimal", ".", "Read decimal points"),
        )
    if not best.others or best.example is None:
        return None
    form = best.column.datetime_format or "ISO 8601"
    like = f"numbers{told_style(best.column)}" if best.is_number else f"dates in the format {form}"
    where = "" if best.row is None else f" in row {best.row}"
    return warning(
        "unreadable",
        profile.name,
        f"Its cells are taken as text: {profile.known - best.bad} of {profile.known} are {like}, but not"
        f" {best.example[:_SHOWN]!r}{where}. If such texts mean no value, name them by na_values=; else write all"
        " cells alike.",
        _without(best.example),
    )


def _orders(profile: TextProfile) -> Iterator[Remedy]:
    """Yield both ways to read dates whose days and months could be each other."""
    best = _chosen_date(profile)
    form = None if best is None else best.column.datetime_format
    for one in (form, swapped(form)):
        if one is not None:
            order = "day" if one.find("%d") < one.find("%m") else "month"
            yield remedy("datetime_format", one, f"Read the {order} first")


def _without(text: str) -> Remedy:
    """Return the remedy of a text among values: its row goes if it names a total, else it is a gap."""
    if _TOTAL.fullmatch(text):
        return remedy("drop_rows", [text], f"Leave out the rows of {text!r}")
    return remedy("na_values", [text], f"Take {text[:_SHOWN]!r} as missing")


def _about_total(profile: TextProfile) -> Iterator[TableWarning]:
    found = {text: profile.counts[text] for text in profile.counts if _TOTAL.fullmatch(text)}
    if _TOTAL.fullmatch(profile.last):
        found.setdefault(profile.last, 1)
    rows = sum(found.values())
    if not rows or 2 * rows > profile.known:
        return
    names = f"{rows} rows name a total, and are"
    if rows == 1:
        which = f"The last row, {profile.rows}," if _TOTAL.fullmatch(profile.last) else "A row"
        names = f"{which} names a total, and is"
    texts = list(found)
    named = " and ".join(f"drop_rows={text}" for text in texts)
    label = f"Leave out the rows of {', '.join(map(repr, texts))}"
    detail = f"{names} modelled like the others. If it sums them up, leave it out by {named}."
    yield warning(
        "totals",
        profile.name,
        detail,
        remedy("drop_rows", texts, label),
    )


def _about_spellings(profile: TextProfile) -> Iterator[TableWarning]:
    """Yield the warning about levels that differ in case or blanks alone."""
    alike = [texts for texts in profile.spellings() if len(texts) > 1]
    if not alike:
        return
    shown = "; ".join(
        " and ".join(map(repr, texts[:_SHOWN_TEXTS])) for texts in alike[:_SHOWN_TEXTS]
    )
    more = f", and {len(alike) - _SHOWN_TEXTS} more" if len(alike) > _SHOWN_TEXTS else ""
    yield warning(
        "similar_levels",
        profile.name,
        f"Some of its values differ in case or blanks alone, and are taken as different ones: {shown}{more}. If"
        " they mean the same, name the column by merge_levels=.",
        remedy("merge_levels", [profile.name], "Merge these values"),
    )


def _are_versions(texts: Iterable[str]) -> bool:
    """Return whether some numbers end with a zero that others lack, as versions do: 1.9 and 1.10."""
    places = {text: len(text.partition(".")[2]) for text in texts}
    zeros = [count for text, count in places.items() if count > 1 and text.endswith("0")]
    return bool(zeros) and any(0 < count < max(zeros) for count in places.values())


def _levels(profile: TextProfile, options: ParseOptions) -> Column:
    """Return a category of the most frequent texts; whole numbers are levels that are numbers."""
    ordered = profile.by_count()
    kept = ordered[: options.max_levels]
    other = len(kept) < len(ordered) or profile.is_free
    levels: tuple[Level, ...] = tuple(kept)
    if not other and all(_DIGITS.fullmatch(text) for text in kept):
        levels = tuple(sorted(int(text) for text in kept))
    if not levels:
        return replace(profile.column, type="ignored")
    return replace(profile.column, type="category", levels=levels, other=other)


def _truths(profile: TextProfile, *, pairs: bool = True) -> Decision | None:
    """Return the type of a column of truth values, with the spellings that are most frequent."""
    if profile.native is not None and profile.native.type == "boolean":
        bools = tuple(
            is_true for is_true in (False, True) if str(is_true).lower() in profile.counts
        )
        column = replace(profile.column, type="boolean", levels=bools)
        return Decision(column=column, reason="The cells are true or false.")
    lower = {text.lower() for text in profile.counts}
    if profile.is_free or not lower or not lower <= {*FALSE_TEXTS, *TRUE_TEXTS}:
        return None
    if pairs and lower not in map(set, _TRUTH_PAIRS):
        return None
    spellings: dict[bool, str] = {}
    for text in profile.by_count():
        spellings.setdefault(text.lower() in TRUE_TEXTS, text)
    levels: tuple[Level, ...] = tuple(spellings.values())
    if lower <= {"0", "1", "0.0", "1.0"}:
        levels = tuple(sorted(int(float(text)) for text in spellings.values()))
    column = replace(profile.column, type="boolean", levels=levels)
    return Decision(column=column, reason=f"The cells are {' or '.join(spellings.values())}.")


def _read(profile: TextProfile, reading: Reading, reason: str) -> Decision:
    """Return a column as it is read in one way, with the warning about texts that stand for no value."""
    form = reading.column.datetime_format
    column = replace(
        reading.column,
        missing=profile.missing + reading.bad > 0,
        na_values=(*reading.column.na_values, *(() if reading.others else reading.words)),
        first_year=first_year(reading.latest) if has_short_year(form) else None,
    )
    if not reading.bad or reading.example is None:
        return Decision(column=column, reason=reason)
    detail = (
        f"{reading.bad} of {profile.known} cells are not {'numbers' if reading.is_number else 'dates'}, and are"
        f" taken as missing, such as {reading.example[:_SHOWN]!r}. If these texts mean more than a gap, state"
        " another type by types=."
    )
    other = remedy("types", {profile.name: "category"}, "Model it as a category")
    return Decision(
        column=column, reason=reason, warnings=[warning("unreadable", profile.name, detail, other)]
    )
