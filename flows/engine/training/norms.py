"""Compiled loops of batch norms, and their gradients."""

from typing import no_type_check

import numpy as np
from numba import float32

from flows.engine.blocks import ROWS, stay_apart, word
from flows.engine.fields import MASKS
from flows.engine.loop_cache import jit
from flows.engine.training.fields import (
    EPS,
    GAIN,
    GRAD_SOURCE,
    GRAD_TARGET,
    HELD,
    LEAST_OBSERVED,
    OFFSET,
    OWN,
    SOURCE,
    STATISTICS,
    TARGET,
    WIDTH,
    WRITE,
)
from flows.engine.training.losses import mask_of, unit_of

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def _moments(layer, i, seen, values, sizes, panels):
    """Return mean, variance and number of the observed values of a feature."""
    total, square, count = 0.0, 0.0, 0.0
    for panel in range(panels):
        x = unit_of(values, panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = mask_of(values, sizes, panels, seen, panel)
        for j in range(ROWS):
            total += x[j] * mask[j]
            count += mask[j]
    mean = total / max(count, 1.0)
    for panel in range(panels):
        x = unit_of(values, panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = mask_of(values, sizes, panels, seen, panel)
        for j in range(ROWS):
            apart = (x[j] - mean) * mask[j]
            square += apart * apart
    return mean, square / max(count, 1.0), count


@jit()
@no_type_check
def run_norm(layer, arrays, sizes, panels, rows, mode, loss):
    """Normalise the observed values of a batch.

    `mode` is `HELD` or `OWN`, and the weight of the past in running statistics.
    `statistics` holds six lines: those of the batch norm, then mean, 1 / deviation, scale and share
    of one value in them, as they were used.
    """
    stay_apart()
    parameters, values, statistics = arrays[0], arrays[2], arrays[6]
    width, at = layer[WIDTH], layer[STATISTICS]
    norms, momentum = mode
    for i in range(width):
        seen = word(layer[MASKS], i)
        mean, variance, count = 0.0, 0.0, 0.0
        if norms != HELD:
            mean, variance, count = _moments(layer, i, seen, values, sizes, panels)
        share = 1.0 / max(count, 1.0)
        few = count < LEAST_OBSERVED and count < rows
        if norms != OWN or few:
            mean, variance = statistics[at + i], statistics[at + width + i]
            share = 0.0
        if norms == OWN:
            statistics[at + i] += (mean - statistics[at + i]) * (1 - momentum)
            statistics[at + width + i] += (variance - statistics[at + width + i]) * (1 - momentum)
        inverse = 1 / np.sqrt(variance + EPS)
        log_scale = parameters[layer[GAIN] + i] + np.log(inverse)
        statistics[at + 2 * width + i] = mean
        statistics[at + 3 * width + i] = inverse
        statistics[at + 4 * width + i] = np.exp(parameters[layer[GAIN] + i]) * inverse
        statistics[at + 5 * width + i] = share
        centre, scale = statistics[at + 2 * width + i], statistics[at + 4 * width + i]
        offset, log_scale = parameters[layer[OFFSET] + i], float32(log_scale)
        to = word(layer[WRITE], i)
        for panel in range(panels):
            x = unit_of(values, panels, layer[SOURCE], width, i, panel)
            u = unit_of(values, panels, layer[TARGET], width, to, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                u[j] = ((x[j] - centre) * scale + offset) * mask[j]
                loss[panel * ROWS + j] -= log_scale * mask[j]


@jit()
@no_type_check
def pull_norm(layer, arrays, sizes, panels, weight):
    """Compute the gradients of a batch norm, from those of its output."""
    stay_apart()
    gradient, values, grads, statistics = arrays[1], arrays[2], arrays[3], arrays[6]
    width, at = layer[WIDTH], layer[STATISTICS]
    for i in range(width):
        mean, inverse = statistics[at + 2 * width + i], statistics[at + 3 * width + i]
        scale, share = statistics[at + 4 * width + i], statistics[at + 5 * width + i]
        seen, to = word(layer[MASKS], i), word(layer[WRITE], i)
        offset, gain, weights = 0.0, 0.0, 0.0
        for panel in range(panels):
            x = unit_of(values, panels, layer[SOURCE], width, i, panel)
            g = unit_of(grads, panels, layer[GRAD_TARGET], width, to, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                grad = g[j] * mask[j]
                offset += grad
                gain += grad * (x[j] - mean)
                weights += weight[panel * ROWS + j] * mask[j]
        gain = gain * scale - weights
        gradient[layer[OFFSET] + i], gradient[layer[GAIN] + i] = offset, gain
        pull = float32(share * offset * scale)
        bend = float32(share * gain * inverse * inverse)
        for panel in range(panels):
            x = unit_of(values, panels, layer[SOURCE], width, i, panel)
            g = unit_of(grads, panels, layer[GRAD_TARGET], width, to, panel)
            to_x = unit_of(grads, panels, layer[GRAD_SOURCE], width, i, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                apart = x[j] - mean
                to_x[j] = (g[j] * scale - pull - apart * bend) * mask[j]
