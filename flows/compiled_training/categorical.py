"""Compiled loops of the probabilities of categorical variables, and their gradients."""

from typing import no_type_check

import numpy as np
from numba import float32, int64

from flows.compiled.loops.functions import exp, jit, log
from flows.compiled.loops.micro_kernels import stay_apart
from flows.compiled_training.fields import (
    CATEGORICAL,
    GRAD_OUT,
    KIND,
    LEVELS,
    LOGS,
    MATRICES,
    MATRIX,
    OUT,
    OUTS,
    ROWS,
    STARTS,
    UNSEEN,
    VARIABLES,
)
from flows.compiled_training.panels import place_of
from flows.compiled_training.products import pull_network, run_matrix

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def _softmax(values, at, step, levels, most, total):
    """Replace logits by their softmax."""
    stay_apart()
    for j in range(len(most)):
        most[j] = values[at + j]
        total[j] = 0
    for k in range(1, levels):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            most[j] = logits[j] if logits[j] > most[j] else most[j]
    for k in range(levels):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            logits[j] = exp(logits[j] - most[j])
        for j in range(len(most)):
            total[j] += logits[j]
    for k in range(levels):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            logits[j] = logits[j] / total[j]


@jit()
@no_type_check
def run_categorical(layer, matrices, index, arrays, panels, rows, context, numbers, loss):
    """Add minus the log probabilities of levels to the losses; outputs become probabilities."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[MATRICES]):
        run_matrix(matrices[layer[MATRIX] + number], index, parameters, values, panels, context)
    log_seen, log_unseen = float32(numbers[layer[LOGS]]), float32(numbers[layer[LOGS] + 1])
    lines = np.zeros((2, ROWS), np.float32)
    variables = layer[VARIABLES]
    for panel in range(panels):
        for v in range(variables):
            first, size, is_open = index[layer[STARTS] + 3 * v : layer[STARTS] + 3 * v + 3]
            at = place_of(panels, layer[OUT], layer[OUTS], first, panel)
            level = place_of(panels, layer[LEVELS], variables, v, panel)
            for j in range(min(ROWS, rows - panel * ROWS)):
                d = int64(values[level + j])
                lost = float32(0)
                if 0 <= d < size:
                    lost = -values[at + d * ROWS + j]
                if d >= 0 and is_open:
                    lost -= log_seen
                if d == UNSEEN:
                    lost = -log_unseen
                loss[panel * ROWS + j] += lost
            _softmax(values, at, ROWS, size, lines[0], lines[1])
            for j in range(min(ROWS, rows - panel * ROWS)):
                d = int64(values[level + j])
                if 0 <= d < size:
                    loss[panel * ROWS + j] += lines[0, j] + log(lines[1, j])


@jit()
@no_type_check
def pull_categorical(layer, matrices, index, work, panels, context, weight):
    """Compute the gradients of the network of the probabilities."""
    stay_apart()
    values, grads = work[2], work[3]
    variables = layer[VARIABLES]
    for panel in range(panels):
        begin = place_of(panels, layer[GRAD_OUT], layer[OUTS], 0, panel)
        grads[begin : begin + layer[OUTS] * ROWS] = 0
        for v in range(variables):
            first, size, _ = index[layer[STARTS] + 3 * v : layer[STARTS] + 3 * v + 3]
            at = place_of(panels, layer[OUT], layer[OUTS], first, panel)
            to = begin + first * ROWS
            level = place_of(panels, layer[LEVELS], variables, v, panel)
            for k in range(size):
                for j in range(ROWS):
                    d = values[level + j]
                    own = weight[panel * ROWS + j] if d >= float32(0) else float32(0)
                    hit = float32(1) if d == float32(k) else float32(0)
                    grads[to + k * ROWS + j] = own * (values[at + k * ROWS + j] - hit)
    first = layer[MATRIX]
    pull_network(
        layer,
        matrices[first : first + layer[MATRICES]],
        index,
        work,
        panels,
        context,
        layer[KIND] != CATEGORICAL,
    )
