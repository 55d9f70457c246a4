"""Compiled loops of a training step: a flow's log density of a batch, and its gradient.

What a flow consists of is encoded in integers (`flows.compiled_training.program`), so one call
computes a step without a visit to Python. Importing this module compiles it, or reads numba's cache.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import LANES, UNITS, VECTORS, stay_apart
from flows.compiled_training.categorical import pull_categorical, run_categorical
from flows.compiled_training.fields import (
    BETA1,
    BETA2,
    CATEGORICAL,
    GRAD_TARGET,
    HELD,
    KIND,
    MATRIX_FIELDS,
    NORM,
    OWN,
    ROWS,
    SETTLED,
    SOURCE,
    TARGET,
)
from flows.compiled_training.losses import pull_score, read_batch, score, weigh_losses, write_rows
from flows.compiled_training.mapped import pull_mapped, run_mapped
from flows.compiled_training.moves import (
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
from flows.compiled_training.norms import pull_norm, run_norm

# mypy: ignore-errors
# numba compiles these functions by its own types.

__all__ = [
    "HELD",
    "LANES",
    "MATRIX_FIELDS",
    "OWN",
    "ROWS",
    "SETTLED",
    "VECTORS",
    "advance",
    "evaluate",
    "move",
    "step",
]


_INTEGERS, _LINES = int64[::1], int64[:, ::1]
_SINGLES, _TABLE = float32[::1], float32[:, ::1]


_STEP = (
    types.UniTuple(_TABLE, 4), _LINES, _LINES, _INTEGERS, _INTEGERS,
    types.UniTuple(_SINGLES, 11), float64[::1],
)  # fmt: skip


@jit()
@no_type_check
def _run(layers, part, matrices, index, sizes, arrays, numbers, batch, norms):
    """Compute some layers, whose inputs are in place, and add to the losses of rows."""
    stay_apart()
    n = len(batch[0])
    panels = -(-n // ROWS)
    context = (sizes[0], batch[1].shape[1], n)
    lines = max(1, batch[2].shape[1])
    shown, loss = arrays[7][: panels * ROWS * lines], arrays[8][: panels * ROWS]
    for number in range(part[0], part[1]):
        layer = layers[number]
        if layer[KIND] == NORM:
            run_norm(layer, index, arrays, shown, panels, n, (norms, numbers[0]), loss)
        elif layer[KIND] == CATEGORICAL:
            run_categorical(layer, matrices, index, arrays, panels, n, context, numbers, loss)
        else:
            run_mapped(layer, matrices, index, arrays, shown, panels, context, loss)


@jit()
@no_type_check
def _run_all(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows through all layers; return the masks and losses of all lanes."""
    stay_apart()
    n, width = batch[0].shape
    panels = -(-n // ROWS)
    lines = max(1, batch[2].shape[1])
    shown, loss = arrays[7][: panels * ROWS * lines], arrays[8][: panels * ROWS]
    loss[:] = 0
    read_batch(batch, index[sizes[3] :], arrays, shown, panels, (sizes[0], sizes[1], sizes[2]))
    part = (0, len(layers))
    _run(layers, part, matrices, index, sizes, arrays, numbers, batch, norms)
    score(layers[len(layers) - 1, TARGET], shown, panels, width, arrays[2], loss)
    return shown, loss


@jit(types.void(*_STEP, int64))
@no_type_check
def evaluate(batch, layers, matrices, index, sizes, arrays, numbers, norms):
    """Compute the losses of rows.

    The arguments are those of `step`, and `norms`: `HELD` for the statistics that batch norms hold,
    `SETTLED` for those of these rows, which they hold afterwards.
    """
    _run_all(batch, layers, matrices, index, sizes, arrays, numbers, norms)


@jit(types.void(*_STEP, int64, int64))
@no_type_check
def advance(batch, layers, matrices, index, sizes, arrays, numbers, first, last):
    """Replace rows, which have all their features, by what a later layer takes.

    Args:
        batch: Rows as the first layer takes them, or at the layer 0 as the flow does, with their
            context; the others have no columns.
        layers: Lines of the layers.
        matrices: Lines of the matrices.
        index: Numbers that the lines refer to.
        sizes: Blocks and places.
        arrays: Arrays of numbers.
        numbers: Numbers of the program.
        first: First layer to compute, with the statistics that batch norms hold.
        last: Layer whose inputs the rows become.
    """
    rows, width = batch[0], batch[0].shape[1]
    panels = -(-len(rows) // ROWS)
    shown, places = arrays[7][: panels * ROWS], np.arange(width)
    if first == 0:
        places = index[sizes[3] : sizes[3] + width]
    blocks = (sizes[0], layers[first, SOURCE], sizes[2])
    read_batch(batch, places, arrays, shown, panels, blocks)
    _run(layers, (first, last), matrices, index, sizes, arrays, numbers, batch, HELD)
    write_rows(rows, arrays[2], panels, layers[last, SOURCE])


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
        sizes: Blocks of the context, of the rows and of the levels, and in the index the places of
            the features.
        arrays: Parameters, gradient, values, gradients of values, turned inputs, turned context,
            statistics, mask, losses, weights of the losses, and numbers of the maps.
        numbers: Weight of the past in running statistics; bound of the losses of rows, in spreads,
            0 for none; and what the layers of categorical variables refer to.
    """
    n, width = batch[0].shape
    panels = -(-n // ROWS)
    context = (sizes[0], batch[1].shape[1], n)
    values, grads = arrays[2], arrays[3]
    weight = arrays[9][: panels * ROWS]
    weight[:] = 0
    shown, loss = _run_all(batch, layers, matrices, index, sizes, arrays, numbers, OWN)
    last = layers[len(layers) - 1]
    first = 1 if layers[0, KIND] == CATEGORICAL else 0
    weigh_losses(loss, n, float32(numbers[1]), weight)
    pull_score((last[TARGET], last[GRAD_TARGET]), panels, width, values, grads, weight)
    work = (*arrays[:6], np.empty(UNITS * ROWS, np.float32), np.zeros(UNITS, np.float32))
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer[KIND] == NORM:
            pull_norm(layer, index, arrays, shown, panels, weight)
        elif layer[KIND] == CATEGORICAL:
            pull_categorical(layer, matrices, index, work, panels, context, weight)
        else:
            pull_mapped(
                layer, matrices, index, work, arrays[10], shown, panels, context, weight,
                number > first,
            )  # fmt: skip
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
