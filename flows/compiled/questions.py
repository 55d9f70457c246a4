"""Questions about any columns given any others: draws of a flow's companion, weighted by the exact joint density.

Self-normalised importance sampling: unknown cells are drawn from the companion q given the known ones, and each
draw is weighted by p / q of the whole row. Where the unknown cells are few categories, all are summed instead.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.compiled.compiled_flow import CompiledFlow, Doubles
from flows.compiled.conditions import Conditions, Within
from flows.errors import FlowError
from flows.mixed.companion import Companion, patterns
from flows.specs.columns import UNSEEN, MixedColumn

MOST_TERMS = 512
"""Most combinations of categories that are summed exactly."""
# Numbers that a batch of draws takes at a time: draws, components, values.
_MOST_NUMBERS = 2**21
_GROWTH = 2
Integers = NDArray[np.integer[Any]]
Unsigned = NDArray[np.uint64]
_NO_COMPANION = (
    "this flow has no companion: it is conditional, too large, or from before there were such"
)


@dataclass(frozen=True)
class Effort:
    """Draws of a row: more are taken, twice as many each time, until their quality is as stated.

    Attributes:
        most: Most draws; an answer that is not good by then is uncertain.
        effective: Least effective number of draws.
        error: Largest standard error of a log density, in nats.
        cells: True to return the cells; False for the densities alone.
        predicts: True for weights that validation rows calibrated, to predict cells by; False for those of the
            flow's density.
    """

    draws: int = 64
    most: int = 512
    effective: float = 16.0
    error: float = math.inf
    seed: int = 0
    cells: bool = True
    predicts: bool = False

    def with_seed(self, seed: int) -> "Effort":
        """Return the same effort with another seed."""
        return replace(self, seed=seed)


_USUAL = Effort()
DENSITY_EFFORT = Effort(draws=256, most=4096, effective=64.0, error=0.02, cells=False)
"""Effort of log densities of some columns."""
PREDICTION = Effort(most=256, predicts=True)
"""Effort of what cells probably are."""


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


@dataclass(frozen=True, eq=False)
class Weighted:
    """Unknown cells of rows: their values and weights.

    Attributes:
        columns: Numbers of the columns that are unknown in any of the rows.
        cells: Values in the data's units; NaN for a missing one, and where the column is known.
        weights: Weights, which sum to 1 in each row.
        levels: For each column of levels the probabilities of its states, of no meaning where it is known; None
            for numbers.
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
        found = np.empty((len(Estimates._fields), len(x)))
        for places, part in self.weighted(x, known, effort=DENSITY_EFFORT.with_seed(seed)):
            found[:, places] = part.estimates
        return Estimates(*found)

    def weighted(
        self,
        x: Doubles,
        known: NDArray[np.bool_],
        *,
        conditions: Conditions | None = None,
        effort: Effort = _USUAL,
        numbers: Integers | None = None,
    ) -> Iterator[tuple[Integers, Weighted]]:
        """Yield the unknown cells of rows, weighted: numbers of some of the rows, and theirs.

        Args:
            x: Rows in the data's units; what unknown cells hold does not matter.
            known: Mask of the columns that are known, of all rows or of each.
            conditions: Conditions of unknown cells.
            effort: Draws of a row.
            numbers: Number of each row, by which rows have draws of their own; None: all share theirs.
        """
        known = np.broadcast_to(known, (len(x), self.flow.dim))
        rows, terms = self._encode(x, known)
        plan = _Plan(self, conditions or Conditions(), effort)
        for places, found in plan.answers(rows, torch.from_numpy(known.copy()), numbers):
            log_prob = found.estimates.log_prob + terms[places]
            yield places, replace(found, estimates=found.estimates._replace(log_prob=log_prob))

    def _encode(self, x: Doubles, known: NDArray[np.bool_]) -> tuple[Tensor, Doubles]:
        """Return rows of the model, and the log slopes of their known cells."""
        layout = self.companion.layout
        exact = torch.from_numpy(np.array(x[:, : self.flow.dim], np.float64))
        rows, terms = self.flow.encode(exact)
        rows[:, len(layout.variables) :][torch.from_numpy(~known[:, layout.continuous])] = 0.0
        return rows, np.where(known, terms.numpy(), 0.0).sum(axis=1)


