"""Compiled loops of networks: their affine maps, activations, and the gradients of both.

Products stop at the last weight that a mask lets through, and the gradients of masked weights are
never computed.
"""

from typing import no_type_check

import numpy as np
from numba import float32, int64

from flows.engine.blocks import (
    LANES,
    ROWS,
    UNITS,
    VECTORS,
    activate,
    block,
    stay_apart,
    sum_unit,
    turn_block,
    weigh_block,
)
from flows.engine.fields import MATRICES, RELU, TANH
from flows.engine.loop_cache import jit
from flows.engine.training.fields import (
    ACTIVATION,
    BIAS,
    CONTEXT,
    CONTEXT_LINE,
    FROM,
    GIVEN,
    GIVENS,
    GRAD_IN,
    GRAD_UP,
    GROUPS,
    IN,
    IN_WIDTH,
    LINE,
    REACH,
    TILE_PANELS,
    UNITS_IN,
    UNITS_OUT,
    UP,
    UP_FIRST,
    UP_WIDTH,
    WEIGHT,
    WIDE,
)
from flows.engine.training.losses import place_of

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def _units(left):
    """Return the number of units of the next block."""
    return UNITS if left >= UNITS else 4 if left >= 4 else 2 if left >= 2 else 1


@jit()
@no_type_check
def _largest(numbers, start, count, step):
    most = numbers[start]
    for k in range(1, count):
        most = max(most, numbers[start + k * step])
    return most


@jit()
@no_type_check
def _columns(matrix):
    """Return the step from unit to unit of a block.

    Where there are many groups, a block has the units of an input in all groups, which see the same;
    otherwise it has units next to each other.
    """
    return matrix[UNITS_OUT] // matrix[GROUPS] if matrix[GROUPS] >= UNITS else 1


@jit()
@no_type_check
def _smallest(numbers, start, count):
    least = numbers[start]
    for k in range(1, count):
        least = min(least, numbers[start + k])
    return least


@jit()
@no_type_check
def _activation_gradient(kind, h, g):
    """Multiply gradients by the derivative of an activation, from its results."""
    stay_apart()
    if kind == RELU:
        for j in range(len(g)):
            g[j] = g[j] if h[j] > float32(0) else float32(0)
    elif kind == TANH:
        for j in range(len(g)):
            g[j] = g[j] * (float32(1) - h[j] * h[j])
    else:
        for j in range(len(g)):
            g[j] = g[j] * (h[j] + float32(1)) if h[j] < float32(0) else g[j]


