"""Compiled loops at both ends of a step: rows become panels, noise becomes losses of rows."""

from typing import no_type_check

import numpy as np
from numba import float32

from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import LANES, VECTORS
from flows.compiled_training.fields import LARGEST, LEAST_SPREAD, ROWS
from flows.compiled_training.panels import mask_at, place_of
from flows.compiled_training.products import turn

# mypy: ignore-errors
# numba compiles these functions by its own types.


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
    """Copy rows into a block, features first; missing rows are 0."""
    for panel in range(panels):
        for i in range(rows.shape[1]):
            at = place_of(panels, block, width, places[i], panel)
            for j in range(ROWS):
                row = panel * ROWS + j
                values[at + j] = rows[row, i] if row < len(rows) else float32(0)


@jit()
@no_type_check
def write_rows(rows, values, panels, block):
    """Copy a block into rows."""
    for panel in range(panels):
        for i in range(rows.shape[1]):
            at = place_of(panels, block, rows.shape[1], i, panel)
            for j in range(min(ROWS, len(rows) - panel * ROWS)):
                rows[panel * ROWS + j, i] = values[at + j]


@jit()
@no_type_check
def score(u, shown, panels, width, values, loss):
    """Add the negative log density of the noise to the losses."""
    half_log = float32(0.91893853320467274)
    for panel in range(panels):
        for i in range(width):
            at = place_of(panels, u, width, i, panel)
            mask = mask_at(shown, panels, i, panel)
            for j in range(ROWS):
                noise = values[at + j]
                loss[panel * ROWS + j] += float32(0.5) * noise * noise + half_log * shown[mask + j]


@jit()
@no_type_check
def pull_score(blocks, panels, width, values, grads, weight):
    """Compute the gradients of the noise."""
    for panel in range(panels):
        for i in range(width):
            u = place_of(panels, blocks[0], width, i, panel)
            g = place_of(panels, blocks[1], width, i, panel)
            for j in range(ROWS):
                grads[g + j] = values[u + j] * weight[panel * ROWS + j]


@jit()
@no_type_check
def read_batch(batch, places, arrays, shown, panels, blocks):
    """Copy rows, context, mask and levels into their blocks."""
    rows, given, observed, levels = batch
    values, turned_context = arrays[2], arrays[5]
    if observed.shape[1] > 0:
        _read(observed, np.arange(observed.shape[1]), shown, panels, 0, observed.shape[1])
    else:
        for j in range(panels * ROWS):
            shown[j] = float32(1) if j < len(rows) else float32(0)
    _read(rows, places, values, panels, blocks[1], rows.shape[1])
    for panel in range(panels):
        for i in range(rows.shape[1]):
            at = place_of(panels, blocks[1], rows.shape[1], places[i], panel)
            mask = mask_at(shown, panels, i, panel)
            for j in range(ROWS):
                values[at + j] = values[at + j] if shown[mask + j] > 0 else float32(0)
    _read(levels, np.arange(levels.shape[1]), values, panels, blocks[2], levels.shape[1])
    width = given.shape[1]
    if width > 0:
        _read(given, np.arange(width), values, panels, blocks[0], width)
        line = width + -width % (LANES * VECTORS)
        turn(values, panels, blocks[0], width, 0, 1, width, turned_context, line)