class _Plan:
    """Way to answer for one set of conditions, whatever the rows are and lack."""

    def __init__(self, asks: Questions, conditions: Conditions, effort: Effort) -> None:
        self.companion, self.flow, self.effort = asks.companion, asks.flow, effort
        self.layout = layout = self.companion.layout
        self.places = {variable.column: place for place, variable in enumerate(layout.variables)}
        self.allowed: dict[int, Tensor] = {}
        self.limits: dict[int, tuple[float, float]] = {}
        self.tables = [torch.from_numpy(_cells_of(column)) for column in layout.columns]
        for column in {*conditions.within, *conditions.filled}:
            within = conditions.within.get(column)
            self._restrict(column, within, is_filled=column in conditions.filled)

    def _restrict(self, column: int, within: Within | None, *, is_filled: bool) -> None:
        kind, table = self.layout.columns[column], self.tables[column].numpy()
        place = self.places.get(column)
        may = np.ones(len(table), np.bool_)
        if kind.missing and (is_filled or within):
            may[-1] = False
        if within is not None:
            may &= within.holds(table).astype(np.bool_)
            if not kind.levels:
                may[0] = within.values is None and within.low < within.high
        if not may.any():
            raise FlowError(f"no value of column {column} meets the condition")
        if place is not None and (is_filled or not may.all()):
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

    def answers(
        self, rows: Tensor, known: Tensor, numbers: Integers | None
    ) -> Iterator[tuple[Integers, Weighted]]:
        """Yield the unknown cells of rows: numbers of some of them, and theirs.

        Rows that lack the same few categories are summed over these. All others get draws, those whose weights
        are poor more of them.
        """
        alike = []
        for mask, some in patterns(known):
            combinations = self._combinations(~mask)
            if combinations is None:
                alike.append(some)
                continue
            for places in self._pieces(some, len(combinations)):
                filled = self._summed(rows[places], ~mask, combinations)
                yield places.numpy(), self._weighted(filled)[1]
        waiting, count = torch.cat(alike) if alike else torch.arange(0), self.effort.draws
        while len(waiting):
            poor, last = [waiting[:0]], count >= self.effort.most
            for places in self._pieces(waiting, count):
                own = None if numbers is None else numbers[places.numpy()]
                filled = self._drawn(rows[places], known[places], count, own)
                good, found = self._weighted(filled, keep_all=last)
                poor.append(places[~good])
                if good.any():
                    yield places[good].numpy(), found
            waiting, count = torch.cat(poor), count * _GROWTH

    def _pieces(self, places: Tensor, count: int) -> Sequence[Tensor]:
        numbers = 2 * self.companion.components + 4 * self.layout.width
        return torch.split(places, max(1, _MOST_NUMBERS // (count * numbers)))

    def _combinations(self, unknown: Tensor) -> Tensor | None:
        """Return all levels of unknown variables, one combination a line; None if they are many, or numbers."""
        if self.companion.exact or bool(unknown[self.layout.continuous].any()):
            return None
        choices = []
        for place, variable in enumerate(self.layout.variables):
            if not unknown[variable.column]:
                continue
            may = self.allowed.get(place)
            known = range(variable.size) if may is None else may.nonzero()[:, 0].tolist()
            choices.append([*known] if may is not None or variable.is_state else [UNSEEN, *known])
        if math.prod(map(len, choices)) > MOST_TERMS:
            return None
        return torch.tensor(list(itertools.product(*choices)), dtype=torch.float64)

    def _summed(self, rows: Tensor, unknown: Tensor, combinations: Tensor) -> "_Filled":
        variables = [p for p, v in enumerate(self.layout.variables) if unknown[v.column]]
        whole = rows.repeat_interleave(len(combinations), dim=0)
        whole[:, variables] = combinations.repeat(len(rows), 1)
        whole = whole.view(len(rows), len(combinations), -1)
        log_w = self.flow.score_model(whole.flatten(0, 1)).view(whole.shape[:2])
        estimates = _exactly(log_w.logsumexp(dim=1).numpy())
        lost = unknown.expand(len(rows), -1)
        if self.effort.predicts and len(variables) == 1:
            log_w = self._pooled(rows, unknown, combinations[:, 0].long(), log_w)
        return _Filled(lost, whole, log_w.softmax(dim=1).nan_to_num(0.0), estimates)

    def _pooled(self, rows: Tensor, unknown: Tensor, level: Tensor, log_w: Tensor) -> Tensor:
        """Return log weights of the levels of a column, pooled with those of the companion, as calibrated."""
        own = self.companion.conditional(rows, ~unknown.expand(len(rows), -1))
        log_own = (own.shares @ own.tables[0].exp()).clamp(min=1e-12).log()
        log_w = log_w.log_softmax(dim=1)
        # Of a level that training never saw the companion knows nothing.
        log_own = torch.where(level >= 0, log_own[:, level.clamp(min=0)], log_w)
        power, own_power = self.companion.powers[unknown], self.companion.own_powers[unknown]
        return torch.where(power > 0, power * log_w, 0.0) + own_power * log_own

    def _drawn(
        self, rows: Tensor, known: Tensor, count: int, numbers: Integers | None
    ) -> "_Filled":
        own = self.companion.conditional(rows, known)
        log_known = own.log_weights.logsumexp(dim=1)
        own = own if self.companion.exact else own.widened()
        own = own.restricted(self.allowed, self.limits)
        drawn = own.draw(spread_uniforms(count, own.dims.numpy(), self.effort.seed, numbers))
        whole = rows[:, None].repeat(1, count, 1)
        split = len(self.layout.variables)
        for places, lost, cells in (
            (own.variables, own.unknown, drawn.indices),
            ([split + place for place in own.continuous], own.hidden, drawn.values),
        ):
            whole[:, :, places] = torch.where(lost[:, None], cells, whole[:, :, places])
        shares = {
            place: own.shares @ table.exp()
            for place, table in zip(own.variables, own.tables, strict=True)
        }
        if self.companion.exact and not self.limits:
            weights = torch.full((len(rows), count), 1 / count, dtype=torch.float64)
            return _Filled(~known, whole, weights, _exactly(log_known.numpy()), shares)
        log_p = self.flow.score_model(whole.flatten(0, 1)).view(len(rows), count)
        log_w = torch.nan_to_num(log_p - drawn.log_prob, nan=-math.inf)
        log_w = torch.where(log_p.isnan().all(dim=1, keepdim=True), torch.nan, log_w)
        # Levels that training never saw have a probability of their own, and are not drawn.
        for at, place in enumerate(own.variables):
            if place not in self.allowed:
                log_seen = self.flow.log_seen[self.layout.variables[place].column]
                log_w = log_w - own.unknown[:, at, None].double() * log_seen
        estimates = self._estimates(log_w)
        if self.effort.predicts:
            log_w = log_w * self.companion.drawn_power
        return _Filled(~known, whole, log_w.softmax(dim=1).nan_to_num(0.0), estimates, shares)

    def _weighted(self, filled: "_Filled", *, keep_all: bool = True) -> tuple[Tensor, Weighted]:
        """Return which rows are good enough, and their unknown cells."""
        good = torch.from_numpy(filled.estimates.uncertain == 0) | keep_all
        kept = filled.of(good)
        columns = kept.unknown.any(dim=0).nonzero()[:, 0].tolist()
        count, cells, levels = kept.weights.shape[1], np.empty((len(kept.whole), 0, 0)), []
        if self.effort.cells:
            cells = np.full((len(kept.whole), count, len(columns)), np.nan)
            for at, column in enumerate(columns):
                lost = kept.unknown[:, column]
                found = self._decode(column, kept.whole[lost].flatten(0, 1))
                cells[lost.numpy(), :, at] = found.reshape(-1, count)
                levels.append(self._level_shares(column, kept))
        return good, Weighted(columns, cells, kept.weights.numpy(), levels, kept.estimates)

    def _estimates(self, log_w: Tensor) -> Estimates:
        count = log_w.shape[1]
        top = log_w.max(dim=1, keepdim=True).values.clamp(min=-1e300)
        weights = (log_w - top).exp()
        mean = weights.mean(dim=1)
        error = weights.std(dim=1) / mean / math.sqrt(count)
        effective = weights.sum(dim=1).square() / weights.square().sum(dim=1)
        shape = pareto_k(weights)
        log_prob = top[:, 0] + mean.log()
        good = shape <= min(1 - 1 / math.log10(count), 0.7)
        good &= (effective >= self.effort.effective) & (error <= self.effort.error)
        parts = (log_prob, error, effective, shape, (~good).double())
        return Estimates(*(part.numpy() for part in parts))

    def _decode(self, column: int, rows: Tensor) -> Doubles:
        """Return the cells of a column in the data's units."""
        kind, table, place = (
            self.layout.columns[column],
            self.tables[column],
            self.places.get(column),
        )
        numbers = np.full(len(rows), np.nan)
        if not kind.levels:
            at = self.layout.continuous.index(column)
            values = rows[:, len(self.layout.variables) + at, None]
            numbers = self.flow.decode_continuous(values, [at])[:, 0]
        if place is None:
            return numbers
        index = rows[:, place].long()
        found = table[index.clamp(min=0)].numpy()
        is_value = index.numpy() < 0 if kind.levels else index.numpy() == 0
        return np.where(is_value, numbers, found)

    def _level_shares(self, column: int, filled: "_Filled") -> Doubles | None:
        """Return the probabilities of the levels of a column; None for numbers.

        Draws are stratified by level: the share of a level under the companion, times the mean weight of
        the draws that have it, or the mean of all where none has.
        """
        if not self.layout.columns[column].levels:
            return None
        place = self.places[column]
        size = self.layout.variables[place].size
        index = filled.whole[:, :, place].long()
        mine = filled.weights * (index >= 0)
        index = index.clamp(0, size - 1)
        sums = torch.zeros(len(index), size, dtype=torch.float64).scatter_add_(1, index, mine)
        if filled.shares is not None:
            counts = torch.zeros_like(sums).scatter_add_(1, index, torch.ones_like(mine))
            overall = mine.mean(dim=1, keepdim=True)
            share = filled.shares[place]
            sums = share * torch.where(counts > 0, sums / counts.clamp(min=1), overall)
        return (sums / sums.sum(dim=1, keepdim=True).clamp(min=1e-300)).numpy()


@dataclass(frozen=True, eq=False)
class _Filled:
    """Rows of the model whose unknown cells are filled in several ways, and the weights of these.

    Attributes:
        unknown: Columns that are unknown in each row.
        whole: Filled rows, of shape (rows, draws, width).
        weights: Weights, which sum to 1 in each row.
        estimates: Log densities of the known cells, and the quality of the weights.
        shares: Probabilities of the levels of unknown variables under the companion; None if all are summed.
    """

    unknown: Tensor
    whole: Tensor
    weights: Tensor
    estimates: Estimates
    shares: dict[int, Tensor] | None = None

    def of(self, some: Tensor) -> "_Filled":
        """Return some of the rows."""
        if bool(some.all()):
            return self
        estimates = Estimates(*(part[some.numpy()] for part in self.estimates))
        shares = self.shares and {place: share[some] for place, share in self.shares.items()}
        return _Filled(self.unknown[some], self.whole[some], self.weights[some], estimates, shares)


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


def spread_uniforms(
    count: int, dims: Integers, seed: int, numbers: Integers | None = None
) -> Tensor:
    """Return evenly spread numbers from 0 to 1: a shifted lattice, whose first coordinate is in order.

    Args:
        count: Number of points of a row.
        dims: Numbers of a point, by row; points of all rows have as many as the most of them.
        seed: Seed of the shift.
        numbers: Number of each row, for a shift of its own; None: all have one.
    """
    places = np.arange(int(dims.max(initial=1)))
    root: Doubles = np.full((len(dims), 1), 2.0)
    for _ in range(40):  # of x^dims = x + 1: the ratio of Roberts' sequence
        root = (1 + root) ** (1 / np.maximum(dims, 2)[:, None])
    steps = root**-places % 1
    points = np.arange(count, dtype=np.float64)
    rows = np.zeros(len(dims), np.uint64) if numbers is None else numbers.astype(np.uint64)
    shift = hashed(seed, rows[:, None], places.astype(np.uint64))
    found = (points[:, None] * steps[:, None] + shift[:, None]) % 1
    found[:, :, 0] = (points + shift[:, :1]) / count
    return torch.from_numpy(found)


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
