"""Compiled loops of layers of elementwise maps, autoregressive and coupling, and their gradients."""

from typing import no_type_check

from numba import int64

from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import stay_apart
from flows.compiled.loops.mixture_maps import mixture_density
from flows.compiled.loops.sigmoid_maps import sigmoids_inverse
from flows.compiled_training.fields import (
    BACK,
    FIRST,
    FORTH,
    GRAD_OUT,
    GRAD_SOURCE,
    GRAD_TARGET,
    MAP,
    MATRICES,
    MATRIX,
    MOVED,
    NETWORKS,
    NUMBERS,
    OUT,
    OUTPUTS,
    PLACES,
    ROWS,
    SEEN,
    SOURCE,
    STEP,
    TARGET,
    WIDTH,
)
from flows.compiled_training.maps.affine import (
    pull_affine,
    pull_bounded_affine,
    pull_shift,
    run_affine,
    run_bounded_affine,
    run_shift,
)
from flows.compiled_training.maps.cells import back_of, forth_of
from flows.compiled_training.maps.mixtures import pull_mixture
from flows.compiled_training.maps.sigmoids import pull_sigmoids
from flows.compiled_training.maps.splines import pull_spline, run_spline
from flows.compiled_training.panels import keep, mask_at, place_of
from flows.compiled_training.products import pull_network, run_matrix

# mypy: ignore-errors
# numba compiles these functions by its own types.

_affine_forth, _affine_back = forth_of(run_affine), back_of(pull_affine)
_bounded_forth, _bounded_back = forth_of(run_bounded_affine), back_of(pull_bounded_affine)
_shift_forth, _shift_back = forth_of(run_shift), back_of(pull_shift)
_spline_forth, _spline_back = forth_of(run_spline), back_of(pull_spline)
_mixture_forth, _mixture_back = forth_of(mixture_density), back_of(pull_mixture)
_sigmoids_forth, _sigmoids_back = forth_of(sigmoids_inverse), back_of(pull_sigmoids)


@jit()
@no_type_check
def _map(kind, words):
    """Map a feature in all rows of a panel; kinds are numbered as in `writer.MAPS`."""
    stay_apart()
    if kind == 0:
        _affine_forth(words)
    elif kind == 1:
        _bounded_forth(words)
    elif kind == 2:
        _shift_forth(words)
    elif kind == 3:
        _spline_forth(words)
    elif kind == 4:
        _mixture_forth(words)
    elif kind == 5:
        _sigmoids_forth(words)


@jit()
@no_type_check
def _pull(kind, words):
    """Compute the gradients of a feature's map in all rows of a panel."""
    stay_apart()
    if kind == 0:
        _affine_back(words)
    elif kind == 1:
        _bounded_back(words)
    elif kind == 2:
        _shift_back(words)
    elif kind == 3:
        _spline_back(words)
    elif kind == 4:
        _mixture_back(words)
    elif kind == 5:
        _sigmoids_back(words)


@jit()
@no_type_check
def run_mapped(layer, matrices, index, arrays, shown, panels, context, loss):
    """Compute the parameters of the maps, map the moved features, and copy the others."""
    stay_apart()
    parameters, values, numbers = arrays[0], arrays[2], arrays[10]
    for number in range(layer[MATRICES] * layer[NETWORKS]):
        matrix = matrices[layer[MATRIX] + number]
        run_matrix(matrix, index, parameters, values, panels, context)
    keep(layer, index, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    for panel in range(panels):
        for t in range(layer[MOVED]):
            _map_feature(layer, index, values, numbers, shown, panels, panel, t, loss)


@jit()
@no_type_check
def _map_feature(layer, index, values, numbers, shown, panels, panel, t, loss):
    """Map a moved feature in the rows of a panel."""
    width, moved = layer[WIDTH], layer[MOVED]
    i = layer[FIRST] + t * layer[STEP]
    own = place_of(panels, layer[OUT], layer[OUTPUTS] * moved, t, panel)
    x = place_of(panels, layer[SOURCE], width, i, panel)
    u = place_of(panels, layer[TARGET], width, index[layer[PLACES] + i], panel)
    mask = mask_at(shown, panels, index[layer[SEEN] + i], panel)
    at = values.ctypes.data
    words = (
        int64(at + 4 * own),
        int64(4 * ROWS * moved),
        int64(at + 4 * x),
        int64(numbers.ctypes.data + 4 * layer[NUMBERS]),
        int64(shown.ctypes.data + 4 * mask),
        int64(at + 4 * u),
        int64(loss.ctypes.data + 4 * panel * ROWS),
    )
    _map(layer[MAP], words)


@jit()
@no_type_check
def pull_mapped(layer, matrices, index, work, numbers, shown, panels, context, weight, wide):
    """Compute the gradients of a layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    keep(layer, index, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    for panel in range(panels):
        for t in range(layer[MOVED]):
            _pull_feature(layer, index, values, grads, numbers, shown, panels, panel, t, weight)
    for network in range(layer[NETWORKS]):
        first = layer[MATRIX] + network * layer[MATRICES]
        pull_network(
            layer, matrices[first : first + layer[MATRICES]], index, work, panels, context, wide
        )


@jit()
@no_type_check
def _pull_feature(layer, index, values, grads, numbers, shown, panels, panel, t, weight):
    """Compute the gradients of a moved feature's map in the rows of a panel."""
    width, moved = layer[WIDTH], layer[MOVED]
    outs = layer[OUTPUTS] * moved
    i = layer[FIRST] + t * layer[STEP]
    to = index[layer[PLACES] + i]
    own = place_of(panels, layer[OUT], outs, t, panel)
    x = place_of(panels, layer[SOURCE], width, i, panel)
    u = place_of(panels, layer[TARGET], width, to, panel)
    mask = mask_at(shown, panels, index[layer[SEEN] + i], panel)
    grad_own = place_of(panels, layer[GRAD_OUT], outs, t, panel)
    grad_u = place_of(panels, layer[GRAD_TARGET], width, to, panel)
    grad_x = place_of(panels, layer[GRAD_SOURCE], width, i, panel)
    at, to_grads = values.ctypes.data, grads.ctypes.data
    words = (
        int64(at + 4 * own),
        int64(4 * ROWS * moved),
        int64(at + 4 * x),
        int64(numbers.ctypes.data + 4 * layer[NUMBERS]),
        int64(shown.ctypes.data + 4 * mask),
        int64(to_grads + 4 * grad_own),
        int64(at + 4 * u),
        int64(to_grads + 4 * grad_u),
        int64(weight.ctypes.data + 4 * panel * ROWS),
        int64(to_grads + 4 * grad_x),
    )
    _pull(layer[MAP], words)
