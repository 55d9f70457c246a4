"""Compiled loops at both ends of a step: rows become panels, noise becomes losses of rows.

Values lie in panels of `ROWS` rows, features first, a row in each lane of the vector unit. A block of
values is an array [panel, unit, row]; its place is counted in units, of `ROWS` numbers for each panel.
"""

from typing import no_type_check

import numpy as np
from numba import float32

from flows.engine.blocks import ROWS, word
from flows.engine.loop_cache import jit
from flows.engine.training.fields import (
    CONTEXTS,
    LARGEST,
    LEAST_SPREAD,
    LEVEL_BLOCK,
    MASK_BLOCK,
    MASK_LINES,
    PLACES,
    ROW_BLOCK,
)

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def place_of(panels, block, width, unit, panel):
    """Return where the rows of a unit begin."""
    return (block * panels + panel * width + unit) * ROWS


@jit()
@no_type_check
def unit_of(values, panels, block, width, unit, panel):
    """Return the rows of a unit in a panel."""
    at = place_of(panels, block, width, unit, panel)
    return values[at : at + ROWS]


@jit()
@no_type_check
def mask_of(values, sizes, panels, line, panel):
    """Return a line of the masks in a panel; one line stands for all if none is missing."""
    lines = sizes[MASK_LINES]
    return unit_of(values, panels, sizes[MASK_BLOCK], lines, min(line, lines - 1), panel)


@jit()
@no_type_check
def weigh_losses(loss, rows, bound, weight):
    """Set the weight of each row's loss in the gradient (`flows.training.robust`)."""
    share = float32(1) / float32(rows)
    if bound <= 0:
        for j in range(rows):
            weight[j] = share
        return
    ordered = np.sort(loss[:rows])
    middle = ordered[rows * 2 // 4]
    spread = ordered[rows * 3 // 4] - ordered[rows // 4]
    if spread < LEAST_SPREAD:
        spread = LEAST_SPREAD
    fence = middle + bound * spread
    for j in range(rows):
        excess = loss[j] - fence
        if excess > LARGEST:
            weight[j] = 0
        elif excess > 0:
            weight[j] = share / (float32(1) + excess / spread)
        else:
            weight[j] = share


@jit()
@no_type_check
def _read(rows, places, values, panels, block, width):
    """Copy rows into a block, features first, in order without places; missing rows are 0."""
    for panel in range(panels):
        for i in range(rows.shape[1]):
            to = i if places == 0 else word(places, i)
            unit = unit_of(values, panels, block, width, to, panel)
            for j in range(ROWS):
                row = panel * ROWS + j
                unit[j] = rows[row, i] if row < len(rows) else float32(0)


@jit()
@no_type_check
def read_batch(batch, values, panels, sizes):
    """Copy rows, context, masks and levels into their blocks."""
    rows, given, observed, levels = batch
    width, lines, block, places = rows.shape[1], sizes[MASK_LINES], sizes[ROW_BLOCK], sizes[PLACES]
    _read(given, 0, values, panels, sizes[CONTEXTS], given.shape[1])
    _read(levels, 0, values, panels, sizes[LEVEL_BLOCK], levels.shape[1])
    _read(observed, 0, values, panels, sizes[MASK_BLOCK], lines)
    _read(rows, places, values, panels, block, width)
    for panel in range(panels):
        whole = mask_of(values, sizes, panels, lines - 1, panel)
        for j in range(ROWS):
            whole[j] = float32(1) if panel * ROWS + j < len(rows) else float32(0)
        for i in range(width):
            unit = unit_of(values, panels, block, width, word(places, i), panel)
            mask = mask_of(values, sizes, panels, i, panel)
            for j in range(ROWS):
                unit[j] = unit[j] if mask[j] > 0 else float32(0)


@jit()
@no_type_check
def score(u, sizes, panels, width, values, loss):
    """Add the negative log density of the noise to the losses."""
    half_log = float32(0.91893853320467274)
    for panel in range(panels):
        total = loss[panel * ROWS : (panel + 1) * ROWS]
        for i in range(width):
            noise = unit_of(values, panels, u, width, i, panel)
            mask = mask_of(values, sizes, panels, i, panel)
            for j in range(ROWS):
                total[j] += float32(0.5) * noise[j] * noise[j] + half_log * mask[j]


@jit()
@no_type_check
def pull_score(blocks, panels, width, values, grads, weight):
    """Compute the gradients of the noise."""
    for panel in range(panels):
        own = weight[panel * ROWS : (panel + 1) * ROWS]
        for i in range(width):
            noise = unit_of(values, panels, blocks[0], width, i, panel)
            grad = unit_of(grads, panels, blocks[1], width, i, panel)
            for j in range(ROWS):
                grad[j] = noise[j] * own[j]
