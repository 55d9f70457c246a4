"""Questions about any columns given any others: draws of a flow's companion, weighted by the exact joint density.

Self-normalised importance sampling: unknown cells are drawn from the companion q given the known ones, and each
draw is weighted by p / q of the whole row. Where the unknown cells are few categories, all are summed instead.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.compiled.compiled_flow import CompiledFlow
from flows.compiled.model_space import Doubles
from flows.errors import FlowError
from flows.mixed.columns import UNSEEN, MixedColumn
from flows.mixed.companion import Companion, patterns

MOST_TERMS = 512
"""Most combinations of categories that are summed exactly."""
# Numbers that a batch of draws takes at a time: draws, components, values.
_MOST_NUMBERS = 2**21
_GROWTH = 4
Integers = NDArray[np.integer[Any]]
Unsigned = NDArray[np.uint64]
_NO_COMPANION = (
    "this flow has no companion: it is conditional, too large, or from before there were such"
)


@dataclass(frozen=True)
class Effort:
    """Draws of a row: more are taken, four times as many each time, until their quality is as stated.

    Attributes:
        most: Most draws; an answer that is not good by then is uncertain.
        effective: Least effective number of draws.
        error: Largest standard error of a log density, in nats.
        cells: True to return the cells; False for the densities alone.
    """

    draws: int = 64
    most: int = 1024
    effective: float = 16.0
    error: float = math.inf
    seed: int = 0
    cells: bool = True

    def with_seed(self, seed: int) -> "Effort":
        """Return the same effort with another seed."""
        return replace(self, seed=seed)


_USUAL = Effort()
DENSITY_EFFORT = Effort(draws=256, most=4096, effective=64.0, error=0.02, cells=False)
"""Effort of log densities of some columns."""


class Estimates(NamedTuple):
    """Log densities of some columns, one a row.

    Attributes:
        log_prob: Log densities, in nats.
        standard_error: Their standard errors; 0 where they are exact.
        effective_samples: Effective number of draws; NaN where they are exact.
        pareto_k: Shape of the tail of the weights (Vehtari et al. 2024); NaN where they are exact.
        uncertain: 1 where the quality is not as stated, after most draws; else 0.
    """

    log_prob: Doubles
    standard_error: Doubles
    effective_samples: Doubles
    pareto_k: Doubles
    uncertain: Doubles


@dataclass(frozen=True)
class Within:
    """Condition that a cell is one of some values, or within bounds.

    Attributes:
        values: Numbers of the table that it may be; None: any.
    """

    values: tuple[float, ...] | None = None
    low: float = -math.inf
    high: float = math.inf

    def holds(self, numbers: Doubles) -> Doubles:
        """Return 1 where a number meets the condition; a missing one never does."""
        inside = (numbers >= self.low) & (numbers <= self.high)
        if self.values is not None:
            inside &= np.isin(numbers, self.values)
        return inside.astype(np.float64)


@dataclass(frozen=True)
class Conditions:
    """Conditions of unknown cells.

    Attributes:
        within: What a cell must be, by column.
        filled: Columns whose cells are not missing.
    """

    within: Mapping[int, Within] = field(default_factory=dict)
    filled: Collection[int] = ()


@dataclass(frozen=True, eq=False)
class Weighted:
    """Unknown cells of rows with the same known columns: their values and weights.

    Attributes:
        columns: Numbers of the unknown columns.
        cells: Values in the data's units; NaN for a missing one.
        weights: Weights, which sum to 1 in each row.
        levels: For each column of levels the probabilities of its states; None for numbers.
        estimates: Log densities of the known cells, and the quality of the weights.
    """

    columns: list[int]
    cells: Doubles
    weights: Doubles
    levels: list[Doubles | None]
    estimates: Estimates


@dataclass(frozen=True, eq=False)
class Questions:
    """Answers of one compiled flow."""

    flow: CompiledFlow
    companion: Companion = field(init=False)

    def __post_init__(self) -> None:
        """Take the companion of the flow.

        Raises:
            FlowError: It has none.
        """
        if self.flow.companion is None:
            raise FlowError(_NO_COMPANION)
        object.__setattr__(self, "companion", self.flow.companion)

    def values_of(self, column: int) -> Doubles:
        """Return the number of the table for each level of a column; none for a column of numbers."""
        kind = self.companion.layout.columns[column]
        return _cells_of(kind)[: kind.levels]

    def has_numbers(self, column: int) -> bool:
        """Return whether the levels of a column are numbers, and more than two."""
        return len(self.companion.layout.columns[column].values) > 2

    def log_prob(
        self, x: Doubles, asked: Sequence[int], given: Sequence[int] = (), *, seed: int = 0
    ) -> Estimates:
        """Return log p(asked | given) of each row, whose other cells do not matter.

        Args:
            x: Rows in the data's units.
            asked: Numbers of the columns whose density is asked for.
            given: Numbers of the columns that are known.
        """
        both = self._log_marginal(x, sorted({*asked, *given}), seed)
        if not given:
            return both
        known = self._log_marginal(x, sorted(given), seed)
        return Estimates(
            both.log_prob - known.log_prob,
            np.hypot(both.standard_error, known.standard_error),
            np.fmin(both.effective_samples, known.effective_samples),
            np.fmax(both.pareto_k, known.pareto_k),
            np.maximum(both.uncertain, known.uncertain),
        )

    def _log_marginal(self, x: Doubles, columns: Sequence[int], seed: int) -> Estimates:
        known = np.isin(np.arange(self.flow.dim), columns)
        if known.all():
            return _exactly(self.flow.log_prob(x))
        return self.weighted(x, known, effort=DENSITY_EFFORT.with_seed(seed)).estimates

    def weighted(
        self,
        x: Doubles,
        known: NDArray[np.bool_],
        *,
        conditions: Conditions | None = None,
        effort: Effort = _USUAL,
        numbers: Integers | None = None,
    ) -> Weighted:
        """Return the unknown cells of rows, weighted.

        Args:
            x: Rows in the data's units; what unknown cells hold does not matter.
            known: Mask of the columns that are known, the same for all rows.
            conditions: Conditions of unknown cells.
            effort: Draws of a row.
            numbers: Number of each row, by which rows have draws of their own; None: all share theirs.
        """
        rows, terms = self._encode(x, known)
        plan = _Plan(self, torch.from_numpy(known), conditions or Conditions(), effort)
        count = len(plan.combinations) if plan.combinations is not None else effort.draws
        found = plan.answer(rows, count, numbers)
        # Rows whose weights are poor get more draws; those of the others stay.
        while count < effort.most and bool(found.estimates.uncertain.any()):
            count *= _GROWTH
            poor = np.flatnonzero(found.estimates.uncertain)
            own = None if numbers is None else numbers[poor]
            more = plan.answer(rows[poor], count, own)
            found = _replaced(found, more, poor)
        log_prob = found.estimates.log_prob + terms
        return replace(found, estimates=found.estimates._replace(log_prob=log_prob))

    def _encode(self, x: Doubles, known: NDArray[np.bool_]) -> tuple[Tensor, Doubles]:
        """Return rows of the model, and the log slopes of their known cells."""
        exact = torch.from_numpy(np.array(x[:, : self.flow.dim], np.float64))
        rows, terms = self.flow.encode(exact)
        values = rows[:, len(self.companion.layout.variables) :]
        lost = [place for place, c in enumerate(self.companion.layout.continuous) if not known[c]]
        values[:, lost] = 0.0
        return rows, terms[:, torch.from_numpy(known)].sum(dim=1).numpy()


class _Plan:
    """Way to answer for one set of known columns, whatever the rows are."""

    def __init__(
        self, asks: Questions, known: Tensor, conditions: Conditions, effort: Effort
    ) -> None:
        self.companion, self.flow, self.effort = asks.companion, asks.flow, effort
        self.known = known
        self.layout = layout = self.companion.layout
        self.columns = (~known).nonzero()[:, 0].tolist()
        self.variables = [p for p, v in enumerate(layout.variables) if not known[v.column]]
        self.continuous = [p for p, column in enumerate(layout.continuous) if not known[column]]
        self.allowed: dict[int, Tensor] = {}
        self.limits: dict[int, tuple[float, float]] = {}
        self.tables = {
            column: torch.from_numpy(_cells_of(layout.columns[column])) for column in self.columns
        }
        for column in self.columns:
            within = conditions.within.get(column)
            self._restrict(column, within, is_filled=column in conditions.filled)
        self.combinations = (
            None if self.continuous or self.companion.exact else self._combinations()
        )

    def _restrict(self, column: int, within: Within | None, *, is_filled: bool) -> None:
        kind, table = self.layout.columns[column], self.tables[column].numpy()
        place = next((p for p in self.variables if self.layout.variables[p].column == column), None)
        may = np.ones(len(table), np.bool_)
        if kind.missing and (is_filled or within):
            may[-1] = False
        if within is not None:
            may &= within.holds(table).astype(np.bool_)
            if not kind.levels:
                may[0] = within.values is None and within.low < within.high
        if not may.any():
            raise FlowError(f"no value of column {column} meets the condition")
        if place is not None and not may.all():
            self.allowed[place] = torch.from_numpy(may)
        if within is not None and not kind.levels and may[0]:
            limits = self._limits(column, within)
            self.limits[self.layout.continuous.index(column)] = limits

    def _limits(self, column: int, within: Within) -> tuple[float, float]:
        """Return bounds in the model's space; a bound beyond those of the column is none."""
        ends = []
        for end in (within.low, within.high):
            row = self.flow.inside.copy()
            row[column] = end if math.isfinite(end) else row[column]
            encoded, terms = self.flow.encode(torch.from_numpy(row[None]))
            at = len(self.layout.variables) + self.layout.continuous.index(column)
            bounded = math.isfinite(end) and bool(terms[0, column].isfinite())
            ends.append(float(encoded[0, at]) if bounded else math.copysign(math.inf, end))
        kind = self.layout.columns[column]
        if kind.low is not None and within.low <= kind.low:
            ends[0] = -math.inf
        if kind.high is not None and within.high >= kind.high:
            ends[1] = math.inf
        return ends[0], ends[1]

    def _combinations(self) -> Tensor | None:
        """Return all levels of the unknown variables, one combination a line; None if they are many."""
        choices = []
        for place in self.variables:
            variable = self.layout.variables[place]
            may = self.allowed.get(place)
            known = range(variable.size) if may is None else may.nonzero()[:, 0].tolist()
            choices.append([*known] if may is not None or variable.is_state else [UNSEEN, *known])
        if math.prod(map(len, choices)) > MOST_TERMS:
            return None
        return torch.tensor(list(itertools.product(*choices)), dtype=torch.float64)

    def answer(self, rows: Tensor, count: int, numbers: Integers | None) -> Weighted:
        """Return the unknown cells of rows, with a number of draws or all combinations."""
        width = max(1, 2 * self.companion.components * max(1, len(self.continuous)))
        step = max(1, _MOST_NUMBERS // (count * (width + rows.shape[1])))
        pieces = []
        for start in range(0, len(rows), step):
            own = None if numbers is None else numbers[start : start + step]
            pieces.append(self._piece(rows[start : start + step], count, own))
        if not pieces:
            pieces = [self._piece(rows, count, None)]
        return _joined(pieces)

    def _piece(self, rows: Tensor, count: int, numbers: Integers | None) -> Weighted:
        present = self.companion.present(rows)
        present[:, self.continuous] = False
        indices = rows.new_zeros(len(rows), count, len(self.variables))
        values = rows.new_zeros(len(rows), count, len(self.continuous))
        log_q, log_known = rows.new_zeros(len(rows), count), rows.new_zeros(len(rows))
        shares = [rows.new_zeros(len(rows), self.layout.variables[p].size) for p in self.variables]
        if self.combinations is not None:
            indices[:] = self.combinations
        else:
            for mask, places in patterns(present):
                own = self.companion.conditional(rows[places], self.known, mask)
                log_known[places] = own.log_weights.logsumexp(dim=1)
                own = own if self.companion.exact else own.widened()
                own = own.restricted(self.allowed, self.limits)
                uniforms = spread_uniforms(
                    count,
                    own.dims,
                    self.effort.seed,
                    None if numbers is None else numbers[places.numpy()],
                )
                drawn = own.draw(uniforms)
                indices[places], log_q[places] = drawn.indices, drawn.log_prob
                order = [own.continuous.index(place) for place in self.continuous]
                values[places] = drawn.values[:, :, order]
                for share, table in zip(shares, own.tables, strict=True):
                    share[places] = own.log_weights.softmax(dim=1) @ table.exp()
        if self.companion.exact and not self.limits:
            estimates = _exactly(log_known.numpy())
            weights = np.full((len(rows), count), 1 / count)
        else:
            log_p = self._log_joint(rows, indices, values)
            log_w = torch.nan_to_num(log_p - log_q, nan=-math.inf) if log_p.numel() else log_p
            log_w = torch.where(log_p.isnan().all(dim=1, keepdim=True), torch.nan, log_w)
            estimates = self._estimates(log_w)
            weights = log_w.softmax(dim=1).nan_to_num(0.0).numpy()
        cells, levels = np.empty((len(rows), count, 0)), []
        if self.effort.cells:
            cells = self._decode(indices, values)
            levels = self._level_shares(indices, weights, shares)
        return Weighted(self.columns, cells, weights, levels, estimates)

    def _log_joint(self, rows: Tensor, indices: Tensor, values: Tensor) -> Tensor:
        """Return the log densities of rows with their unknown cells filled."""
        count, split = indices.shape[1], len(self.layout.variables)
        whole = rows.repeat_interleave(count, dim=0)
        whole[:, self.variables] = indices.flatten(0, 1)
        whole[:, [split + place for place in self.continuous]] = values.flatten(0, 1)
        return self.flow.score_model(whole).view(len(rows), count)

    def _estimates(self, log_w: Tensor) -> Estimates:
        if self.combinations is not None:
            return _exactly(log_w.logsumexp(dim=1).numpy())
        count = log_w.shape[1]
        top = log_w.max(dim=1, keepdim=True).values.clamp(min=-1e300)
        weights = (log_w - top).exp()
        mean = weights.mean(dim=1)
        error = weights.std(dim=1) / mean / math.sqrt(count)
        effective = weights.sum(dim=1).square() / weights.square().sum(dim=1)
        shape = pareto_k(weights)
        # Levels that training never saw have a probability of their own, and are not drawn.
        open_ones = sum(
            not self.layout.variables[p].is_state and p not in self.allowed for p in self.variables
        )
        log_prob = top[:, 0] + mean.log() + open_ones * self.flow.log_unseen_rest
        good = shape <= min(1 - 1 / math.log10(count), 0.7)
        good &= (effective >= self.effort.effective) & (error <= self.effort.error)
        parts = (log_prob, error, effective, shape, (~good).double())
        return Estimates(*(part.numpy() for part in parts))

    def _decode(self, indices: Tensor, values: Tensor) -> Doubles:
        """Return unknown cells in the data's units."""
        numbers = self.flow.decode_continuous(values.flatten(0, 1), self.continuous)
        cells = np.empty((*indices.shape[:2], len(self.columns)))
        for at, column in enumerate(self.columns):
            kind, table = self.layout.columns[column], self.tables[column]
            place = next(
                (
                    i
                    for i, p in enumerate(self.variables)
                    if self.layout.variables[p].column == column
                ),
                None,
            )
            if not kind.levels:
                own = numbers[:, self.continuous.index(self.layout.continuous.index(column))]
                cells[:, :, at] = own.reshape(indices.shape[:2])
            if place is not None:
                index = indices[:, :, place].long()
                found = table[index.clamp(min=0)].numpy()
                found = np.where(index.numpy() < 0, np.nan, found)
                cells[:, :, at] = (
                    found if kind.levels else np.where(index == 0, cells[:, :, at], found)
                )
        return cells

    def _level_shares(
        self, indices: Tensor, weights: Doubles, shares: list[Tensor]
    ) -> list[Doubles | None]:
        """Return the probabilities of the levels of each unknown column of levels.

        Draws are stratified by level: the share of a level under the companion, times the mean weight of
        the draws that have it, or the mean of all where none has.
        """
        found: list[Doubles | None] = []
        for column in self.columns:
            if not self.layout.columns[column].levels:
                found.append(None)
                continue
            at = next(
                i for i, p in enumerate(self.variables) if self.layout.variables[p].column == column
            )
            size = self.layout.variables[self.variables[at]].size
            index = indices[:, :, at].long()
            mine = torch.from_numpy(weights) * (index >= 0)
            index = index.clamp(min=0)
            sums = torch.zeros(len(index), size, dtype=torch.float64).scatter_add_(1, index, mine)
            if self.combinations is None:
                counts = torch.zeros_like(sums).scatter_add_(1, index, torch.ones_like(mine))
                overall = mine.mean(dim=1, keepdim=True)
                sums = shares[at] * torch.where(counts > 0, sums / counts.clamp(min=1), overall)
            found.append((sums / sums.sum(dim=1, keepdim=True).clamp(min=1e-300)).numpy())
        return found


def _cells_of(column: MixedColumn) -> Doubles:
    """Return the number of each state of a cell; NaN for a continuous and for a missing one."""
    if column.levels:
        numbers = [*column.values] or [float(level) for level in range(column.levels)]
    else:
        numbers = [math.nan, *column.spikes]
    return np.array([*numbers, *[math.nan] * column.missing], np.float64)


def _exactly(log_prob: Doubles) -> Estimates:
    nothing = np.full(len(log_prob), np.nan)
    return Estimates(log_prob, np.zeros(len(log_prob)), nothing, nothing, np.zeros(len(log_prob)))


def _joined(pieces: list[Weighted]) -> Weighted:
    first = pieces[0]
    return Weighted(
        first.columns,
        np.concatenate([piece.cells for piece in pieces]),
        np.concatenate([piece.weights for piece in pieces]),
        [
            None if level is None else np.concatenate([piece.levels[at] for piece in pieces])
            for at, level in enumerate(first.levels)
        ],
        Estimates(*map(np.concatenate, zip(*(piece.estimates for piece in pieces), strict=True))),
    )


def _replaced(found: Weighted, more: Weighted, places: Integers) -> Weighted:
    """Return draws of which some rows have more: those of the others have weights of 0 beside theirs."""
    missing = more.weights.shape[1] - found.weights.shape[1]
    cells = np.pad(found.cells, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)
    weights = np.pad(found.weights, ((0, 0), (0, missing)))
    cells[places], weights[places] = more.cells, more.weights

    def put(mine: Doubles, theirs: Doubles) -> Doubles:
        mine = mine.copy()
        mine[places] = theirs
        return mine

    levels = [
        None if mine is None or theirs is None else put(mine, theirs)
        for mine, theirs in zip(found.levels, more.levels, strict=True)
    ]
    estimates = [
        put(mine, theirs) for mine, theirs in zip(found.estimates, more.estimates, strict=True)
    ]
    return Weighted(found.columns, cells, weights, levels, Estimates(*estimates))


def spread_uniforms(count: int, dims: int, seed: int, numbers: Integers | None = None) -> Tensor:
    """Return evenly spread numbers from 0 to 1: a shifted lattice, whose first coordinate is in order.

    Args:
        dims: Numbers of a point.
        numbers: Number of each row, for a shift of its own; None: all have one.
    """
    root = 2.0
    for _ in range(40):  # of x^dims = x + 1: the ratio of Roberts' sequence
        root = (1 + root) ** (1 / max(dims, 2))
    steps = np.array([root**-place for place in range(1, dims)]) % 1
    points = np.arange(count, dtype=np.float64)
    rows = np.zeros(1, np.uint64) if numbers is None else numbers.astype(np.uint64)
    shift = hashed(seed, rows[:, None], np.arange(dims, dtype=np.uint64))
    first = (points + shift[:, :1]) / count
    rest = (points[:, None] * steps + shift[:, None, 1:]) % 1
    return torch.from_numpy(np.concatenate([first[:, :, None], rest], axis=2))


def hashed(seed: int, rows: Unsigned, dims: Unsigned) -> Doubles:
    """Return numbers from 0 to 1 that depend on the seed, the row and the dimension alone (splitmix64)."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + rows
        for salt in (np.uint64(0), dims + np.uint64(1)):
            state = (state + salt) * np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    found: Doubles = (state >> np.uint64(11)).astype(np.float64) / 2.0**53
    return found


def pareto_k(weights: Tensor) -> Tensor:
    """Return the shape of a generalised Pareto distribution of each row's largest weights.

    Zhang and Stephens (2009), with the weak prior of Vehtari et al. (2024); 0 where all are equal.
    """
    count = weights.shape[1]
    size = max(5, math.ceil(min(0.2 * count, 3 * math.sqrt(count))))
    if count <= size:
        return torch.full((len(weights),), math.inf, dtype=torch.float64)
    ordered = weights.topk(size + 1, dim=1).values.flip(1)
    tail = ordered[:, 1:] - ordered[:, :1]
    # Draws of the same values have the same weight: those at the threshold are not beyond it.
    beyond = (tail > 1e-9 * ordered[:, -1:]).sum(dim=1, keepdim=True)
    many = beyond.clamp(min=1)
    largest = torch.where(beyond > 0, tail[:, -1:], 1.0)
    quarter = tail.gather(1, (size - many + many // 4).clamp(max=size - 1))
    quarter = torch.where(beyond > 0, quarter, 1.0)
    grid = 30 + math.isqrt(size)
    steps = torch.arange(1, grid + 1, dtype=torch.float64)
    inverse = 1 / largest + (1 - (grid / (steps - 0.5)).sqrt()) / (3 * quarter)
    shapes = torch.log1p(-inverse[:, :, None] * tail[:, None]).sum(dim=2) / many
    profile = many * ((-inverse / shapes).log() - shapes - 1)
    posterior = profile.nan_to_num(-math.inf).softmax(dim=1)
    chosen = (posterior * inverse).sum(dim=1, keepdim=True)
    shape = torch.log1p(-chosen * tail).sum(dim=1) / many[:, 0]
    shape = (beyond[:, 0] * shape + 10 * 0.5) / (beyond[:, 0] + 10)
    return torch.where(beyond[:, 0] < 5, 0.0, shape.nan_to_num(math.inf))
