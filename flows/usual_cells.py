"""What is usual for each cell of a row, given the other cells: which of them make the row unlikely.

For a cell x_j of a row x, the density p(x) is compared with p(x with x_j = v) for other values v: the
conditional p(v | x without x_j) but for a constant. This needs nothing but densities, so that it holds for
any family. On a continuous scale the values are quantiles of a table, then finer and finer ones around the
most likely one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
LogProb = Callable[[Doubles], Doubles]

MAX_ATOMS, SHOWN = 64, 3
WIDTH = 3 + SHOWN
"""Numbers that a cell gets from `judge_cells`."""

_QUANTILES = 17
_FINER, _ROUNDS = 16, 2  # values between the neighbours of the most likely one, and how often
_FULL = 12  # columns of a row that are looked at closely
_TAIL = 0.05  # of the probability, on each side of what is usual
_LEAST_SHARE = 0.1  # of a level that is usual beside the likeliest one
_MOST = 1e6  # nats: a density of 0 has no number in JSON


@dataclass(frozen=True, eq=False)
class Candidates:
    """Values that a cell of a column may have.

    Attributes:
        values: Ascending values on a continuous scale; none of a column of levels.
        atoms: Single values with probabilities of their own: levels, spikes, and not-a-number for a gap.
    """

    values: Doubles
    atoms: Doubles

    @classmethod
    def of(cls, table: Doubles, atoms: Sequence[float], *, is_discrete: bool) -> "Candidates":
        """Return the values of a column of a table; of many atoms those that are most frequent there."""
        listed = np.array(atoms, np.float64)
        if len(listed) > MAX_ATOMS:
            counts = (table[:, None] == listed).sum(axis=0)
            listed = listed[np.argsort(-counts, kind="stable")[:MAX_ATOMS]]
        known = table[np.isfinite(table) & ~np.isin(table, listed)]
        if is_discrete or not len(known):
            return cls(np.empty(0), listed)
        return cls(np.unique(np.quantile(known, np.linspace(0, 1, _QUANTILES))), listed)


def passes(columns: Sequence[Candidates]) -> int:
    """Return about how many rows a flow scores to judge the cells of one."""
    closely = min(len(columns), _FULL) * _FINER * _ROUNDS
    return 1 + sum(len(one.values) + len(one.atoms) for one in columns) + closely


def judge_cells(log_prob: LogProb, rows: Doubles, columns: Sequence[Candidates]) -> Doubles:
    """Return what is usual for each of the first cells of rows, given the others of the row.

    Args:
        log_prob: Function of rows, `(n, width)`, that returns their log densities.
        rows: Cells of rows, and their context behind them, as numbers.
        columns: Candidates of each cell but those of the context.

    Returns:
        An array of shape (rows, columns, `WIDTH`): the log density of the row less that with the likeliest value in
        the cell's place, at most 0; bounds of the middle 90 % of the values, or not-a-number where a single one is
        likelier than all of these; then the places among `atoms` of the likeliest ones, -1 for none.
    """
    tried = [
        [_Cell(one, float(row[place]), float(own)) for place, one in enumerate(columns)]
        for row, own in zip(rows, log_prob(rows), strict=True)
    ]
    cells = [cell for row in tried for cell in row]
    _score(log_prob, rows, cells, [cell.first() for cell in cells])
    closely = {cell for row in tried for cell in sorted(row, key=lambda one: -one.best)[:_FULL]}
    for _ in range(_ROUNDS):
        points = [cell.finer() if cell in closely else np.empty(0) for cell in cells]
        _score(log_prob, rows, cells, points)
    return np.stack([cell.verdict() for cell in cells]).reshape(len(rows), len(columns), WIDTH)


def _score(
    log_prob: LogProb, rows: Doubles, cells: Sequence["_Cell"], points: Sequence[Doubles]
) -> None:
    """Score the rows with each of some values in the place of each of their cells."""
    counts = np.array([len(one) for one in points])
    owners = np.repeat(np.arange(len(cells)), counts)
    row, place = np.divmod(owners, len(cells) // len(rows))
    tried = rows[row]
    tried[np.arange(len(tried)), place] = np.concatenate(points)
    scores = np.nan_to_num(log_prob(tried), nan=-np.inf) if len(tried) else np.empty(0)
    for one, found in zip(cells, np.split(scores, np.cumsum(counts)[:-1]), strict=True):
        one.add(found)


class _Cell:
    """A cell of a row, and the log densities of the row with other values in its place."""

    def __init__(self, candidates: Candidates, value: float, own: float) -> None:
        self._atoms = candidates.atoms
        self._asked = candidates.values
        self._value, self._own = value, own
        same = np.isnan(self._atoms) if np.isnan(value) else self._atoms == value
        self._is_atom = bool(same.any()) or not len(candidates.values)
        self._of_atoms = np.empty(0)
        known = [] if self._is_atom or not np.isfinite(value) else [value]
        self._values = np.array(known)
        self._scores = np.array([own] * len(known))

    def first(self) -> Doubles:
        return np.concatenate([self._atoms, self._asked])

    def add(self, scores: Doubles) -> None:
        """Add the log densities of what `first` or `finer` asked for."""
        if not len(self._of_atoms):
            self._of_atoms, scores = np.split(scores, [len(self._atoms)])
        values = np.concatenate([self._values, self._asked])
        scores = np.concatenate([self._scores, scores])
        self._values, places = np.unique(values, return_index=True)
        self._scores = scores[places]
        self._asked = np.empty(0)

    def finer(self) -> Doubles:
        """Return values between the neighbours of the likeliest one."""
        if len(self._values) > 1:
            best = int(np.argmax(self._scores))
            low = self._values[max(0, best - 1)]
            high = self._values[min(len(self._values) - 1, best + 1)]
            self._asked = np.linspace(low, high, _FINER + 2)[1:-1]
        return self._asked

    @property
    def best(self) -> float:
        """The log density of the row with the likeliest value."""
        return float(max([*self._scores, *self._of_atoms], default=-np.inf))

    def verdict(self) -> Doubles:
        """Return the numbers of the cell."""
        shares, mass = self._shares()
        atoms = self._of_atoms
        likeliest = float(max([mass, *atoms]))
        if self._is_atom:
            lacking = self._own - likeliest
        else:
            densest = float(self._scores.max(initial=-np.inf))
            lacking = (self._own - densest if densest > self._own else 0.0) + (mass - likeliest)
        lacking = 0.0 if np.isnan(lacking) else min(0.0, max(-_MOST, lacking))
        result = np.full(WIDTH, np.nan)
        result[0], result[3:] = lacking, -1
        if len(shares) and mass >= likeliest:
            cumulated = np.concatenate([[0.0], np.cumsum(shares)])
            result[1], result[2] = np.interp([_TAIL, 1 - _TAIL], cumulated, self._values)
        elif len(atoms):
            order = np.argsort(-atoms, kind="stable")[:SHOWN]
            usual = order[atoms[order] >= atoms[order[0]] + np.log(_LEAST_SHARE)]
            result[3 : 3 + len(usual)] = usual
        return result

    def _shares(self) -> tuple[Doubles, float]:
        """Return the probability between each two values, of 1 in all, and the log of all that they have."""
        if len(self._values) < 2 or not np.isfinite(highest := self._scores.max()):
            return np.empty(0), -np.inf
        densities = np.exp(self._scores - highest)
        areas = np.diff(self._values) * (densities[1:] + densities[:-1]) / 2
        total = areas.sum()
        if not total > 0:
            return np.empty(0), -np.inf
        return areas / total, float(highest + np.log(total))
