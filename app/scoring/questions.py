"""Questions about some columns given others: densities, gaps that are filled, and what to expect of a column."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.responses import Response

from app.http.json_body import body_share
from app.problems.fields import listed
from app.problems.problem import FieldError, Problem
from app.rows.codecs import ROWS_VARY
from app.rows.decode import body_warnings, warning_headers
from app.rows.encode import Chunk, Part, ResponseTable
from app.rows.model_types import ModelTypes, known_types_of
from app.rows.shape import Floats
from app.scoring.functions import RowFunction
from app.scoring.request import ScoreRequest, shape_of
from flows import CompiledFlow
from flows.compiled.conditions import Fill, Within
from flows.errors import FlowError
from models_store.records import Version
from tabular.columns import UNSEEN, Column
from tabular.errors import TableError
from tabular.typed_rows import TypedRows, encode_rows
from tabular.writers import unused_name

if TYPE_CHECKING:
    from flows.compiled.questions import Questions

UNCERTAIN_HEADER = b"x-uncertain-rows"
Doubles = NDArray[np.float64]

_LEAST_ROWS = 128  # in a turn: about a tenth of a second
_PASSES = 8  # of the flow at a time for each row: answers are computed in pieces of their own

GivenCell = FiniteFloat | str | bool | None


class _Condition(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InCondition(_Condition):
    """Condition that a cell is one of some values."""

    values: list[GivenCell] = Field(
        alias="in", min_length=1, max_length=1000, description="Values, one of which the cell has."
    )


class BetweenCondition(_Condition):
    """Condition that a number or a date lies within bounds, which belong to it."""

    between: tuple[GivenCell, GivenCell] = Field(
        description="Lower and upper bound; null: there is none."
    )


Condition = GivenCell | InCondition | BetweenCondition


def questions_of(flow: CompiledFlow) -> "Questions":
    """Return the answers of a flow.

    Raises:
        Problem: `question-unavailable`.
    """
    from flows.compiled.questions import Questions  # noqa: PLC0415  it loads PyTorch

    try:
        return Questions(flow)
    except FlowError as error:
        raise Problem("question-unavailable") from error


def places_of(version: Version, names: Sequence[str], field: str) -> list[int]:
    """Return the numbers of some columns of a model.

    Raises:
        Problem: `validation`: the model does not describe one of them.
    """
    for name in names:
        if name not in version.columns:
            error = FieldError(
                f"The model does not describe a column {name!r}; it has {listed(version.columns)}.",
                parameter=field,
            )
            raise Problem("validation", errors=[error])
    return [version.columns.index(name) for name in names]


def about_columns(score: ScoreRequest, names: Sequence[str]) -> ScoreRequest:
    """Return a request whose rows have some of the columns of its model, and perhaps others."""
    version = score.version
    if version.context_columns:
        raise Problem("question-unavailable")
    if score.space == "model":
        error = FieldError(
            "Questions are about rows of data: leave `space` out.", parameter="space"
        )
        raise Problem("validation", errors=[error])
    kept = [name for name in version.columns if name in set(names)]
    types = score.types and ModelTypes(
        tuple(c for c in score.types.columns if c.name in kept), dim=len(kept), any_gaps=True
    )
    shape = shape_of(score.state, version, kept, types=types, extra="ignore")
    return score._replace(shape=shape)


def log_prob_of(version: Version, columns: Sequence[str], given: Sequence[str]) -> RowFunction:
    """Return the function that computes log p(columns | given), with its standard error.

    Raises:
        Problem: `validation`: there is no such column, or one is in both lists.
    """
    asked, known = places_of(version, columns, "columns"), places_of(version, given, "given")
    both = sorted({*asked, *known})
    if len(both) < len(asked) + len(known) or not asked:
        error = FieldError(
            "Name each column once, in `columns` if its density is asked for, in `given` if it is known.",
            parameter="columns",
        )
        raise Problem("validation", errors=[error])

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, ...]:
        whole = _whole(flow, rows, both)
        return tuple(questions_of(flow).log_prob(whole, asked, known))

    names = ["log_prob", "standard_error", "effective_samples", "pareto_k", "uncertain"]
    parts = [Part(name, place, None) for place, name in enumerate(names)]
    members = {"columns": list(columns), "given": list(given)}
    name = f"log_prob_{asked}_{known}"
    return RowFunction(
        name,
        compute,
        names,
        parts,
        checked=1,
        passes=_PASSES,
        members=members,
        whole=True,
    )


def expected(
    version: Version,
    column: str,
    given: Sequence[str],
    *,
    quantiles: Sequence[float],
    within: Within | None,
) -> RowFunction:
    """Return the function that computes what a column is, given others.

    Raises:
        Problem: `validation`: there is no such column.
    """
    (target,), known = places_of(version, [column], "column"), places_of(version, given, "given")
    if target in known:
        error = FieldError(f"{column!r} is asked for: leave it out.", parameter="given")
        raise Problem("validation", errors=[error])
    both = sorted(known)
    types = known_types_of(version)
    kind = None if types is None else types.columns[target]
    has_levels = kind is not None and bool(kind.levels) and _is_discrete(version, target)
    levels = _level_names(kind) if kind is not None and has_levels else []

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, ...]:
        whole = _whole(flow, rows, both)
        from flows.compiled.answers import expect  # noqa: PLC0415  it loads PyTorch

        found = expect(questions_of(flow), whole, target, shares=quantiles, within=within)
        last = (found.effective_samples, found.uncertain)
        first = (found.levels,) if has_levels else (found.mean, found.quantiles)
        probability = () if within is None else (found.probability,)
        return (*first, *probability, *last)

    names: list[str] = []
    parts: list[Part] = []

    def add(member: str, keys: Sequence[str] | None = None) -> None:
        stop = None if keys is None else len(names) + len(keys)
        parts.append(Part(member, len(names), stop, keys=keys))
        names.extend([member] if keys is None else [f"{member}.{key}" for key in keys])

    if has_levels:
        add("probabilities", levels)
    else:
        add("mean")
        if quantiles:
            add("quantiles", [f"{share:g}" for share in quantiles])
    if within is not None:
        add("probability")
    add("effective_samples")
    add("uncertain")
    checked = len(names) - 2
    key = f"expect_{target}_{known}_{quantiles}_{within}"
    members = {"column": column, "given": list(given)}
    return RowFunction(
        key,
        compute,
        names,
        parts,
        checked=checked,
        passes=_PASSES,
        least_rows=_LEAST_ROWS,
        members=members,
        whole=True,
    )


def _is_discrete(version: Version, place: int) -> bool:
    flow = version.flow
    flow = flow["members"][0] if "members" in flow else flow
    columns = flow.get("columns") or []
    return bool(columns) and columns[place]["levels"] > 0


def _level_names(column: Column) -> list[str]:
    numbers = np.arange(len(column.levels)) if not column.holds_values else column.level_numbers
    cells = TypedRows([column]).batch(np.asarray(numbers, np.float64)[:, None]).column(0)
    return [str(cell) for cell in cells.to_pylist()]


def _whole(flow: CompiledFlow, rows: Floats, places: Sequence[int]) -> Doubles:
    """Return rows of all columns of a flow, of which some are given."""
    whole: Doubles = np.full((len(rows), flow.dim), np.nan)
    whole[:, places] = rows
    return whole


async def respond_imputed(
    score: ScoreRequest, given: Sequence[str], *, fill: Fill, level: float | None, seed: int
) -> Response:
    """Respond with the rows of the body, their gaps filled.

    Args:
        score: Request, whose body is not read yet.
        given: Columns that the rows have; the others are filled in every row.
        fill: How gaps are filled.
        level: Probability of the intervals beside the rows; None: there are none.

    Raises:
        Problem: The rows are not valid.
    """
    version = score.version
    places = places_of(version, given, "given")
    wanted = about_columns(score, given)
    width = len(version.columns)
    beside = [] if level is None else _interval_names(version.columns)
    names = [*version.columns, *beside]

    def compute(flow: CompiledFlow, rows: Floats) -> tuple[Floats, ...]:
        whole = _whole(flow, rows[:, :-1], sorted(places))
        from flows.compiled.answers import impute  # noqa: PLC0415  it loads PyTorch

        found = impute(
            questions_of(flow),
            whole,
            fill=fill,
            level=level or 0.5,
            seed=seed,
            numbers=rows[:, -1].astype(np.int64),
        )
        intervals = () if level is None else (found.low, found.high)
        return (found.rows, *intervals, found.uncertain)

    parts = [Part("rows", 0, len(names))]
    key = f"impute_{places}_{fill}_{level}_{seed}"
    function = RowFunction(
        key, compute, [*names, "_"], parts, passes=_PASSES, least_rows=_LEAST_ROWS
    )
    with body_share(score.exchange) as share:
        body, warnings = await wanted.read(share)
        wanted.check_results(function, len(body))
        async with score.flow() as flow:
            numbered: Doubles = np.column_stack([body, np.arange(len(body))]).astype(np.float64)
            # Rows that lack the same cells are computed together.
            order = np.lexsort(np.isfinite(body).T)
            values = await wanted.compute(function, flow, numbered[order])
            values = values[order.argsort()]
        uncertain = int(values[:, -1].sum())
        types = known_types_of(version)
        # As columns of numbers, intervals are null where nothing was filled.
        interval_columns = [Column(name=name) for name in beside]
        typed = None if types is None else TypedRows([*types.columns[:width], *interval_columns])
        about = body_warnings(warnings)
        members = {
            "model": version.ref,
            "seed": seed,
            "columns": names,
            "uncertain_rows": uncertain,
        }
        if about:
            members["body_warnings"] = about
        table = ResponseTable(
            columns=names,
            parts=parts,
            rows=len(values),
            dtype=np.dtype(np.float64),
            members=members,
            explains=False,
            typed=typed,
        )
        headers = [
            *ROWS_VARY,
            (b"x-model", version.ref.encode()),
            *warning_headers(about),
            (b"x-seed", b"%d" % seed),
            (UNCERTAIN_HEADER, b"%d" % uncertain),
        ]
        return await score.codec.respond(table, Chunk(values[:, :-1]), headers=headers)


def _interval_names(columns: Sequence[str]) -> list[str]:
    names: list[str] = []
    for end in ("low", "high"):
        names += [unused_name(f"{end}.{name}", [*columns, *names]) for name in columns]
    return names


class Known:
    """Cells of a version's columns that are known, and conditions of others.

    Attributes:
        row: Known cells as numbers of the table; NaN where a cell is not known.
        within: Conditions of other cells, by the number of the column.
    """

    def __init__(self, version: Version, given: Mapping[str, Condition]) -> None:
        """Read cells and conditions.

        Raises:
            Problem: `validation`: there is no such column, or a cell is no value of it.
        """
        self._types = known_types_of(version)
        self.row = np.full(len(version.columns), np.nan)
        self.within: dict[int, Within] = {}
        for name, wanted in given.items():
            if name not in version.columns:
                raise _wrong(
                    name, f"The model does not describe it; it has {listed(version.columns)}."
                )
            place = version.columns.index(name)
            match wanted:
                case InCondition():
                    values = (self._number(place, name, cell) for cell in wanted.values)
                    self.within[place] = Within(values=tuple(values))
                case BetweenCondition():
                    self.within[place] = self._between(place, name, wanted.between)
                case None:
                    raise _wrong(name, "Leave it out: a cell that is not known needs no null.")
                case _:
                    self.row[place] = self._number(place, name, wanted)

    def _between(self, place: int, name: str, ends: tuple[GivenCell, GivenCell]) -> Within:
        low, high = (
            limit if end is None else self._number(place, name, end)
            for end, limit in zip(ends, (-np.inf, np.inf), strict=True)
        )
        if not low <= high:
            raise _wrong(name, "The lower bound of `between` is above the upper one.")
        return Within(low=low, high=high)

    def _number(self, place: int, name: str, cell: GivenCell) -> float:
        """Return a cell as the table has it."""
        if self._types is None:
            if isinstance(cell, str | bool) or cell is None:
                raise _wrong(name, "It must be a number.")
            return float(cell)
        try:
            number = float(encode_rows([[cell]], [self._types.columns[place]])[0, 0])
        except TableError as error:
            raise _wrong(name, error.detail) from error
        if np.isnan(number) or (number == UNSEEN and not self._types.columns[place].holds_values):
            raise _wrong(name, "No training row has this value.")
        return number


def _wrong(name: str, detail: str) -> Problem:
    pointer = "/given/" + name.replace("~", "~0").replace("/", "~1")
    return Problem("validation", errors=[FieldError(f"{name!r}: {detail}", pointer=pointer)])
