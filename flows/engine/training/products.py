"""Compiled loops of networks: their affine maps, activations, and the gradients of both.

Products stop at the last weight that a mask lets through, and the gradients of masked weights are
never computed. Values lie in panels of `ROWS` rows, features first, a row in each lane of the vector unit:
a block of values is an array [panel, unit, row], and its place is counted in units, of `ROWS` numbers for
each panel.
"""

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
from flows.engine.loop_cache import jit
from flows.engine.training import fields

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
def place_of(panels, block, width, unit, panel):
    """Return where the rows of a unit begin."""
    return (block * panels + panel * width + unit) * ROWS


@jit()
def unit_of(values, panels, block, width, unit, panel):
    """Return the rows of a unit in a panel."""
    at = place_of(panels, block, width, unit, panel)
    return values[at : at + ROWS]


@jit()
def mask_of(values, sizes, panels, line, panel):
    """Return a line of the masks in a panel; one line stands for all if none is missing."""
    lines = sizes[fields.MASK_LINES]
    return unit_of(values, panels, sizes[fields.MASK_BLOCK], lines, min(line, lines - 1), panel)


@jit()
def _units(left):
    """Return the number of units of the next block."""
    return UNITS if left >= UNITS else 4 if left >= 4 else 2 if left >= 2 else 1


@jit()
def _columns(matrix):
    """Return the step from unit to unit of a block.

    Where there are many groups, a block has the units of an input in all groups, which see the same;
    otherwise it has units next to each other.
    """
    return (
        matrix[fields.UNITS_OUT] // matrix[fields.GROUPS] if matrix[fields.GROUPS] >= UNITS else 1
    )


@jit()
def _activation_gradient(kind, h, g):
    """Multiply gradients by the derivative of an activation, from its results."""
    stay_apart()
    if kind == fields.RELU:
        for j in range(len(g)):
            g[j] = g[j] if h[j] > float32(0) else float32(0)
    elif kind == fields.TANH:
        for j in range(len(g)):
            g[j] = g[j] * (float32(1) - h[j] * h[j])
    else:
        for j in range(len(g)):
            g[j] = g[j] * (h[j] + float32(1)) if h[j] < float32(0) else g[j]