@jit()
@no_type_check
def run_matrix(matrix, index, parameters, values, panels, context):
    """Compute the outputs of a matrix with biases, its activation applied.

    `context` is the block of the context, its width, and the number of rows of the batch.
    """
    stay_apart()
    address, weights = values.ctypes.data, parameters.ctypes.data
    line, biases = 4 * matrix[LINE], np.empty(UNITS, np.float32)
    columns = _columns(matrix)
    for start in range(0, panels, TILE_PANELS):
        for column in range(columns):
            unit = column
            while unit < matrix[UNITS_OUT]:
                count = _units(-(-(matrix[UNITS_OUT] - unit) // columns))
                depth = _largest(index, matrix[REACH] + unit, count, columns)
                left = weights + 4 * matrix[WEIGHT] + line * unit
                for k in range(count):
                    biases[k] = parameters[matrix[BIAS] + unit + k * columns]
                for panel in range(start, min(start + TILE_PANELS, panels)):
                    source = place_of(panels, matrix[IN], matrix[IN_WIDTH], 0, panel)
                    up_unit = matrix[UP_FIRST] + unit
                    up = place_of(panels, matrix[UP], matrix[UP_WIDTH], up_unit, panel)
                    out = address + 4 * up
                    block(
                        count, VECTORS, left, line * columns, 4, depth,
                        address + 4 * source, 4 * ROWS,
                        out, 4 * ROWS * columns, biases.ctypes.data,
                    )  # fmt: skip
                    if matrix[CONTEXT] >= 0:
                        context_line = 4 * matrix[CONTEXT_LINE]
                        given = address + 4 * place_of(
                            panels, context[0], context[1], matrix[GIVEN], panel
                        )
                        block(
                            count, VECTORS, weights + 4 * matrix[CONTEXT] + context_line * unit,
                            context_line * columns, 4, matrix[GIVENS],
                            given, 4 * ROWS, out, 4 * ROWS * columns, 0,
                        )  # fmt: skip
                    # Only the last matrix, which has no activation, has groups.
                    if matrix[ACTIVATION] >= 0:
                        activate(matrix[ACTIVATION], out, count * ROWS)
                unit += count * columns


@jit()
@no_type_check
def _pull_inputs(matrix, index, parameters, grads, panels, zeros, adds):
    """Compute the gradients of the inputs of a matrix, or add to them."""
    stay_apart()
    address, weights = grads.ctypes.data, parameters.ctypes.data
    line = 4 * matrix[LINE]
    rows = matrix[UNITS_OUT] // matrix[GROUPS]
    for start in range(0, panels, TILE_PANELS):
        unit = 0
        while unit < matrix[UNITS_IN]:
            count = _units(matrix[UNITS_IN] - unit)
            begin = _smallest(index, matrix[FROM] + unit, count)
            for panel in range(start, min(start + TILE_PANELS, panels)):
                out = address + 4 * place_of(panels, matrix[GRAD_IN], matrix[IN_WIDTH], unit, panel)
                for group in range(matrix[GROUPS]):
                    row = group * rows + begin
                    up = place_of(
                        panels, matrix[GRAD_UP], matrix[UP_WIDTH], matrix[UP_FIRST] + row, panel
                    )
                    left = weights + 4 * (matrix[WEIGHT] + unit) + line * row
                    bias = zeros.ctypes.data if group == 0 and not adds else 0
                    block(
                        count, VECTORS, left, 4, line, rows - begin,
                        address + 4 * up, 4 * ROWS, out, 4 * ROWS, bias,
                    )  # fmt: skip
            unit += count


@jit()
@no_type_check
def turn(values, panels, block, width, count, turned, line):
    """Write the first units of a block as columns, a row of the batch in each line."""
    stay_apart()
    blocks = count - count % LANES
    for panel in range(panels):
        for part in range(VECTORS):
            row = panel * ROWS + part * LANES
            for unit in range(0, blocks, LANES):
                source = place_of(panels, block, width, unit, panel) + part * LANES
                turn_block(
                    values.ctypes.data + 4 * source, 4 * ROWS,
                    turned.ctypes.data + 4 * (row * line + unit), 4 * line,
                )  # fmt: skip
        for unit in range(blocks, count):
            source = place_of(panels, block, width, unit, panel)
            for j in range(ROWS):
                turned[(panel * ROWS + j) * line + unit] = values[source + j]


@jit()
@no_type_check
def _weigh(place, sizes, reach, target, grads, panels, turned, line, gradient, tile):
    """Compute the gradient of weights, from turned inputs and the gradients of the outputs.

    Args:
        place: Block of the gradients of the outputs, its width and the first unit.
        sizes: Numbers of outputs, inputs and rows, and the step from unit to unit of a block.
        reach: Number of inputs that each output sees.
        target: Place of the weights in the flat vector, and their line.
        grads: Gradients of values.
        panels: Number of panels.
        turned: Inputs, a row of the batch in each line.
        line: Length of such a line.
        gradient: Flat gradient.
        tile: Work space of a block.
    """
    stay_apart()
    units, inputs, rows, columns = sizes
    for first in range(columns):
        unit = first
        while unit < units:
            count = _units(-(-(units - unit) // columns))
            depth = min(inputs, _largest(reach, unit, count, columns))
            left = grads.ctypes.data + 4 * place_of(panels, place[0], place[1], place[2] + unit, 0)
            column = 0
            while column < depth:
                vectors = VECTORS if depth - column > LANES else 1
                weigh_block(
                    count, vectors, left, 4 * ROWS * columns, 4 * ROWS * place[1], rows,
                    turned.ctypes.data + 4 * column, 4 * line, tile.ctypes.data,
                )  # fmt: skip
                for k in range(count):
                    own = unit + k * columns
                    most = min(vectors * LANES, reach[own] - column, inputs - column)
                    to = target[0] + own * target[1] + column
                    for c in range(most):
                        gradient[to + c] = tile[k * ROWS + c]
                column += vectors * LANES
            unit += count * columns


@jit()
@no_type_check
def _sum_rows(place, units, target, grads, panels, gradient):
    """Compute the gradient of biases."""
    for unit in range(units):
        at = place_of(panels, place[0], place[1], place[2] + unit, 0)
        gradient[target + unit] = sum_unit(
            int64(grads.ctypes.data + 4 * at), int64(4 * ROWS * place[1]), int64(panels)
        )


@jit()
@no_type_check
def pull_network(layer, matrices, index, work, panels, context):
    """Compute the gradients of a network's parameters, and add those of its inputs."""
    stay_apart()
    parameters, grads, zeros = work[0], work[3], work[7]
    for number in range(layer[MATRICES] - 1, -1, -1):
        matrix = matrices[number]
        if number < layer[MATRICES] - 1:
            _pull_activation(matrix, work, panels)
        _weigh_matrix(matrix, index, work, panels, context)
        if matrix[UNITS_IN] > 0 and (number > 0 or layer[WIDE] != 0):
            _pull_inputs(matrix, index, parameters, grads, panels, zeros, number == 0)


@jit()
@no_type_check
def _pull_activation(matrix, work, panels):
    """Multiply the gradients of the outputs of a matrix by the derivative of the activation."""
    values, grads = work[2], work[3]
    for panel in range(panels):
        first, size = matrix[UP_FIRST], matrix[UNITS_OUT] * ROWS
        up = place_of(panels, matrix[UP], matrix[UP_WIDTH], first, panel)
        at = place_of(panels, matrix[GRAD_UP], matrix[UP_WIDTH], first, panel)
        _activation_gradient(matrix[ACTIVATION], values[up : up + size], grads[at : at + size])


@jit()
@no_type_check
def _weigh_matrix(matrix, index, work, panels, context):
    """Compute the gradients of the weights and biases of a matrix, from those of its outputs."""
    stay_apart()
    _, gradient, values, grads, turned, turned_context, tile, _ = work
    place = (matrix[GRAD_UP], matrix[UP_WIDTH], matrix[UP_FIRST])
    units, inputs = matrix[UNITS_OUT], matrix[UNITS_IN]
    _sum_rows(place, units, matrix[BIAS], grads, panels, gradient)
    if inputs > 0:
        line = inputs + -inputs % ROWS
        turn(values, panels, matrix[IN], matrix[IN_WIDTH], inputs, turned, line)
        _weigh(
            place, (units, inputs, context[2], _columns(matrix)),
            index[matrix[REACH] : matrix[REACH] + units], (matrix[WEIGHT], matrix[LINE]), grads,
            panels, turned, line, gradient, tile,
        )  # fmt: skip
    if matrix[CONTEXT] >= 0:
        reach = np.full(units, matrix[GIVENS])
        line = context[1] + -context[1] % ROWS
        _weigh(
            place, (units, matrix[GIVENS], context[2], 1), reach,
            (matrix[CONTEXT], matrix[CONTEXT_LINE]), grads,
            panels, turned_context[matrix[GIVEN] :], line, gradient, tile,
        )  # fmt: skip
