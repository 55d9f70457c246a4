"""Companions of trained flows, whose answers are calibrated on validation rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flows.compiled.answers import weighted_shares
from flows.compiled.compiled_flow import Doubles
from flows.compiled.conditions import Conditions
from flows.compiled.ensemble import compile_flow
from flows.compiled.questions import MOST_TERMS, PREDICTION, Integers, Questions
from flows.flow import Flow
from flows.mixed.companion import SHARES, Companion
from flows.mixed.companion_fitting import fit_companion, needs_companion

# Rows that a companion is fitted to, and those that choose its components; half are samples of the flow.
_FITTED, _HELD_OUT = 6000, 2000
# Most rows that probabilities are calibrated on, and rows times levels.
_CALIBRATED_ROWS, _CALIBRATED = 1000, 2**18
# Powers that are tried, of the flow and of its companion.
_POWERS, _OWN_POWERS = 1 - np.arange(15) / 20, np.arange(11) / 20
# A few rows tell little of the powers: they are normal about what tables usually have.
_PRIOR = 0.5 * (((_POWERS - 0.6) / 0.25) ** 2 + ((_OWN_POWERS[:, None] - 0.3) / 0.15) ** 2)
# Powers of the weights of draws, of which one below 1 must gain a part of the squared error.
_DRAWN_POWERS, _GAIN = (1.0, 0.75, 0.5), 0.01
# Most rows with hidden cells, most cells of these and most times that a row is taken; part of the cells that is hidden.
_HIDDEN_ROWS, _HIDDEN_CELLS, _REPEATED, _HIDDEN = 1500, 2**14, 4, 0.2
# Cells of all columns count for a column as much as this many rows of its own, and a tail is narrowed to half.
_POOLED, _NARROWED = 100.0, 2.0


def companion_of(
    flow: Flow,
    train: Tensor,
    validation: Tensor,
    *,
    seed: int,
    alive: Callable[[], None] = lambda: None,
) -> Companion | None:
    """Return the companion of a flow, whose cells it is to propose; None if it can have none.

    It is fitted to samples of the flow, which it must cover, and to as many training rows, so that it is a second
    opinion of what flows are too sure of. How much each counts in predictions, validation rows decide.

    Args:
        flow: Trained flow.
        train: Rows that it was trained on, in the data's units.
        validation: Rows that answers are calibrated on.
        seed: Seed of the samples, the fit and the cells that are hidden.
        alive: Function that is called now and then.
    """
    if not needs_companion(flow):
        return None
    compiled, random = compile_flow(flow, device=flow.device), np.random.default_rng(seed)
    samples, rows = [], validation.double().cpu().numpy()
    for chunk in compiled.iter_sample((_FITTED + _HELD_OUT) // 2, seed=seed, chunk_rows=1000):
        samples.append(chunk)
        alive()
    drawn = np.concatenate(samples)
    chosen = torch.from_numpy(random.permutation(len(train))[: _FITTED // 2])
    own = np.resize(train[chosen.to(train.device)].double().cpu().numpy(), (_FITTED // 2, flow.dim))
    others = np.resize(random.permutation(rows), (_HELD_OUT // 2, flow.dim))
    fitted, held_out = (
        torch.from_numpy(np.concatenate(pair))
        for pair in ((own, drawn[: _FITTED // 2]), (others, drawn[_FITTED // 2 :]))
    )
    companion = fit_companion(flow, fitted, held_out, seed=seed, alive=alive)
    if companion is not None:
        compiled.companion = companion
        _calibrate_categories(Questions(compiled), rows, alive)
        _calibrate_draws(Questions(compiled), rows, seed, alive)
        _calibrate_intervals(Questions(compiled), rows, seed + 1, alive)
    return companion


def _calibrate_categories(asks: Questions, rows: Doubles, alive: Callable[[], None]) -> None:
    """Choose the powers of columns of categories, by the log likelihood of these in rows."""
    layout, companion = asks.companion.layout, asks.companion
    rows = rows[:: -(-len(rows) // min(_CALIBRATED_ROWS, _CALIBRATED // max(1, layout.slots)))]
    for column, kind in enumerate(layout.columns):
        if not 2 <= kind.levels < MOST_TERMS:
            continue
        same = rows[:, column, None] == asks.values_of(column)
        own, level = rows[same.any(axis=1)], same[same.any(axis=1)].argmax(axis=1)
        found = []
        for powers in ((1.0, 0.0), (0.0, 1.0)):
            companion.powers[column], companion.own_powers[column] = powers
            found.append(_log_shares(asks, own, column))
            alive()
        losses = _PRIOR.copy()
        for place, at in np.ndindex(losses.shape):
            pooled = float(_POWERS[at]) * found[0] + float(_OWN_POWERS[place]) * found[1]
            terms = pooled.log_softmax(dim=1)
            losses[place, at] -= float(terms[range(len(own)), level].sum())
        place, at = np.unravel_index(losses.argmin(), losses.shape)
        companion.powers[column] = _POWERS[at]
        companion.own_powers[column] = _OWN_POWERS[place]
        alive()


def _log_shares(asks: Questions, rows: Doubles, column: int) -> Tensor:
    """Return the log probabilities of the levels of a column given all else."""
    known, count = np.arange(asks.flow.dim) != column, len(asks.values_of(column))
    found = np.empty((len(rows), count))
    for places, part in asks.weighted(
        rows, known, conditions=Conditions(filled=[column]), effort=PREDICTION
    ):
        found[places] = np.asarray(part.levels[0])[:, :count]
    return torch.from_numpy(np.log(np.fmax(found, 1e-12)))


class _Hidden(NamedTuple):
    """Cells of one column that are hidden: their rows, values and answers."""

    column: int
    rows: Integers
    x: Doubles
    table: Doubles | None
    cells: Doubles
    weights: Doubles


def _hidden(asks: Questions, rows: Doubles, seed: int) -> Iterator[_Hidden]:
    """Yield answers for some cells of rows, of which a few are taken several times, with other cells hidden."""
    random = np.random.default_rng(seed)
    count = min(_HIDDEN_ROWS, _REPEATED * len(rows), max(1, _HIDDEN_CELLS // asks.flow.dim))
    many = random.permutation(np.resize(rows, (max(count, len(rows)), rows.shape[1])))[:count]
    there = np.isfinite(many)
    asked = there & (random.random(many.shape) < _HIDDEN)
    conditions = Conditions(filled=range(asks.flow.dim))
    answers = asks.weighted(many, there & ~asked, conditions=conditions, effort=PREDICTION)
    for places, found in answers:
        for at, column in enumerate(found.columns):
            mine = asked[places, column]
            own, table = places[mine], found.levels[at]
            table = None if table is None else table[mine]
            cells = found.cells[mine, :, at]
            yield _Hidden(column, own, many[own, column], table, cells, found.weights[mine])


def _calibrate_draws(asks: Questions, rows: Doubles, seed: int, alive: Callable[[], None]) -> None:
    """Choose the power of the weights of draws: that whose means have the least squared errors."""
    errors = np.zeros((len(_DRAWN_POWERS), asks.flow.dim))
    for cell in _hidden(asks, rows, seed):
        alive()
        for at, power in enumerate(_DRAWN_POWERS):
            if cell.table is None:
                weights = cell.weights**power
                means = np.nansum(cell.cells * weights, axis=1) / weights.sum(axis=1)
                errors[at, cell.column] += np.square(means - cell.x).sum()
    asked = errors[0] > 0
    relative = (errors[:, asked] / errors[0, asked]).mean(axis=1) if asked.any() else np.ones(1)
    if relative.min() < 1 - _GAIN:
        asks.companion.drawn_power.fill_(_DRAWN_POWERS[int(relative.argmin())])


def _calibrate_intervals(
    asks: Questions, rows: Doubles, seed: int, alive: Callable[[], None]
) -> None:
    """Set the shares at which intervals end by those of the cells that are hidden.

    As quantiles are recalibrated by Kuleshov et al. (2018), with the k-th of n shares as that of k / (n + 1)
    (conformal prediction). An end belongs to its interval, so that a lower one counts the cells below it and an
    upper one those above. The few rows of a column are joined by the cells of all, whose shares are distributed alike.
    """
    dim = asks.flow.dim
    shares = np.full((2, _HIDDEN_ROWS, dim), np.nan)
    for cell in _hidden(asks, rows, seed):
        alive()
        if cell.table is None:
            shares[:, cell.rows, cell.column] = weighted_shares(cell.cells, cell.weights, cell.x)
        elif asks.has_numbers(cell.column):
            values, x = asks.values_of(cell.column), cell.x[:, None]
            for end, counted in zip(shares, (values < x, values <= x), strict=True):
                end[cell.rows, cell.column] = (cell.table[:, : len(values)] * counted).sum(axis=1)
    for column in range(dim):
        below, upto = (_recalibrated(end[:, column], end, at_most=len(rows)) for end in shares)
        low = np.minimum(np.minimum(upto, _NARROWED * SHARES), 0.5)
        high = np.maximum(np.maximum(below, 1 - _NARROWED * (1 - SHARES)), 0.5)
        ends = np.where(SHARES < 0.5, low, np.where(SHARES > 0.5, high, 0.5))
        asks.companion.shares[column] = torch.from_numpy(ends)


def _recalibrated(own: Doubles, pooled: Doubles, *, at_most: int) -> Doubles:
    """Return the quantiles of the shares of a column, joined by those of all; as they are if it has none."""
    own, pooled = own[np.isfinite(own)], pooled[np.isfinite(pooled)]
    if not len(own):
        return SHARES
    count = min(len(own), at_most)
    found = np.concatenate([own, pooled])
    weights = np.repeat([count / len(own), _POOLED / len(pooled)], [len(own), len(pooled)])
    order = found.argsort()
    places = (weights[order].cumsum() - weights[order] / 2 + 0.5) / (count + _POOLED + 1)
    quantiles: Doubles = np.interp(SHARES, [0.0, *places, 1.0], [0.0, *found[order], 1.0])
    return quantiles
