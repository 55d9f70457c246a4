"""Compiled loops of layers of elementwise maps and of batch norms, and their gradients."""

import numpy as np
from numba import float32, int64

from flows.engine.blocks import ROWS, stay_apart, word
from flows.engine.loop_cache import jit
from flows.engine.maps.loops import call_map
from flows.engine.training import fields
from flows.engine.training.products import mask_of, pull_network, run_matrix, unit_of

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
def _map(layer, direction, values, grads, sizes, panels, panel, rows):
    """Map the features of a panel, or compute the gradients of that.

    `rows` are the losses of all rows, or their weights.
    """
    width, outs = layer[fields.WIDTH], layer[fields.OUTS]
    words = (
        int64(direction),
        int64(layer.ctypes.data),
        layer[fields.FIRST],
        layer[fields.END],
        int64(values.ctypes.data),
        int64(ROWS),
        layer[fields.OUT] * panels + panel * outs,
        layer[fields.STEP],
        layer[fields.SOURCE] * panels + panel * width,
        layer[fields.READ],
        layer[fields.TARGET] * panels + panel * width,
        layer[fields.WRITE],
        sizes[fields.MASK_BLOCK] * panels + panel * sizes[fields.MASK_LINES],
        int64(rows.ctypes.data + 4 * panel * ROWS),
        int64(grads.ctypes.data),
        layer[fields.GRAD_OUT] * panels + panel * outs,
        layer[fields.GRAD_SOURCE] * panels + panel * width,
        layer[fields.GRAD_TARGET] * panels + panel * width,
    )
    call_map(layer[fields.MAP], words)


@jit()
def _copy_others(layer, values, panels, blocks, way):
    """Copy the features that a layer does not map from its input to its output, or back."""
    width = layer[fields.WIDTH]
    for panel in range(panels):
        for i in range(width):
            if layer[fields.FIRST] <= i < layer[fields.END]:
                continue
            x = unit_of(values, panels, blocks[0], width, i, panel)
            u = unit_of(values, panels, blocks[1], width, word(layer[fields.WRITE], i), panel)
            source, target = (x, u) if way == fields.FORTH else (u, x)
            for j in range(ROWS):
                target[j] = source[j]


@jit()
def run_mapped(layer, matrices, index, arrays, sizes, panels, context, loss):
    """Compute the parameters of the maps, map features, and copy the others."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[fields.MATRICES] * layer[fields.NETWORKS]):
        matrix = matrices[layer[fields.MATRIX] + number]
        run_matrix(matrix, index, parameters, values, panels, context)
    _copy_others(layer, values, panels, (layer[fields.SOURCE], layer[fields.TARGET]), fields.FORTH)
    for panel in range(panels):
        _map(layer, fields.FORTH, values, values, sizes, panels, panel, loss)


@jit()
def pull_mapped(layer, matrices, index, work, sizes, panels, context, weight):
    """Compute the gradients of a layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    _copy_others(
        layer, grads, panels, (layer[fields.GRAD_SOURCE], layer[fields.GRAD_TARGET]), fields.BACK
    )
    if layer[fields.NUMBER_BYTES] != 0:  # between levels there may be outputs that are none
        begin = layer[fields.GRAD_OUT] * panels * ROWS
        grads[begin : begin + layer[fields.OUTS] * panels * ROWS] = 0
    for panel in range(panels):
        _map(layer, fields.BACK, values, grads, sizes, panels, panel, weight)
    for network in range(layer[fields.NETWORKS]):
        first = layer[fields.MATRIX] + network * layer[fields.MATRICES]
        own = matrices[first : first + layer[fields.MATRICES]]
        pull_network(layer, own, index, work, panels, context)


@jit()
def _moments(layer, i, seen, values, sizes, panels):
    """Return mean, variance and number of the observed values of a feature."""
    total, square, count = 0.0, 0.0, 0.0
    for panel in range(panels):
        x = unit_of(values, panels, layer[fields.SOURCE], layer[fields.WIDTH], i, panel)
        mask = mask_of(values, sizes, panels, seen, panel)
        for j in range(ROWS):
            total += x[j] * mask[j]
            count += mask[j]
    mean = total / max(count, 1.0)
    for panel in range(panels):
        x = unit_of(values, panels, layer[fields.SOURCE], layer[fields.WIDTH], i, panel)
        mask = mask_of(values, sizes, panels, seen, panel)
        for j in range(ROWS):
            apart = (x[j] - mean) * mask[j]
            square += apart * apart
    return mean, square / max(count, 1.0), count


