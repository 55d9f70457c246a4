"""Compiled loops of inverted autoregressive layers, whose network reads what its maps give.

Each unit is computed once, as soon as what it sees is known; gradients go the same way back.
"""

from typing import no_type_check

from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import stay_apart
from flows.compiled_training.fields import ENDS, MATRICES, MATRIX, MOVED, OUTPUTS
from flows.compiled_training.mapped import map_feature, pull_feature
from flows.compiled_training.products import (
    pull_activation,
    pull_inputs,
    run_units,
    weigh_matrix,
)

# mypy: ignore-errors
# numba compiles these functions by its own types.

SETS, ADDS = False, True


@jit()
@no_type_check
def _stage(layer, index, feature, matrix):
    """Return the units of a hidden layer that wait for the feature before this one."""
    hidden = layer[MATRICES] - 1
    at = layer[ENDS] + feature * hidden + matrix
    return (index[at - hidden] if feature > 0 else 0), index[at]


@jit()
@no_type_check
def run_sequential(layer, matrices, index, arrays, shown, panels, context, loss):
    """Map the features one after the other."""
    stay_apart()
    parameters, values, numbers = arrays[0], arrays[2], arrays[10]
    last, moved = layer[MATRICES] - 1, layer[MOVED]
    for i in range(moved):
        for number in range(last):
            matrix = matrices[layer[MATRIX] + number]
            first, end = _stage(layer, index, i, number)
            run_units(matrix, index, parameters, values, panels, context, first, end)
        matrix = matrices[layer[MATRIX] + last]
        for group in range(layer[OUTPUTS]):
            own = group * moved + i
            run_units(matrix, index, parameters, values, panels, context, own, own + 1)
        for panel in range(panels):
            map_feature(layer, index, values, numbers, shown, panels, panel, i, loss)


@jit()
@no_type_check
def pull_sequential(layer, matrices, index, work, numbers, shown, panels, context, weight):
    """Compute the gradients of a layer, from those of its output, which it adds to."""
    stay_apart()
    parameters, values, grads, zeros = work[0], work[2], work[3], work[7]
    for i in range(layer[MOVED] - 1, -1, -1):
        for panel in range(panels):
            pull_feature(layer, index, values, grads, numbers, shown, panels, panel, i, weight)
        for number in range(layer[MATRICES] - 1, 0, -1):
            first, end = _stage(layer, index, i, number - 1)
            matrix = matrices[layer[MATRIX] + number]
            pull_inputs(matrix, index, parameters, grads, panels, zeros, SETS, first, end)
            pull_activation(matrices[layer[MATRIX] + number - 1], work, panels, first, end)
        if i > 0:
            matrix = matrices[layer[MATRIX]]
            pull_inputs(matrix, index, parameters, grads, panels, zeros, ADDS, i - 1, i)
    for number in range(layer[MATRICES]):
        weigh_matrix(matrices[layer[MATRIX] + number], index, work, panels, context)