@jit()
def run_matrix(matrix, index, parameters, values, panels, context):
    """Compute the outputs of a matrix with biases, its activation applied.

    `context` is the block of the context, its width, and the number of rows of the batch.
    """
    stay_apart()
    address, weights = values.ctypes.data, parameters.ctypes.data
    line, biases = 4 * matrix[fields.LINE], np.empty(UNITS, np.float32)
    columns = _columns(matrix)
    for start in range(0, panels, fields.TILE_PANELS):
        for column in range(columns):
            unit = column
            while unit < matrix[fields.UNITS_OUT]:
                count = _units(-(-(matrix[fields.UNITS_OUT] - unit) // columns))
                first = matrix[fields.REACH] + unit
                depth = index[first : first + count * columns : columns].max()
                left = weights + 4 * matrix[fields.WEIGHT] + line * unit
                for k in range(count):
                    biases[k] = parameters[matrix[fields.BIAS] + unit + k * columns]
                for panel in range(start, min(start + fields.TILE_PANELS, panels)):
                    source = place_of(panels, matrix[fields.IN], matrix[fields.IN_WIDTH], 0, panel)
                    up_unit = matrix[fields.UP_FIRST] + unit
                    up = place_of(
                        panels, matrix[fields.UP], matrix[fields.UP_WIDTH], up_unit, panel
                    )
                    out = address + 4 * up
                    block(
                        count, VECTORS, left, line * columns, 4, depth,
                        address + 4 * source, 4 * ROWS,
                        out, 4 * ROWS * columns, biases.ctypes.data,
                    )  # fmt: skip
                    if matrix[fields.CONTEXT] >= 0:
                        context_line = 4 * matrix[fields.CONTEXT_LINE]
                        given = address + 4 * place_of(
                            panels, context[0], context[1], matrix[fields.GIVEN], panel
                        )
                        block(
                            count, VECTORS, weights + 4 * matrix[fields.CONTEXT] + context_line * unit,
                            context_line * columns, 4, matrix[fields.GIVENS],
                            given, 4 * ROWS, out, 4 * ROWS * columns, 0,
                        )  # fmt: skip
                    # Only the last matrix, which has no activation, has groups.
                    if matrix[fields.ACTIVATION] >= 0:
                        activate(matrix[fields.ACTIVATION], out, count * ROWS)
                unit += count * columns


@jit()
def _pull_inputs(matrix, index, parameters, grads, panels, zeros, adds):
    """Compute the gradients of the inputs of a matrix, or add to them."""
    stay_apart()
    address, weights = grads.ctypes.data, parameters.ctypes.data
    line = 4 * matrix[fields.LINE]
    rows = matrix[fields.UNITS_OUT] // matrix[fields.GROUPS]
    for start in range(0, panels, fields.TILE_PANELS):
        unit = 0
        while unit < matrix[fields.UNITS_IN]:
            count = _units(matrix[fields.UNITS_IN] - unit)
            begin = index[matrix[fields.FROM] + unit : matrix[fields.FROM] + unit + count].min()
            for panel in range(start, min(start + fields.TILE_PANELS, panels)):
                out = address + 4 * place_of(
                    panels, matrix[fields.GRAD_IN], matrix[fields.IN_WIDTH], unit, panel
                )
                for group in range(matrix[fields.GROUPS]):
                    row = group * rows + begin
                    up = place_of(
                        panels,
                        matrix[fields.GRAD_UP],
                        matrix[fields.UP_WIDTH],
                        matrix[fields.UP_FIRST] + row,
                        panel,
                    )
                    left = weights + 4 * (matrix[fields.WEIGHT] + unit) + line * row
                    bias = zeros.ctypes.data if group == 0 and not adds else 0
                    block(
                        count, VECTORS, left, 4, line, rows - begin,
                        address + 4 * up, 4 * ROWS, out, 4 * ROWS, bias,
                    )  # fmt: skip
            unit += count


@jit()
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
def _weigh(place, sizes, reach, target, grads, panels, turned, line, gradient, tile):
    """Compute the gradient of weights, from turned inputs and the gradients of the outputs.

    `place` has the block of these, its width and the first unit; `sizes` the numbers of outputs, inputs
    and rows, and the step from unit to unit of a block; `target` the place of the weights in the flat
    vector, and their line; `line` is the length of that of a turned row.
    """
    stay_apart()
    units, inputs, rows, columns = sizes
    for first in range(columns):
        unit = first
        while unit < units:
            count = _units(-(-(units - unit) // columns))
            depth = min(inputs, reach[unit : unit + count * columns : columns].max())
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
def _sum_rows(place, units, target, grads, panels, gradient):
    """Compute the gradient of biases."""
    for unit in range(units):
        at = place_of(panels, place[0], place[1], place[2] + unit, 0)
        gradient[target + unit] = sum_unit(
            int64(grads.ctypes.data + 4 * at), int64(4 * ROWS * place[1]), int64(panels)
        )


@jit()
def pull_network(layer, matrices, index, work, panels, context):
    """Compute the gradients of a network's parameters, and add those of its inputs."""
    stay_apart()
    parameters, grads, zeros = work[0], work[3], work[7]
    for number in range(layer[fields.MATRICES] - 1, -1, -1):
        matrix = matrices[number]
        if number < layer[fields.MATRICES] - 1:
            _pull_activation(matrix, work, panels)
        _weigh_matrix(matrix, index, work, panels, context)
        if matrix[fields.UNITS_IN] > 0 and (number > 0 or layer[fields.WIDE] != 0):
            _pull_inputs(matrix, index, parameters, grads, panels, zeros, number == 0)


@jit()
def _pull_activation(matrix, work, panels):
    """Multiply the gradients of the outputs of a matrix by the derivative of the activation."""
    values, grads = work[2], work[3]
    for panel in range(panels):
        first, size = matrix[fields.UP_FIRST], matrix[fields.UNITS_OUT] * ROWS
        up = place_of(panels, matrix[fields.UP], matrix[fields.UP_WIDTH], first, panel)
        at = place_of(panels, matrix[fields.GRAD_UP], matrix[fields.UP_WIDTH], first, panel)
        _activation_gradient(
            matrix[fields.ACTIVATION], values[up : up + size], grads[at : at + size]
        )


@jit()
def _weigh_matrix(matrix, index, work, panels, context):
    """Compute the gradients of the weights and biases of a matrix, from those of its outputs."""
    stay_apart()
    _, gradient, values, grads, turned, turned_context, tile, _ = work
    place = (matrix[fields.GRAD_UP], matrix[fields.UP_WIDTH], matrix[fields.UP_FIRST])
    units, inputs = matrix[fields.UNITS_OUT], matrix[fields.UNITS_IN]
    _sum_rows(place, units, matrix[fields.BIAS], grads, panels, gradient)
    if inputs > 0:
        line = inputs + -inputs % ROWS
        turn(values, panels, matrix[fields.IN], matrix[fields.IN_WIDTH], inputs, turned, line)
        _weigh(
            place, (units, inputs, context[2], _columns(matrix)),
            index[matrix[fields.REACH] : matrix[fields.REACH] + units], (matrix[fields.WEIGHT], matrix[fields.LINE]), grads,
            panels, turned, line, gradient, tile,
        )  # fmt: skip
    if matrix[fields.CONTEXT] >= 0:
        reach = np.full(units, matrix[fields.GIVENS])
        line = context[1] + -context[1] % ROWS
        _weigh(
            place, (units, matrix[fields.GIVENS], context[2], 1), reach,
            (matrix[fields.CONTEXT], matrix[fields.CONTEXT_LINE]), grads,
            panels, turned_context[matrix[fields.GIVEN] :], line, gradient, tile,
        )  # fmt: skip
