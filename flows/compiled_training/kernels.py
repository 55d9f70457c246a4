"""Compiled loops of a training step: a flow's log density of a batch, and its gradient.

What a flow consists of is encoded in integers (`flows.compiled_training.program`), so one call
computes a step without a visit to Python. Importing this module compiles it, or reads numba's cache.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.compiled.functions import jit
from flows.compiled.micro_kernels import LANES, UNITS, VECTORS
from flows.compiled_training.affine import pull_affine, run_affine
from flows.compiled_training.categorical import pull_categorical, run_categorical
from flows.compiled_training.fields import (
    BETA1,
    BETA2,
    CATEGORICAL,
    GRAD_TARGET,
    KIND,
    MATRIX_FIELDS,
    NORM,
    ROWS,
    SPLINE,
    TARGET,
)
from flows.compiled_training.losses import pull_score, read_batch, score, weigh_losses
from flows.compiled_training.norms import pull_norm, run_norm
from flows.compiled_training.splines import pull_spline, run_spline

# mypy: ignore-errors
# numba compiles these functions by its own types.

__all__ = ["LANES", "MATRIX_FIELDS", "ROWS", "VECTORS", "move", "step"]


_INTEGERS, _LINES = int64[::1], int64[:, ::1]
_SINGLES, _TABLE = float32[::1], float32[:, ::1]


@jit(
    float64(
        types.UniTuple(_TABLE, 4), _LINES, _LINES, _INTEGERS, _INTEGERS,
        types.UniTuple(_SINGLES, 10), float64[::1],
    )
)  # fmt: skip
@no_type_check
def step(batch, layers, matrices, index, sizes, arrays, numbers):
    """Compute the gradient of the mean bounded loss; return the sum of the log densities.

    Args:
        batch: Rows, their context, the mask of what is observed of them, and levels of categorical
            variables; all but the first may have no columns.
        layers: Lines of the layers.
        matrices: Lines of their matrices.
        index: Numbers that the lines refer to.
        sizes: Blocks of the context, of the rows and of the levels, and in the index the places of
            the features.
        arrays: Parameters, gradient, values, gradients of values, turned inputs, turned context,
            statistics, mask, losses and weights of the losses.
        numbers: Weight of the past in running statistics; bound of the losses of rows, in spreads,
            0 for none; and what the layers refer to.
    """
    n, width = batch[0].shape
    panels = -(-n // ROWS)
    context = (sizes[0], batch[1].shape[1])
    lines = max(1, batch[2].shape[1])
    values, grads = arrays[2], arrays[3]
    shown, loss = arrays[7][: panels * ROWS * lines], arrays[8][: panels * ROWS]
    weight = arrays[9][: panels * ROWS]
    loss[:], weight[:] = 0, 0
    read_batch(batch, index[sizes[3] :], arrays, shown, panels, sizes)
    for number in range(len(layers)):
        layer = layers[number]
        if layer[KIND] == NORM:
            run_norm(layer, index, arrays, shown, panels, n, numbers[0], loss)
        elif layer[KIND] == SPLINE:
            run_spline(layer, matrices, index, arrays, shown, panels, context, numbers, loss)
        elif layer[KIND] == CATEGORICAL:
            run_categorical(layer, matrices, index, arrays, panels, n, context, numbers, loss)
        else:
            run_affine(layer, matrices, index, arrays, shown, panels, context, numbers, loss)
    last = layers[len(layers) - 1]
    first = 1 if layers[0, KIND] == CATEGORICAL else 0
    score(last[TARGET], shown, panels, width, values, loss)
    weigh_losses(loss, n, float32(numbers[1]), weight)
    pull_score((last[TARGET], last[GRAD_TARGET]), panels, width, values, grads, weight)
    work = (*arrays[:6], np.empty(UNITS * ROWS, np.float32), np.zeros(UNITS, np.float32))
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer[KIND] == NORM:
            pull_norm(layer, index, arrays, shown, panels, weight)
        elif layer[KIND] == SPLINE:
            pull_spline(
                layer,
                matrices,
                index,
                work,
                shown,
                panels,
                context,
                numbers,
                weight,
                number > first,
            )
        elif layer[KIND] == CATEGORICAL:
            pull_categorical(layer, matrices, index, work, panels, context, weight)
        else:
            pull_affine(
                layer,
                matrices,
                index,
                work,
                shown,
                panels,
                context,
                numbers,
                weight,
                number > first,
            )
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
        some = float32(0)
        for k in range(start, start + length):
            some += gradient[k] * gradient[k]
        total += some
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
    clip, keep = float32(clip), float32(1 - rate * decay if decoupled else 1)
    pull = float32(0 if decoupled else decay)
    new1, new2 = float32(1 - BETA1), float32(1 - BETA2)
    old2 = float32(BETA2)
    rise = float32(rate / (1 - BETA1**count))
    root = float32(1 / np.sqrt(1 - BETA2**count))
    follow, eps = float32(share), float32(1e-8)
    for number in range(len(segments)):
        start, length = segments[number]
        for k in range(start, start + length):
            p = parameters[k] * keep
            g = gradient[k] * clip + pull * p
            m = first[k] + (g - first[k]) * new1
            v = old2 * second[k] + new2 * g * g
            first[k], second[k] = m, v
            parameters[k] = p - rise * m / (np.sqrt(v) * root + eps)
        if len(average) > 0:
            for k in range(start, start + length):
                average[k] += (parameters[k] - average[k]) * follow
