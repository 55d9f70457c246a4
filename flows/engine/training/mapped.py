"""Compiled loops of layers of elementwise maps, autoregressive and coupling, and their gradients."""

from typing import no_type_check

from numba import int64

from flows.engine.blocks import ROWS, stay_apart, word
from flows.engine.fields import END, FIRST, MAP, MATRICES, NUMBER_BYTES
from flows.engine.loop_cache import jit
from flows.engine.maps.loops import call_map
from flows.engine.training.fields import (
    BACK,
    FORTH,
    GRAD_OUT,
    GRAD_SOURCE,
    GRAD_TARGET,
    MASK_BLOCK,
    MASK_LINES,
    MATRIX,
    NETWORKS,
    OUT,
    OUTS,
    READ,
    SOURCE,
    STEP,
    TARGET,
    WIDTH,
    WRITE,
)
from flows.engine.training.losses import unit_of
from flows.engine.training.products import pull_network, run_matrix

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def _map(layer, direction, values, grads, sizes, panels, panel, rows):
    """Map the features of a panel, or compute the gradients of that.

    `rows` are the losses of all rows, or their weights.
    """
    width, outs = layer[WIDTH], layer[OUTS]
    words = (
        int64(direction),
        int64(layer.ctypes.data),
        layer[FIRST],
        layer[END],
        int64(values.ctypes.data),
        int64(ROWS),
        layer[OUT] * panels + panel * outs,
        layer[STEP],
        layer[SOURCE] * panels + panel * width,
        layer[READ],
        layer[TARGET] * panels + panel * width,
        layer[WRITE],
        sizes[MASK_BLOCK] * panels + panel * sizes[MASK_LINES],
        int64(rows.ctypes.data + 4 * panel * ROWS),
        int64(grads.ctypes.data),
        layer[GRAD_OUT] * panels + panel * outs,
        layer[GRAD_SOURCE] * panels + panel * width,
        layer[GRAD_TARGET] * panels + panel * width,
    )
    call_map(layer[MAP], words)


@jit()
@no_type_check
def _copy_others(layer, values, panels, blocks, way):
    """Copy the features that a layer does not map from its input to its output, or back."""
    width = layer[WIDTH]
    for panel in range(panels):
        for i in range(width):
            if layer[FIRST] <= i < layer[END]:
                continue
            x = unit_of(values, panels, blocks[0], width, i, panel)
            u = unit_of(values, panels, blocks[1], width, word(layer[WRITE], i), panel)
            source, target = (x, u) if way == FORTH else (u, x)
            for j in range(ROWS):
                target[j] = source[j]


@jit()
@no_type_check
def run_mapped(layer, matrices, index, arrays, sizes, panels, context, loss):
    """Compute the parameters of the maps, map features, and copy the others."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[MATRICES] * layer[NETWORKS]):
        matrix = matrices[layer[MATRIX] + number]
        run_matrix(matrix, index, parameters, values, panels, context)
    _copy_others(layer, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    for panel in range(panels):
        _map(layer, FORTH, values, values, sizes, panels, panel, loss)


@jit()
@no_type_check
def pull_mapped(layer, matrices, index, work, sizes, panels, context, weight):
    """Compute the gradients of a layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    _copy_others(layer, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    if layer[NUMBER_BYTES] != 0:  # between levels there may be outputs that are none
        begin = layer[GRAD_OUT] * panels * ROWS
        grads[begin : begin + layer[OUTS] * panels * ROWS] = 0
    for panel in range(panels):
        _map(layer, BACK, values, grads, sizes, panels, panel, weight)
    for network in range(layer[NETWORKS]):
        first = layer[MATRIX] + network * layer[MATRICES]
        own = matrices[first : first + layer[MATRICES]]
        pull_network(layer, own, index, work, panels, context)