@jit()
def run_norm(layer, arrays, sizes, panels, rows, mode, loss):
    """Normalise the observed values of a batch.

    `mode` is `HELD` or `OWN`, and the weight of the past in running statistics.
    `statistics` holds six lines: those of the batch norm, then mean, 1 / deviation, scale and share
    of one value in them, as they were used.
    """
    stay_apart()
    parameters, values, statistics = arrays[0], arrays[2], arrays[6]
    width, at = layer[fields.WIDTH], layer[fields.STATISTICS]
    norms, momentum = mode
    for i in range(width):
        seen = word(layer[fields.MASKS], i)
        mean, variance, count = 0.0, 0.0, 0.0
        if norms != fields.HELD:
            mean, variance, count = _moments(layer, i, seen, values, sizes, panels)
        share = 1.0 / max(count, 1.0)
        few = count < fields.LEAST_OBSERVED and count < rows
        if norms != fields.OWN or few:
            mean, variance = statistics[at + i], statistics[at + width + i]
            share = 0.0
        if norms == fields.OWN:
            statistics[at + i] += (mean - statistics[at + i]) * (1 - momentum)
            statistics[at + width + i] += (variance - statistics[at + width + i]) * (1 - momentum)
        inverse = 1 / np.sqrt(variance + fields.EPS)
        log_scale = parameters[layer[fields.GAIN] + i] + np.log(inverse)
        statistics[at + 2 * width + i] = mean
        statistics[at + 3 * width + i] = inverse
        statistics[at + 4 * width + i] = np.exp(parameters[layer[fields.GAIN] + i]) * inverse
        statistics[at + 5 * width + i] = share
        centre, scale = statistics[at + 2 * width + i], statistics[at + 4 * width + i]
        offset, log_scale = parameters[layer[fields.OFFSET] + i], float32(log_scale)
        to = word(layer[fields.WRITE], i)
        for panel in range(panels):
            x = unit_of(values, panels, layer[fields.SOURCE], width, i, panel)
            u = unit_of(values, panels, layer[fields.TARGET], width, to, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                u[j] = ((x[j] - centre) * scale + offset) * mask[j]
                loss[panel * ROWS + j] -= log_scale * mask[j]


@jit()
def pull_norm(layer, arrays, sizes, panels, weight):
    """Compute the gradients of a batch norm, from those of its output."""
    stay_apart()
    gradient, values, grads, statistics = arrays[1], arrays[2], arrays[3], arrays[6]
    width, at = layer[fields.WIDTH], layer[fields.STATISTICS]
    for i in range(width):
        mean, inverse = statistics[at + 2 * width + i], statistics[at + 3 * width + i]
        scale, share = statistics[at + 4 * width + i], statistics[at + 5 * width + i]
        seen, to = word(layer[fields.MASKS], i), word(layer[fields.WRITE], i)
        offset, gain, weights = 0.0, 0.0, 0.0
        for panel in range(panels):
            x = unit_of(values, panels, layer[fields.SOURCE], width, i, panel)
            g = unit_of(grads, panels, layer[fields.GRAD_TARGET], width, to, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                grad = g[j] * mask[j]
                offset += grad
                gain += grad * (x[j] - mean)
                weights += weight[panel * ROWS + j] * mask[j]
        gain = gain * scale - weights
        gradient[layer[fields.OFFSET] + i], gradient[layer[fields.GAIN] + i] = offset, gain
        pull = float32(share * offset * scale)
        bend = float32(share * gain * inverse * inverse)
        for panel in range(panels):
            x = unit_of(values, panels, layer[fields.SOURCE], width, i, panel)
            g = unit_of(grads, panels, layer[fields.GRAD_TARGET], width, to, panel)
            to_x = unit_of(grads, panels, layer[fields.GRAD_SOURCE], width, i, panel)
            mask = mask_of(values, sizes, panels, seen, panel)
            for j in range(ROWS):
                apart = x[j] - mean
                to_x[j] = (g[j] * scale - pull - apart * bend) * mask[j]
