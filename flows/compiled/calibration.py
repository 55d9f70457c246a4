"""Companions of trained flows, whose answers are calibrated on validation rows."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flows.compiled.answers import weighted_shares
from flows.compiled.compiled_flow import CompiledFlow
from flows.compiled.ensemble import compile_flow
from flows.compiled.model_space import Doubles
from flows.compiled.questions import MOST_TERMS, Conditions, Questions
from flows.flow import Flow
from flows.mixed.companion import SHARES, Companion
from flows.mixed.companion_fitting import fit_companion, needs_companion

# Samples of a flow that its companion is fitted to, and those that choose its components.
_SAMPLES = 6000, 2000
# Most rows that probabilities are calibrated on, and rows times levels; powers that are tried.
_CALIBRATED_ROWS, _CALIBRATED = 1000, 2**18
_POWERS = 1 - np.arange(15) / 20
# A few rows tell little of the power: it is normal about what tables usually have.
_PRIOR = 0.5 * ((_POWERS - 0.85) / 0.25) ** 2
# Rows that intervals are calibrated on, most cells of them, and part of the cells that is hidden.
_HIDDEN_ROWS, _HIDDEN_CELLS, _HIDDEN = 2000, 2**16, 0.2
# Cells of all columns count for a column as much as this many rows of its own, and a tail is narrowed to half.
_POOLED, _NARROWED = 100.0, 2.0


def companion_of(
    flow: Flow, validation: Tensor, *, seed: int, alive: Callable[[], None] = lambda: None
) -> Companion | None:
    """Return a companion that is fitted to samples of a flow, whose cells it is to propose; None if it can have none.

    Args:
        flow: Trained flow.
        validation: Rows that probabilities of categories and intervals are calibrated on, in the data's units.
        seed: Seed of the samples, the fit and the cells that are hidden.
        alive: Function that is called now and then.
    """
    if not needs_companion(flow):
        return None
    compiled = compile_flow(flow, device=flow.device)
    companion = _fitted(flow, compiled, seed, alive)
    rows = validation.double().cpu().numpy()
    if companion is not None and len(rows):
        compiled.companion = companion
        _calibrate_categories(Questions(compiled), rows, alive)
        _calibrate_intervals(Questions(compiled), rows, seed, alive)
    return companion


def _fitted(
    flow: Flow, compiled: CompiledFlow, seed: int, alive: Callable[[], None]
) -> Companion | None:
    chunks = []
    for chunk in compiled.iter_sample(sum(_SAMPLES), seed=seed, chunk_rows=1000):
        chunks.append(torch.from_numpy(chunk))
        alive()
    rows, count = torch.cat(chunks), _SAMPLES[0]
    return fit_companion(flow, rows[:count], rows[count:], seed=seed, alive=alive)


def _calibrate_categories(asks: Questions, rows: Doubles, alive: Callable[[], None]) -> None:
    """Choose the powers of columns of categories, by the log likelihood of these in rows."""
    layout = asks.companion.layout
    rows = rows[:: -(-len(rows) // min(_CALIBRATED_ROWS, _CALIBRATED // max(1, layout.slots)))]
    for column, kind in enumerate(layout.columns):
        if not 2 <= kind.levels < MOST_TERMS:
            continue
        same = rows[:, column, None] == asks.values_of(column)
        own, level = rows[same.any(axis=1)], same[same.any(axis=1)].argmax(axis=1)
        known, losses = np.arange(asks.flow.dim) != column, _PRIOR.copy()
        for places, found in asks.weighted(own, known, conditions=Conditions(filled=[column])):
            shares = np.asarray(found.levels[0])[:, : kind.levels]
            log_share = torch.from_numpy(np.log(np.fmax(shares, 1e-300)))
            for at, power in enumerate(_POWERS):
                terms = (power * log_share).log_softmax(dim=1)
                losses[at] -= float(terms[range(len(places)), level[places]].sum())
        asks.companion.powers[column] = _POWERS[int(losses.argmin())]
        alive()


def _calibrate_intervals(
    asks: Questions, rows: Doubles, seed: int, alive: Callable[[], None]
) -> None:
    """Set the shares at which intervals end by those of cells of rows that are hidden and answered for.

    As quantiles are recalibrated (Kuleshov et al. 2018), with the k-th of n shares that of k / (n + 1) (conformal
    prediction). An end belongs to its interval, so that a lower one counts the cells below it and an upper one
    those above. The few rows of a column are joined by the cells of all, whose shares are distributed alike.
    """
    random = np.random.default_rng(seed)
    count = min(_HIDDEN_ROWS, max(1, _HIDDEN_CELLS // asks.flow.dim))
    # A few rows are taken several times, with other cells hidden.
    many = random.permutation(np.resize(rows, (max(count, len(rows)), rows.shape[1])))[:count]
    there = np.isfinite(many)
    asked = there & (random.random(many.shape) < _HIDDEN)
    conditions = Conditions(filled=range(asks.flow.dim))
    ends = np.full((2, *many.shape), np.nan)
    for places, found in asks.weighted(many, there & ~asked, conditions=conditions):
        alive()
        for at, column in enumerate(found.columns):
            mine = asked[places, column]
            own, table = places[mine], found.levels[at]
            x = many[own, column]
            if table is None:
                cells = found.cells[mine, :, at]
                ends[:, own, column] = weighted_shares(cells, found.weights[mine], x)
            elif asks.has_numbers(column):
                values = asks.values_of(column)
                table = table[mine, : len(values)]
                ends[0, own, column] = (table * (values < x[:, None])).sum(axis=1)
                ends[1, own, column] = (table * (values <= x[:, None])).sum(axis=1)
    for column in range(asks.flow.dim):
        below, upto = (_recalibrated(end[:, column], end, at_most=len(rows)) for end in ends)
        low = np.minimum(np.minimum(upto, _NARROWED * SHARES), 0.5)
        high = np.maximum(np.maximum(below, 1 - _NARROWED * (1 - SHARES)), 0.5)
        shares = np.where(SHARES < 0.5, low, np.where(SHARES > 0.5, high, 0.5))
        asks.companion.shares[column] = torch.from_numpy(shares)


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
