"""Compiled loops of a training step: a flow's log density of a batch, and its gradient.

What a flow consists of is encoded in integers (`flows.engine.training.program`), so one call
computes a step without a visit to Python. Importing this module compiles it, or reads numba's cache.
"""

import numpy as np
from numba import float32, float64, int64, types

from flows.engine.blocks import ROWS, UNITS, stay_apart, word
from flows.engine.loop_cache import jit
from flows.engine.training import fields
from flows.engine.training.adam import move  # noqa: F401  a loop to be called, as the others here
from flows.engine.training.layers import pull_mapped, pull_norm, run_mapped, run_norm
from flows.engine.training.products import mask_of, turn, unit_of

# mypy: ignore-errors
# numba compiles these functions by its own types.

_INTEGERS, _LINES = int64[::1], int64[:, ::1]
_SINGLES, _TABLE = float32[::1], float32[:, ::1]


_STEP = (
    types.UniTuple(_TABLE, 4), _LINES, _LINES, _INTEGERS, _INTEGERS,
    types.UniTuple(_SINGLES, 9), float64[::1],
)  # fmt: skip


@jit()
def _weigh_losses(loss, rows, bound, weight):
    """Set the weight of each row's loss in the gradient (`flows.training.robust`)."""
    share = float32(1) / float32(rows)
    if bound <= 0:
        for j in range(rows):
            weight[j] = share
        return
    ordered = np.sort(loss[:rows])
    middle = ordered[rows * 2 // 4]
    spread = ordered[rows * 3 // 4] - ordered[rows // 4]
    if spread < fields.LEAST_SPREAD:
        spread = fields.LEAST_SPREAD
    fence = middle + bound * spread
    for j in range(rows):
        excess = loss[j] - fence
        if excess > fields.LARGEST:
            weight[j] = 0
        elif excess > 0:
            weight[j] = share / (float32(1) + excess / spread)
        else:
            weight[j] = share


@jit()
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
def _read_batch(batch, values, panels, sizes):
    """Copy rows, context, masks and levels into their blocks."""
    rows, given, observed, levels = batch
    width, lines, block, places = (
        rows.shape[1],
        sizes[fields.MASK_LINES],
        sizes[fields.ROW_BLOCK],
        sizes[fields.PLACES],
    )
    _read(given, 0, values, panels, sizes[fields.CONTEXTS], given.shape[1])
    _read(levels, 0, values, panels, sizes[fields.LEVEL_BLOCK], levels.shape[1])
    _read(observed, 0, values, panels, sizes[fields.MASK_BLOCK], lines)
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
def _score(u, sizes, panels, width, values, loss):
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
def _pull_score(blocks, panels, width, values, grads, weight):
    """Compute the gradients of the noise."""
    for panel in range(panels):
        own = weight[panel * ROWS : (panel + 1) * ROWS]
        for i in range(width):
            noise = unit_of(values, panels, blocks[0], width, i, panel)
            grad = unit_of(grads, panels, blocks[1], width, i, panel)
            for j in range(ROWS):
                grad[j] = noise[j] * own[j]


@jit()
def _run(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows through all layers; return those of all lanes."""
    stay_apart()
    (n, width), values, given = batch[0].shape, arrays[2], batch[1].shape[1]
    panels = -(-n // ROWS)
    loss = arrays[7][: panels * ROWS]
    loss[:] = 0
    _read_batch(batch, values, panels, sizes)
    if given > 0:
        turn(values, panels, sizes[fields.CONTEXTS], given, given, arrays[5], given + -given % ROWS)
    for number in range(len(layers)):
        layer = layers[number]
        if layer[fields.KIND] == fields.NORM:
            run_norm(layer, arrays, sizes, panels, n, (norms, numbers[0]), loss)
        else:
            context = (sizes[fields.CONTEXTS], given, n)
            run_mapped(layer, matrices, index, arrays, sizes, panels, context, loss)
    _score(layers[len(layers) - 1, fields.TARGET], sizes, panels, width, values, loss)
    return loss


@jit(types.void(*_STEP, int64))
def evaluate(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows.

    The arguments are those of `step`, and `norms`: what batch norms normalise by, `HELD` or `OWN`.
    """
    _run(batch, layers, matrices, index, sizes, arrays, numbers, norms)


@jit(float64(*_STEP))
def step(batch, layers, matrices, index, sizes, arrays, numbers):
    """Compute the gradient of the mean bounded loss; return the sum of the log densities.

    Args:
        batch: Rows, their context, the mask of what is observed of them, and levels of categorical
            variables; all but the first may have no columns.
        layers: Lines of the layers.
        matrices: Lines of their matrices.
        index: Numbers that the lines refer to.
        sizes: Blocks of the batch.
        arrays: Parameters, gradient, values, gradients of values, turned inputs, turned context,
            statistics, losses, and weights of the losses.
        numbers: Weight of the past in running statistics; bound of the losses of rows, in spreads,
            0 for none.
    """
    n, width = batch[0].shape
    panels = -(-n // ROWS)
    context = (sizes[fields.CONTEXTS], batch[1].shape[1], n)
    values, grads = arrays[2], arrays[3]
    weight = arrays[8][: panels * ROWS]
    weight[:] = 0
    loss = _run(batch, layers, matrices, index, sizes, arrays, numbers, fields.OWN)
    last = layers[len(layers) - 1]
    _weigh_losses(loss, n, float32(numbers[1]), weight)
    _pull_score(
        (last[fields.TARGET], last[fields.GRAD_TARGET]), panels, width, values, grads, weight
    )
    work = (*arrays[:6], np.empty(UNITS * ROWS, np.float32), np.zeros(UNITS, np.float32))
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer[fields.KIND] == fields.NORM:
            pull_norm(layer, arrays, sizes, panels, weight)
        else:
            pull_mapped(layer, matrices, index, work, sizes, panels, context, weight)
    total = 0.0
    for j in range(n):
        total -= loss[j]
    return total
