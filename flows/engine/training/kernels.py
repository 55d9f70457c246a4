"""Compiled loops of a training step: a flow's log density of a batch, and its gradient.

What a flow consists of is encoded in integers (`flows.engine.training.program`), so one call
computes a step without a visit to Python. Importing this module compiles it, or reads numba's cache.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.engine.blocks import ROWS, UNITS, stay_apart
from flows.engine.loop_cache import jit
from flows.engine.training.fields import (
    BETA1,
    BETA2,
    CONTEXTS,
    GRAD_TARGET,
    HELD,
    KIND,
    NORM,
    OWN,
    TARGET,
)
from flows.engine.training.losses import pull_score, read_batch, score, weigh_losses
from flows.engine.training.mapped import pull_mapped, run_mapped
from flows.engine.training.moves import (
    CLIP,
    DECAY,
    FOLLOW,
    KEEP,
    RATE,
    ROOT,
    adam_alone,
    adam_averaging,
    squares,
)
from flows.engine.training.norms import pull_norm, run_norm
from flows.engine.training.products import turn

# mypy: ignore-errors
# numba compiles these functions by its own types.

__all__ = ["HELD", "OWN", "ROWS", "evaluate", "move", "step"]


_INTEGERS, _LINES = int64[::1], int64[:, ::1]
_SINGLES, _TABLE = float32[::1], float32[:, ::1]


_STEP = (
    types.UniTuple(_TABLE, 4), _LINES, _LINES, _INTEGERS, _INTEGERS,
    types.UniTuple(_SINGLES, 9), float64[::1],
)  # fmt: skip


@jit()
@no_type_check
def _run(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows through all layers; return those of all lanes."""
    stay_apart()
    (n, width), values, given = batch[0].shape, arrays[2], batch[1].shape[1]
    panels = -(-n // ROWS)
    loss = arrays[7][: panels * ROWS]
    loss[:] = 0
    read_batch(batch, values, panels, sizes)
    if given > 0:
        turn(values, panels, sizes[CONTEXTS], given, given, arrays[5], given + -given % ROWS)
    for number in range(len(layers)):
        layer = layers[number]
        if layer[KIND] == NORM:
            run_norm(layer, arrays, sizes, panels, n, (norms, numbers[0]), loss)
        else:
            context = (sizes[CONTEXTS], given, n)
            run_mapped(layer, matrices, index, arrays, sizes, panels, context, loss)
    score(layers[len(layers) - 1, TARGET], sizes, panels, width, values, loss)
    return loss


@jit(types.void(*_STEP, int64))
@no_type_check
def evaluate(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows.

    The arguments are those of `step`, and `norms`: what batch norms normalise by, `HELD` or `OWN`.
    """
    _run(batch, layers, matrices, index, sizes, arrays, numbers, norms)


@jit(float64(*_STEP))
@no_type_check
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
    context = (sizes[CONTEXTS], batch[1].shape[1], n)
    values, grads = arrays[2], arrays[3]
    weight = arrays[8][: panels * ROWS]
    weight[:] = 0
    loss = _run(batch, layers, matrices, index, sizes, arrays, numbers, OWN)
    last = layers[len(layers) - 1]
    weigh_losses(loss, n, float32(numbers[1]), weight)
    pull_score((last[TARGET], last[GRAD_TARGET]), panels, width, values, grads, weight)
    work = (*arrays[:6], np.empty(UNITS * ROWS, np.float32), np.zeros(UNITS, np.float32))
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer[KIND] == NORM:
            pull_norm(layer, arrays, sizes, panels, weight)
        else:
            pull_mapped(layer, matrices, index, work, sizes, panels, context, weight)
    total = 0.0
    for j in range(n):
        total -= loss[j]
    return total


@jit()
@no_type_check
def _norm(gradient, segments):
    total = 0.0
    for number in range(len(segments)):
        start, length = segments[number]
        total += squares(int64(gradient.ctypes.data + 4 * start), length)
    return np.sqrt(total)


@jit(
    types.void(
        _LINES, types.UniTuple(_SINGLES, 5), types.UniTuple(float64, 4), types.boolean, int64
    )
)  # fmt: skip
@no_type_check
def move(segments, arrays, rates, decoupled, count):
    """Take a step of Adam along the clipped gradient, and follow with the average.

    Args:
        segments: Start and length of the parts of the flat vector that move.
        arrays: Parameters, gradient, first and second moments, and average, which may be empty.
        rates: Learning rate, weight decay, largest norm (0 for none), and share of the weights in
            the average.
        decoupled: True for weight decay apart from the gradient.
        count: Number of the step, counted from 1.
    """
    parameters, gradient, first, second, average = arrays
    rate, decay, most, share = rates
    clip = 1.0
    if most > 0:
        clip = most / (_norm(gradient, segments) + 1e-6)
        if clip > 1:
            clip = 1.0
    numbers = np.empty(6, np.float32)
    numbers[CLIP], numbers[KEEP] = clip, 1 - rate * decay if decoupled else 1
    numbers[DECAY] = 0 if decoupled else decay
    numbers[RATE] = rate / (1 - BETA1**count)
    numbers[ROOT] = 1 / np.sqrt(1 - BETA2**count)
    numbers[FOLLOW] = share
    places = (
        int64(parameters.ctypes.data),
        int64(gradient.ctypes.data),
        int64(first.ctypes.data),
        int64(second.ctypes.data),
        int64(average.ctypes.data),
    )
    for number in range(len(segments)):
        start, length = segments[number]
        if len(average) > 0:
            adam_averaging(places, start, start + length, int64(numbers.ctypes.data))
        else:
            adam_alone(places, start, start + length, int64(numbers.ctypes.data))
