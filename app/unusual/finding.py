"""Unusual rows of a table: which were kept, their cells, and why they are unlikely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.datasets.rows import read_cells
from app.engine.engine import Terms
from app.engine.held_out_rows import HeldOutRows
from app.engine.reference_rows import data_rows
from app.limits import in_thread
from app.problems.problem import Problem
from app.state import AppState
from app.unusual.views import (
    HeldOutRowsView,
    PeriodView,
    ReasonView,
    ThresholdView,
    UnusualRowView,
    UnusualView,
    UsualValues,
)
from flows.usual_cells import WIDTH, Candidates, judge_cells, passes
from models_store.errors import NotFoundError
from models_store.least_rows import THRESHOLDS
from models_store.records import Dataset, Version
from models_store.reviews import digest_of
from tabular.cells import decode_cells, recode
from tabular.columns import Column
from tabular.errors import TableError
from tabular.typed_rows import JsonCell

Doubles = NDArray[np.float64]

_SAMPLE_ROWS = 1000
_MONTH_S = 365.25 / 12 * 86_400
_LEAST_MONTHS = 0.25
_REASONS = 5
_TOLD_NATS = 1.0  # from which on a cell is a reason
_MAX_PRODUCTS = 2**30  # of weights and rows, for one row: about half a second
_TAILS = 0.05, 0.95


@dataclass(frozen=True)
class Asked:
    """Page of unusual rows that is asked for.

    Args:
        limit: Most rows.
        max_rank: Largest rank of a row; None: any.
    """

    limit: int
    offset: int = 0
    max_rank: float | None = None


@dataclass(frozen=True, eq=False)
class _Page:
    """Rows of a page, read from the disk.

    Attributes:
        rows: Their indices in the table.
        numbers: The same as numbers, of the columns of the model and of its context.
        cells: The same as cells of all columns.
    """

    places: Sequence[int]
    rows: Sequence[int]
    log_prob: Doubles
    ranks: Doubles | None
    numbers: Doubles
    cells: Sequence[Mapping[str, JsonCell]]


async def unusual_view(
    state: AppState,
    version: Version,
    dataset: Dataset,
    kept: Mapping[str, Any],
    asked: Asked,
    *,
    job_id: str | None = None,
) -> UnusualView:
    """Return a page of the least likely rows of a table.

    Args:
        kept: What was kept of its least likely rows, as of `LeastRows`.
        job_id: Id of the scoring job that found them; None: the training.

    Raises:
        OverloadedError: The engine has too much to do.
        StoreError: The model or the table cannot be read.
    """
    held_out = None if version.held_out is None else HeldOutRows.of(version)
    page = await in_thread(_read, state, version, dataset, kept, asked, held_out)
    reasons = await _reasons(state, version, page)
    modelled = {column.name for column in version.column_types}
    digests = [
        digest_of({name: cell for name, cell in cells.items() if name in modelled})
        for cells in page.cells
    ]
    found = await in_thread(state.reviews.of, version.project, version.name, set(digests))
    parts = kept.get("held_out")
    period = _period(dataset)
    rows = [
        UnusualRowView(
            row=row,
            held_out=None if parts is None else parts[place],
            rank=None if page.ranks is None else float(page.ranks[at]),
            log_prob=float(page.log_prob[at]) if np.isfinite(page.log_prob[at]) else None,
            cells=dict(page.cells[at]),
            reasons=reasons[at],
            digest=digests[at],
            review=found.get(digests[at]),
        )
        for at, (place, row) in enumerate(zip(page.places, page.rows, strict=True))
    ]
    return UnusualView(
        model=version.ref,
        dataset_id=dataset.id,
        job_id=job_id,
        columns=[column["name"] for column in dataset.columns],
        total_rows=kept["total"],
        kept_rows=len(kept["rows"]),
        held_out=None
        if held_out is None
        else HeldOutRowsView(rows=held_out.rows, part=version.held_out_part),
        rows=rows,
        thresholds=[
            ThresholdView(
                rank=rank,
                rows=count,
                per_month=None if period is None else round(count / period.months, 2),
            )
            for rank, count in zip(THRESHOLDS, kept["counts"] or [], strict=False)
            # A lower rank than that below all held-out rows does not exist.
            if held_out is not None and rank * (held_out.rows + 1) >= 1
        ],
        period=period,
    )


def _read(
    state: AppState,
    version: Version,
    dataset: Dataset,
    kept: Mapping[str, Any],
    asked: Asked,
    held_out: HeldOutRows | None,
) -> _Page:
    log_prob = np.array([-np.inf if one is None else one for one in kept["log_prob"]])
    ranks = None if held_out is None else held_out.rank(log_prob)
    places = np.arange(len(log_prob))
    if asked.max_rank is not None and ranks is not None:
        places = places[ranks <= asked.max_rank]
    chosen = places[asked.offset : asked.offset + asked.limit].tolist()
    rows = [kept["rows"][place] for place in chosen]
    if kept["total"] != dataset.rows:
        raise Problem("unusual-unavailable", f"Dataset {dataset.id} has another table since.")
    numbers, cells = read_cells(dataset, state.blobs, rows)
    try:
        numbers = recode(numbers, dataset.column_types, version.column_types)
    except (TableError, StopIteration, KeyError) as error:
        told = f"Dataset {dataset.id} has got other types since."
        raise Problem("unusual-unavailable", told) from error
    return _Page(
        places=chosen,
        rows=rows,
        log_prob=log_prob[chosen],
        ranks=None if ranks is None else ranks[chosen],
        numbers=numbers,
        cells=cells,
    )


async def _reasons(state: AppState, version: Version, page: _Page) -> list[list[ReasonView]]:
    """Return the cells that make each row of a page unlikely, the worst first."""
    types = version.column_types[: version.dim]
    sample = await in_thread(data_rows, version, state.registry, state.blobs, _SAMPLE_ROWS)
    if sample is None:
        sample = page.numbers
    columns = [
        Candidates.of(sample[:, place].astype(np.float64), _atoms(one), is_discrete=one.is_discrete)
        for place, one in enumerate(types)
    ]
    count = passes(columns)
    if not page.rows:
        return []
    if count * version.parameters > _MAX_PRODUCTS:
        return [_outlying(row, cells, sample, types) for row, cells in _both(page)]
    judged = np.empty((len(page.rows), len(types) * WIDTH))
    async with state.models.use(version) as flow:

        def judge(rows: Doubles) -> tuple[Doubles]:
            return (judge_cells(flow.log_prob, rows, columns).reshape(len(rows), -1),)

        terms = Terms.of(flow, passes=count)
        await state.engine.apply(judge, page.numbers, judged, terms=terms)
    told = partial(_told, types=types, columns=columns)
    return [
        told(cells, found.reshape(len(types), WIDTH))
        for cells, found in zip(page.cells, judged, strict=True)
    ]


def _both(page: _Page) -> list[tuple[Doubles, Mapping[str, JsonCell]]]:
    return list(zip(page.numbers, page.cells, strict=True))


def _atoms(column: Column) -> list[float]:
    """Return the single values of a column that have probabilities of their own."""
    return [*column.level_numbers, *column.spikes, *([float("nan")] if column.missing else [])]


def _told(
    cells: Mapping[str, JsonCell],
    judged: Doubles,
    *,
    types: Sequence[Column],
    columns: Sequence[Candidates],
) -> list[ReasonView]:
    """Return the reasons of a row; where no cell alone is one, the worst."""
    order = np.argsort(judged[:, 0], kind="stable")[:_REASONS]
    found = [place for place in order if judged[place, 0] <= -_TOLD_NATS]
    reasons = []
    for place in found or [place for place in order[:1] if judged[place, 0] < 0]:
        difference, low, high, *likeliest = judged[place]
        value = cells[types[place].name]
        atoms = columns[place].atoms[[int(at) for at in likeliest if at >= 0]]
        levels = None
        if not np.isfinite(low):
            usual = decode_cells(atoms, types[place]).to_pylist()
            levels = [level for level in usual if level != value]
        reasons.append(
            ReasonView(
                column=types[place].name,
                value=value,
                difference=round(float(difference), 3),
                usual=_usual(low, high, types[place]) if levels is None else None,
                levels=levels,
            )
        )
    return reasons


def _usual(low: float, high: float, column: Column) -> UsualValues:
    first, last = decode_cells(np.array([low, high]), column).to_pylist()
    if column.decimals is None and isinstance(first, float):
        digits = max(0, 2 - int(np.floor(np.log10(max(high - low, 1e-300)))))
        first, last = round(first, min(digits, 300)), round(last, min(digits, 300))
    return UsualValues(low=first, high=last)


def _outlying(
    row: Doubles, cells: Mapping[str, JsonCell], sample: Doubles, types: Sequence[Column]
) -> list[ReasonView]:
    """Return the cells that lie outside of the middle of their columns, whatever the other cells are."""
    found: list[tuple[float, ReasonView]] = []
    for place, column in enumerate(types):
        known = sample[np.isfinite(sample[:, place]), place]
        if column.is_discrete or not len(known) or not np.isfinite(row[place]):
            continue
        low, high = np.quantile(known, _TAILS)
        beyond = max(low - row[place], row[place] - high) / max(high - low, 1e-300)
        if beyond > 0:
            reason = ReasonView(
                column=column.name,
                value=cells[column.name],
                difference=None,
                usual=_usual(low, high, column),
                levels=None,
            )
            found.append((beyond, reason))
    return [reason for _, reason in sorted(found, key=lambda one: -one[0])[:_REASONS]]


def _period(dataset: Dataset) -> PeriodView | None:
    """Return the time that a table covers by its first column of dates; None without one, or if it is short."""
    for fields in dataset.columns:
        if fields.get("type") != "datetime" or fields.get("min") is None:
            continue
        quantiles = fields.get("quantiles") or {}
        first = quantiles.get("0.01", fields["min"])
        last = quantiles.get("0.99", fields["max"])
        months = (last - first) / _MONTH_S
        if months >= _LEAST_MONTHS:
            column = Column.from_dict(fields)
            told = decode_cells(np.array([first, last]), column).to_pylist()
            return PeriodView(
                column=column.name, first=told[0], last=told[1], months=round(months, 2)
            )
    return None


def dataset_of(state: AppState, project: str, dataset_id: str) -> Dataset:
    """Return the dataset that unusual rows are of.

    Raises:
        Problem: `unusual-unavailable`: it is deleted.
    """
    try:
        return state.registry.dataset(project, dataset_id)
    except NotFoundError as error:
        raise Problem("unusual-unavailable", f"Dataset {dataset_id} is deleted.") from error
