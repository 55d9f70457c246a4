"""Compiled loops of affine layers, autoregressive and coupling, and their gradients."""

from typing import no_type_check

from numba import float32

from flows.compiled.functions import exp, jit, log
from flows.compiled.micro_kernels import stay_apart
from flows.compiled_training.fields import (
    BACK,
    FIRST,
    FORTH,
    GRAD_OUT,
    GRAD_SOURCE,
    GRAD_TARGET,
    LIMIT,
    MATRICES,
    MATRIX,
    MOVED,
    NETWORKS,
    OUT,
    PLACES,
    ROWS,
    SCALED,
    SEEN,
    SOURCE,
    STEP,
    TARGET,
    WIDTH,
)
from flows.compiled_training.panels import keep, mask_at, place_of
from flows.compiled_training.products import pull_network, run_matrix

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def run_affine(layer, matrices, index, arrays, shown, panels, context, numbers, loss):
    """Compute u = (x - shift) exp(-log_scale); exp(-log_scale) takes the place of log_scale."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    limit = float32(numbers[layer[LIMIT]])
    for number in range(layer[MATRICES] * layer[NETWORKS]):
        matrix = matrices[layer[MATRIX] + number]
        run_matrix(matrix, index, parameters, values, panels, context)
    keep(layer, index, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    width, moved = layer[WIDTH], layer[MOVED]
    outs = 2 * moved if layer[SCALED] else moved
    for panel in range(panels):
        for t in range(moved):
            i = layer[FIRST] + t * layer[STEP]
            x = place_of(panels, layer[SOURCE], width, i, panel)
            u = place_of(panels, layer[TARGET], width, index[layer[PLACES] + i], panel)
            shift = place_of(panels, layer[OUT], outs, t, panel)
            scale = shift + moved * ROWS
            mask = mask_at(shown, panels, index[layer[SEEN] + i], panel)
            for j in range(ROWS):
                values[u + j] = values[x + j] - values[shift + j] * shown[mask + j]
            if layer[SCALED]:
                if layer[LIMIT] > 0:
                    _limit(values[scale : scale + ROWS], limit)
                for j in range(ROWS):
                    values[scale + j] *= shown[mask + j]
                    loss[panel * ROWS + j] += values[scale + j]
        if layer[SCALED]:
            scales = place_of(panels, layer[OUT], outs, moved, panel)
            _inverse_exp(values[scales : scales + moved * ROWS])
            for t in range(moved):
                i = layer[FIRST] + t * layer[STEP]
                u = place_of(panels, layer[TARGET], width, index[layer[PLACES] + i], panel)
                for j in range(ROWS):
                    values[u + j] *= values[scales + t * ROWS + j]


@jit()
@no_type_check
def _limit(h, limit):
    """Replace numbers r by r / (1 + |r| / limit) (`flows.bijections.transformers.bounded`)."""
    stay_apart()
    for j in range(len(h)):
        size = h[j] if h[j] > float32(0) else -h[j]
        h[j] = h[j] / (float32(1) + size / limit)


@jit()
@no_type_check
def _limit_gradient(inverse, g, limit):
    """Multiply gradients by the derivative of `_limit`, from exp(-result)."""
    stay_apart()
    for j in range(len(g)):
        result = log(inverse[j])
        size = result if result > float32(0) else -result
        slope = float32(1) - size / limit
        g[j] *= slope * slope


@jit()
@no_type_check
def _inverse_exp(h):
    """Replace numbers by exp(-number)."""
    stay_apart()
    for j in range(len(h)):
        h[j] = exp(-h[j])


@jit()
@no_type_check
def pull_affine(layer, matrices, index, work, shown, panels, context, numbers, weight, wide):
    """Compute the gradients of an affine layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    limit = float32(numbers[layer[LIMIT]])
    keep(layer, index, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    width, moved = layer[WIDTH], layer[MOVED]
    outs = 2 * moved if layer[SCALED] else moved
    for panel in range(panels):
        rows = panel * ROWS
        for t in range(moved):
            i = layer[FIRST] + t * layer[STEP]
            to = index[layer[PLACES] + i]
            x = place_of(panels, layer[GRAD_SOURCE], width, i, panel)
            g = place_of(panels, layer[GRAD_TARGET], width, to, panel)
            shift = place_of(panels, layer[GRAD_OUT], outs, t, panel)
            mask = mask_at(shown, panels, index[layer[SEEN] + i], panel)
            for j in range(ROWS):
                grads[x + j] = grads[g + j]
            if layer[SCALED]:
                u = place_of(panels, layer[TARGET], width, to, panel)
                inverse = place_of(panels, layer[OUT], outs, moved + t, panel)
                scale = shift + moved * ROWS
                for j in range(ROWS):
                    grads[x + j] *= values[inverse + j]
                    pull = weight[rows + j] - grads[g + j] * values[u + j]
                    grads[scale + j] = pull * shown[mask + j]
                if layer[LIMIT] > 0:
                    _limit_gradient(
                        values[inverse : inverse + ROWS], grads[scale : scale + ROWS], limit
                    )
            for j in range(ROWS):
                grads[shift + j] = -grads[x + j] * shown[mask + j]
    for network in range(layer[NETWORKS]):
        first = layer[MATRIX] + network * layer[MATRICES]
        pull_network(
            layer, matrices[first : first + layer[MATRICES]], index, work, panels, context, wide
        )
