"""Types of the columns of a table: those that the caller wants, and those of text."""

from dataclasses import replace

from tabular.columns import Column, ColumnType
from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.ingest.column_types import Decision, TableContext, decide, ignored_warning
from tabular.ingest.profiles import TextProfile
from tabular.source import MAX_NAME_LENGTH, CellSource

_REMEDY = "Name texts that mean a missing value by na_values=, or choose another type."


def wanted_types(table: CellSource, options: ParseOptions) -> dict[int, ColumnType]:
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


def decide_types(
    table: CellSource,
    text: frozenset[int],
    wanted: dict[int, ColumnType],
    options: ParseOptions,
) -> dict[int, Decision]:
    """Return the types of the columns that are read as text.

    Raises:
        TableError: ``dataset-dtype``, naming all columns that cannot have the type that the caller
            wants.
    """
    _refuse_unread(table, wanted)
    ignored = {at for at, kind in wanted.items() if kind == "ignored"} | table.unread.keys()
    profiles = {at: TextProfile(table.names[at], options=options) for at in sorted(text - ignored)}
    if profiles:
        for batch in table.read(text):
            for at, profile in profiles.items():
                profile.update(batch.column(at))
    comma = any(profile.has_decimal_commas for profile in profiles.values())
    day_first = {profile.begins_with_day for profile in profiles.values()} - {None}
    context = TableContext(
        comma=comma, day_first=next(iter(day_first)) if len(day_first) == 1 else None
    )
    decisions = {
        at: replace(
            decide(profile, wanted.get(at), options, context), missing_count=profile.missing
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


def _refuse_unread(table: CellSource, wanted: dict[int, ColumnType]) -> None:
    """Refuse types that the caller wants for columns without single values."""
    faults = [
        Decision(column=Column(name=table.names[at], type=wanted[at]), reason="", fault=reason)
        for at, reason in table.unread.items()
        if wanted.get(at, "ignored") != "ignored"
    ]
    refuse_faults(faults)


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
