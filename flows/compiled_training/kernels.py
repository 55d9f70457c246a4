"""Compiled loops of a training step: a flow's log density of a batch, and its gradient.

Rows are taken in panels of `ROWS`, features first, a row in each lane of the vector unit. A block
of values is an array [panel, unit, row]; its place is counted in units, of `ROWS` numbers for each
panel. What a flow consists of is encoded in integers (`flows.compiled_training.program`), so one
call computes a step without a visit to Python.

Products stop at the last weight that a mask lets through, and the gradients of masked weights are
never computed. Importing this module compiles it, or reads numba's cache.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.compiled.functions import exp, jit, log, tanh
from flows.compiled.micro_kernels import (
    LANES,
    UNITS,
    VECTORS,
    product_block_of,
    stay_apart,
    turn_block,
)

# mypy: ignore-errors
# numba compiles these functions by its own types.

ROWS = LANES * VECTORS
# Panels whose values should stay in the second cache while the weights of a layer pass.
TILE_PANELS = 8

ACTIVATIONS = ("relu", "tanh", "elu")
RELU, TANH, ELU = range(3)
AFFINE, NORM, SPLINE, CATEGORICAL = range(4)
# A layer: its kind; places of its input and output; features of a row; in the index, the place of
# each feature in the output, and the line of its mask.
KIND, SOURCE, TARGET, WIDTH, PLACES, SEEN, GRAD_SOURCE, GRAD_TARGET = range(8)
# An affine layer: its moved features as first, step and number; the kept ones in the index, and
# their number; places of the networks' outputs and of their gradients; whether there is a scale;
# its first matrix, and their number in each of its networks.
FIRST, STEP, MOVED, KEPT, KEPTS, OUT, GRAD_OUT, SCALED, MATRIX, MATRICES, NETWORKS = range(8, 19)
# A spline layer: as an affine one; then its number of bins, and where its bound is in the numbers.
BINS, BOUND = range(19, 21)
# Categorical variables: their number and the block of their levels; in the index, the first output,
# number of levels and openness of each; where the logarithms are that these add; and, as for an
# affine layer, the outputs, their gradients, their number, and the matrices.
VARIABLES, LEVELS, STARTS, LOGS, OUTS = range(8, 13)
# A batch norm: its parameters, in the flat vector; its statistics; whether these follow batches.
GAIN, OFFSET, STATISTICS, RUNNING = range(8, 12)
LAYER_FIELDS = 21
# A matrix: units and inputs; weights, their line and biases in the flat vector; the block of the
# inputs with its width, first unit and step; the block of the outputs with its width and first
# unit; blocks of their gradients; activation; in the index, the inputs that each unit sees, and the
# first unit of a group that sees each input; groups; the weights of the context and their line, and
# the first value of the context that they are for, and how many these are.
# fmt: off
(UNITS_OUT, UNITS_IN, WEIGHT, LINE, BIAS, IN, IN_WIDTH, IN_FIRST, IN_STEP, UP, UP_WIDTH, UP_FIRST,
 GRAD_IN, GRAD_UP, ACTIVATION, REACH, FROM, GROUPS, CONTEXT, CONTEXT_LINE, GIVEN, GIVENS) = range(22)
# fmt: on
MATRIX_FIELDS = 22

FORTH, BACK = range(2)
EPS = np.float32(1e-5)
LEAST_OBSERVED = 32
LEAST_SPREAD = np.float32(1.0)
LARGEST = np.finfo(np.float32).max
# As in `flows.families.nsf`.
LEAST_SIZE, LEAST_SLOPE = 1e-3, np.float32(1e-3)
SLOPE_OFFSET = np.float32(np.log(np.expm1(1 - 1e-3)))
UNSEEN = -1
# Adam's decay of the moments.
BETA1, BETA2 = 0.9, 0.999

_narrow_1, _narrow_2, _narrow_4, _narrow_all = (product_block_of(n, 1) for n in (1, 2, 4, UNITS))
_wide_1, _wide_2, _wide_4, _wide_all = (product_block_of(n, VECTORS) for n in (1, 2, 4, UNITS))


@jit()
@no_type_check
def _block(units, vectors, left, unit_stride, step, depth, right, line, out, out_line, bias):
    """Compute a block of a product by the micro-kernel for this number of units and vectors."""
    stay_apart()
    if vectors == VECTORS:
        if units == UNITS:
            _wide_all(left, unit_stride, step, depth, right, line, out, out_line, bias)
        elif units == 4:
            _wide_4(left, unit_stride, step, depth, right, line, out, out_line, bias)
        elif units == 2:
            _wide_2(left, unit_stride, step, depth, right, line, out, out_line, bias)
        else:
            _wide_1(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == UNITS:
        _narrow_all(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == 4:
        _narrow_4(left, unit_stride, step, depth, right, line, out, out_line, bias)
    elif units == 2:
        _narrow_2(left, unit_stride, step, depth, right, line, out, out_line, bias)
    else:
        _narrow_1(left, unit_stride, step, depth, right, line, out, out_line, bias)


@jit()
@no_type_check
def _units(left):
    """Return the number of units of the next block."""
    return UNITS if left >= UNITS else 4 if left >= 4 else 2 if left >= 2 else 1


@jit()
@no_type_check
def _at(panels, block, width, unit, panel):
    """Return where the rows of a unit begin."""
    return (block * panels + panel * width + unit) * ROWS


@jit()
@no_type_check
def _mask_at(shown, panels, line, panel):
    """Return where the mask of a feature begins; one line stands for all if none is missing."""
    lines = len(shown) // (panels * ROWS)
    return _at(panels, 0, lines, min(line, lines - 1), panel)


@jit()
@no_type_check
def _largest(numbers, start, count):
    most = numbers[start]
    for k in range(1, count):
        most = max(most, numbers[start + k])
    return most


@jit()
@no_type_check
def _smallest(numbers, start, count):
    least = numbers[start]
    for k in range(1, count):
        least = min(least, numbers[start + k])
    return least


@jit()
@no_type_check
def _activate(kind, h):
    """Apply an activation in place."""
    stay_apart()
    if kind == RELU:
        for j in range(len(h)):
            h[j] = float32(0) if h[j] < float32(0) else h[j]
    elif kind == TANH:
        for j in range(len(h)):
            h[j] = tanh(h[j])
    else:
        for j in range(len(h)):
            h[j] = exp(h[j]) - float32(1) if h[j] < float32(0) else h[j]


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
def _run_matrix(matrix, index, parameters, values, panels, context):
    """Compute the outputs of a matrix with biases, its activation applied."""
    stay_apart()
    address, weights = values.ctypes.data, parameters.ctypes.data
    width, line = matrix[UNITS_OUT], 4 * matrix[LINE]
    for start in range(0, panels, TILE_PANELS):
        unit = 0
        while unit < width:
            count = _units(width - unit)
            depth = _largest(index, matrix[REACH] + unit, count)
            left = weights + 4 * matrix[WEIGHT] + line * unit
            bias = weights + 4 * (matrix[BIAS] + unit)
            for panel in range(start, min(start + TILE_PANELS, panels)):
                source = _at(panels, matrix[IN], matrix[IN_WIDTH], matrix[IN_FIRST], panel)
                up = _at(panels, matrix[UP], matrix[UP_WIDTH], matrix[UP_FIRST] + unit, panel)
                out = address + 4 * up
                _block(
                    count, VECTORS, left, line, 4, depth,
                    address + 4 * source, 4 * ROWS * matrix[IN_STEP], out, 4 * ROWS, bias,
                )  # fmt: skip
                if matrix[CONTEXT] >= 0:
                    left_context = weights + 4 * (matrix[CONTEXT] + matrix[CONTEXT_LINE] * unit)
                    given = address + 4 * _at(panels, context[0], context[1], matrix[GIVEN], panel)
                    _block(
                        count, VECTORS, left_context, 4 * matrix[CONTEXT_LINE], 4, matrix[GIVENS],
                        given, 4 * ROWS, out, 4 * ROWS, 0,
                    )  # fmt: skip
                if matrix[ACTIVATION] >= 0:
                    _activate(matrix[ACTIVATION], values[up : up + count * ROWS])
            unit += count


@jit()
@no_type_check
def _pull_matrix(matrix, index, parameters, grads, panels, zeros, adds):
    """Compute the gradients of the inputs of a matrix, or add to them."""
    stay_apart()
    address, weights = grads.ctypes.data, parameters.ctypes.data
    inputs, line = matrix[UNITS_IN], 4 * matrix[LINE]
    rows = matrix[UNITS_OUT] // matrix[GROUPS]
    for start in range(0, panels, TILE_PANELS):
        unit = 0
        while unit < inputs:
            count = _units(inputs - unit)
            begin = _smallest(index, matrix[FROM] + unit, count)
            for panel in range(start, min(start + TILE_PANELS, panels)):
                first = matrix[IN_FIRST] + matrix[IN_STEP] * unit
                out = address + 4 * _at(panels, matrix[GRAD_IN], matrix[IN_WIDTH], first, panel)
                for group in range(matrix[GROUPS]):
                    row = group * rows + begin
                    up = _at(
                        panels, matrix[GRAD_UP], matrix[UP_WIDTH], matrix[UP_FIRST] + row, panel
                    )
                    left = weights + 4 * (matrix[WEIGHT] + unit) + line * row
                    bias = zeros.ctypes.data if group == 0 and not adds else 0
                    _block(
                        count, VECTORS, left, 4, line, rows - begin,
                        address + 4 * up, 4 * ROWS, out, 4 * ROWS * matrix[IN_STEP], bias,
                    )  # fmt: skip
            unit += count


@jit()
@no_type_check
def _turn(values, panels, block, width, first, step, count, turned, line):
    """Write units as columns, a row of the batch in each line."""
    stay_apart()
    blocks = count - count % LANES
    for panel in range(panels):
        for part in range(VECTORS):
            row = panel * ROWS + part * LANES
            for unit in range(0, blocks, LANES):
                source = _at(panels, block, width, first + step * unit, panel) + part * LANES
                turn_block(
                    values.ctypes.data + 4 * source, 4 * step * ROWS,
                    turned.ctypes.data + 4 * (row * line + unit), 4 * line,
                )  # fmt: skip
        for unit in range(blocks, count):
            source = _at(panels, block, width, first + step * unit, panel)
            for j in range(ROWS):
                turned[(panel * ROWS + j) * line + unit] = values[source + j]


@jit()
@no_type_check
def _weigh(place, units, inputs, reach, target, grads, panels, turned, line, gradient, tile):
    """Compute the gradient of weights, from turned inputs and the gradients of the outputs.

    Args:
        place: Block of the gradients of the outputs, its width and the first unit.
        units: Number of outputs.
        inputs: Number of inputs.
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
    address, right = grads.ctypes.data, turned.ctypes.data
    out = tile.ctypes.data
    unit = 0
    while unit < units:
        count = _units(units - unit)
        depth = min(inputs, _largest(reach, unit, count))
        column = 0
        while column < depth:
            vectors = VECTORS if depth - column > LANES else 1
            tile[:] = 0
            for panel in range(panels):
                left = address + 4 * _at(panels, place[0], place[1], place[2] + unit, panel)
                _block(
                    count, vectors, left, 4 * ROWS, 4, ROWS,
                    right + 4 * (panel * ROWS * line + column), 4 * line, out, 4 * ROWS, 0,
                )  # fmt: skip
            for k in range(count):
                most = min(vectors * LANES, reach[unit + k] - column, inputs - column)
                to = target[0] + (unit + k) * target[1] + column
                for c in range(most):
                    gradient[to + c] = tile[k * ROWS + c]
            column += vectors * LANES
        unit += count


@jit()
@no_type_check
def _sum_rows(place, units, target, grads, panels, gradient):
    """Compute the gradient of biases."""
    for unit in range(units):
        total = np.zeros(LANES, dtype=np.float32)
        for panel in range(panels):
            at = _at(panels, place[0], place[1], place[2] + unit, panel)
            for j in range(ROWS // LANES):
                for lane in range(LANES):
                    total[lane] += grads[at + j * LANES + lane]
        gradient[target + unit] = total.sum()


@jit()
@no_type_check
def _pull_network(layer, matrices, index, work, panels, context, wide):
    """Compute the gradients of a network's parameters, and add those of its inputs."""
    stay_apart()
    parameters, gradient, values, grads, turned, turned_context, tile, zeros = work
    for number in range(layer[MATRICES] - 1, -1, -1):
        matrix = matrices[number]
        place = (matrix[GRAD_UP], matrix[UP_WIDTH], matrix[UP_FIRST])
        units, inputs = matrix[UNITS_OUT], matrix[UNITS_IN]
        if number < layer[MATRICES] - 1:
            for panel in range(panels):
                up = _at(panels, matrix[UP], matrix[UP_WIDTH], matrix[UP_FIRST], panel)
                at = _at(panels, place[0], place[1], place[2], panel)
                size = units * ROWS
                _activation_gradient(
                    matrix[ACTIVATION], values[up : up + size], grads[at : at + size]
                )
        _sum_rows(place, units, matrix[BIAS], grads, panels, gradient)
        if inputs > 0:
            line = inputs + -inputs % (LANES * VECTORS)
            _turn(
                values, panels, matrix[IN], matrix[IN_WIDTH], matrix[IN_FIRST], matrix[IN_STEP],
                inputs, turned, line,
            )  # fmt: skip
            _weigh(
                place, units, inputs, index[matrix[REACH] : matrix[REACH] + units],
                (matrix[WEIGHT], matrix[LINE]), grads, panels, turned, line, gradient, tile,
            )  # fmt: skip
            if number > 0 or wide:
                _pull_matrix(matrix, index, parameters, grads, panels, zeros, number == 0)
        if matrix[CONTEXT] >= 0:
            reach = np.full(units, matrix[GIVENS])
            line = context[1] + -context[1] % (LANES * VECTORS)
            _weigh(
                place, units, matrix[GIVENS], reach, (matrix[CONTEXT], matrix[CONTEXT_LINE]), grads,
                panels, turned_context[matrix[GIVEN] :], line, gradient, tile,
            )  # fmt: skip


@jit()
@no_type_check
def _run_affine(layer, matrices, index, parameters, values, shown, panels, context, loss):
    """Compute u = (x - shift) exp(-log_scale); exp(-log_scale) takes the place of log_scale."""
    stay_apart()
    for number in range(layer[MATRICES] * layer[NETWORKS]):
        matrix = matrices[layer[MATRIX] + number]
        _run_matrix(matrix, index, parameters, values, panels, context)
    _keep(layer, index, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    width, moved = layer[WIDTH], layer[MOVED]
    outs = 2 * moved if layer[SCALED] else moved
    for panel in range(panels):
        for t in range(moved):
            i = layer[FIRST] + t * layer[STEP]
            x = _at(panels, layer[SOURCE], width, i, panel)
            u = _at(panels, layer[TARGET], width, index[layer[PLACES] + i], panel)
            shift = _at(panels, layer[OUT], outs, t, panel)
            scale = shift + moved * ROWS
            mask = _mask_at(shown, panels, index[layer[SEEN] + i], panel)
            for j in range(ROWS):
                values[u + j] = values[x + j] - values[shift + j] * shown[mask + j]
            if layer[SCALED]:
                for j in range(ROWS):
                    values[scale + j] *= shown[mask + j]
                    loss[panel * ROWS + j] += values[scale + j]
        if layer[SCALED]:
            scales = _at(panels, layer[OUT], outs, moved, panel)
            _inverse_exp(values[scales : scales + moved * ROWS])
            for t in range(moved):
                i = layer[FIRST] + t * layer[STEP]
                u = _at(panels, layer[TARGET], width, index[layer[PLACES] + i], panel)
                for j in range(ROWS):
                    values[u + j] *= values[scales + t * ROWS + j]


@jit()
@no_type_check
def _inverse_exp(h):
    """Replace numbers by exp(-number)."""
    stay_apart()
    for j in range(len(h)):
        h[j] = exp(-h[j])


@jit()
@no_type_check
def _keep(layer, index, values, panels, blocks, way):
    """Copy the kept features from a layer's input to its output, or back."""
    width = layer[WIDTH]
    for panel in range(panels):
        for k in range(layer[KEPTS]):
            i = index[layer[KEPT] + k]
            x = _at(panels, blocks[0], width, i, panel)
            u = _at(panels, blocks[1], width, index[layer[PLACES] + i], panel)
            source, target = (x, u) if way == FORTH else (u, x)
            for j in range(ROWS):
                values[target + j] = values[source + j]


@jit()
@no_type_check
def _pull_affine(layer, matrices, index, work, shown, panels, context, weight, wide):
    """Compute the gradients of an affine layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    _keep(layer, index, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    width, moved = layer[WIDTH], layer[MOVED]
    outs = 2 * moved if layer[SCALED] else moved
    for panel in range(panels):
        rows = panel * ROWS
        for t in range(moved):
            i = layer[FIRST] + t * layer[STEP]
            to = index[layer[PLACES] + i]
            x = _at(panels, layer[GRAD_SOURCE], width, i, panel)
            g = _at(panels, layer[GRAD_TARGET], width, to, panel)
            shift = _at(panels, layer[GRAD_OUT], outs, t, panel)
            mask = _mask_at(shown, panels, index[layer[SEEN] + i], panel)
            for j in range(ROWS):
                grads[x + j] = grads[g + j]
            if layer[SCALED]:
                u = _at(panels, layer[TARGET], width, to, panel)
                inverse = _at(panels, layer[OUT], outs, moved + t, panel)
                scale = shift + moved * ROWS
                for j in range(ROWS):
                    grads[x + j] *= values[inverse + j]
                    pull = weight[rows + j] - grads[g + j] * values[u + j]
                    grads[scale + j] = pull * shown[mask + j]
            for j in range(ROWS):
                grads[shift + j] = -grads[x + j] * shown[mask + j]
    for network in range(layer[NETWORKS]):
        first = layer[MATRIX] + network * layer[MATRICES]
        _pull_network(
            layer, matrices[first : first + layer[MATRICES]], index, work, panels, context, wide
        )


# Lines of the work space of splines: a value for each row of a panel and feature, some features at
# a time. Constant distances let the compiler see that they do not overlap.
SPAN = 16 * LANES * VECTORS
(X, SHOWN, PLACE, LEFT, BOTTOM, BIN_WIDTH, BIN_HEIGHT, RAW_FIRST, RAW_SECOND, INDEX, SUM_WIDTH,
 SUM_HEIGHT, GRAD, PULL, GRAD_LEFT, GRAD_BOTTOM, GRAD_WIDTH, GRAD_HEIGHT, GRAD_FIRST, GRAD_SECOND,
 ) = range(0, 20 * SPAN, SPAN)  # fmt: skip
SPLINE_NUMBERS = 20 * SPAN


@jit()
@no_type_check
def _softmax(values, at, step, bins, floor, most, total):
    """Replace logits by the sizes of bins: their softmax, and a floor."""
    stay_apart()
    for j in range(len(most)):
        most[j] = values[at + j]
        total[j] = 0
    for k in range(1, bins):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            most[j] = logits[j] if logits[j] > most[j] else most[j]
    for k in range(bins):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            logits[j] = exp(logits[j] - most[j])
        for j in range(len(most)):
            total[j] += logits[j]
    for k in range(bins):
        logits = values[at + k * step : at + k * step + len(most)]
        for j in range(len(most)):
            logits[j] = logits[j] / total[j] + floor


@jit()
@no_type_check
def _find_bins(values, at, step, size, bins, bound, lines):
    """Find the bin of each number, its corner, sizes and the parameters of its slopes."""
    stay_apart()
    scale, reach = float32((1 + bins * _floor(bins)) / (2 * bound)), float32(bound)
    heights, slopes = at + bins * step, at + 2 * bins * step
    for j in range(size):
        place = lines[X + j]
        place = -reach if place < -reach else place
        place = reach if place > reach else place
        lines[PLACE + j] = (place + reach) * scale
    for line in (LEFT, BOTTOM, RAW_FIRST, INDEX):
        lines[line : line + size] = 0
    for j in range(size):
        lines[BIN_WIDTH + j] = lines[SUM_WIDTH + j] = values[at + j]
        lines[BIN_HEIGHT + j] = lines[SUM_HEIGHT + j] = values[heights + j]
        lines[RAW_SECOND + j] = values[slopes + j]
    for k in range(1, bins):
        widths = values[at + k * step : at + k * step + size]
        for j in range(size):
            inside = lines[PLACE + j] >= lines[SUM_WIDTH + j]
            lines[LEFT + j] = lines[SUM_WIDTH + j] if inside else lines[LEFT + j]
            lines[BOTTOM + j] = lines[SUM_HEIGHT + j] if inside else lines[BOTTOM + j]
            lines[INDEX + j] = float32(k) if inside else lines[INDEX + j]
            lines[BIN_WIDTH + j] = widths[j] if inside else lines[BIN_WIDTH + j]
            lines[SUM_WIDTH + j] += widths[j]
        more = values[heights + k * step : heights + k * step + size]
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[BIN_HEIGHT + j] = more[j] if inside else lines[BIN_HEIGHT + j]
            lines[SUM_HEIGHT + j] += more[j]
        _find_slopes(values, slopes, step, size, k, bins, lines)


@jit()
@no_type_check
def _find_slopes(values, slopes, step, size, k, bins, lines):
    """Take the parameters of the slopes of those numbers that are in bin `k`."""
    below = values[slopes + (k - 1) * step : slopes + (k - 1) * step + size]
    for j in range(size):
        inside = lines[INDEX + j] == float32(k)
        lines[RAW_FIRST + j] = below[j] if inside else lines[RAW_FIRST + j]
    if k < bins - 1:
        above = values[slopes + k * step : slopes + k * step + size]
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[RAW_SECOND + j] = above[j] if inside else lines[RAW_SECOND + j]
    else:
        for j in range(size):
            inside = lines[INDEX + j] == float32(k)
            lines[RAW_SECOND + j] = float32(0) if inside else lines[RAW_SECOND + j]


@jit()
@no_type_check
def _floor(bins):
    return LEAST_SIZE / (1 - LEAST_SIZE * bins)


@jit()
@no_type_check
def _slope_of(raw):
    """Return softplus(raw + SLOPE_OFFSET) + LEAST_SLOPE."""
    y = raw + SLOPE_OFFSET
    size = y if y > float32(0) else -y
    positive = y if y > float32(0) else float32(0)
    return positive + log(float32(1) + exp(-size)) + LEAST_SLOPE


@jit()
@no_type_check
def _run_spline(layer, matrices, index, arrays, shown, panels, context, numbers, loss):
    """Map data to noise by rational-quadratic splines (`flows.families.nsf`)."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[MATRICES]):
        _run_matrix(matrices[layer[MATRIX] + number], index, parameters, values, panels, context)
    _keep(layer, index, values, panels, (layer[SOURCE], layer[TARGET]), FORTH)
    moved, bins, bound = layer[MOVED], layer[BINS], numbers[layer[BOUND]]
    lines, step = np.zeros(SPLINE_NUMBERS, np.float32), moved * ROWS
    floor = float32(_floor(bins))
    for panel in range(panels):
        for begin in range(0, moved, SPAN // ROWS):
            count = min(SPAN // ROWS, moved - begin)
            size = count * ROWS
            at = _at(panels, layer[OUT], (3 * bins - 1) * moved, begin, panel)
            _gather(layer, index, values, shown, panels, panel, begin, count, lines)
            most, total = lines[PLACE : PLACE + size], lines[LEFT : LEFT + size]
            _softmax(values, at, step, bins, floor, most, total)
            _softmax(values, at + bins * step, step, bins, floor, most, total)
            _find_bins(values, at, step, size, bins, bound, lines)
            _bend(size, bins, bound, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                to = index[layer[PLACES] + i]
                u = _at(panels, layer[TARGET], layer[WIDTH], to, panel)
                for j in range(ROWS):
                    values[u + j] = lines[GRAD + t * ROWS + j]
                    loss[panel * ROWS + j] -= lines[PULL + t * ROWS + j]


@jit()
@no_type_check
def _gather(layer, index, values, shown, panels, panel, begin, count, lines):
    """Copy the values of some features, and their masks, into lines."""
    for t in range(count):
        i = layer[FIRST] + (begin + t) * layer[STEP]
        x = _at(panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = _mask_at(shown, panels, index[layer[SEEN] + i], panel)
        for j in range(ROWS):
            lines[X + t * ROWS + j] = values[x + j]
            lines[SHOWN + t * ROWS + j] = shown[mask + j]


@jit()
@no_type_check
def _bend(size, bins, bound, lines):
    """Compute the noise, in the line GRAD, and the log slopes, in the line PULL."""
    stay_apart()
    unit, reach = float32(2 * bound / (1 + bins * _floor(bins))), float32(bound)
    for j in range(size):
        s = lines[BIN_HEIGHT + j] / lines[BIN_WIDTH + j]
        theta = (lines[PLACE + j] - lines[LEFT + j]) / lines[BIN_WIDTH + j]
        first, second = _slope_of(lines[RAW_FIRST + j]), _slope_of(lines[RAW_SECOND + j])
        rest = float32(1) - theta
        hump = theta * rest
        below = s * theta * theta + first * hump
        under = s + (first + second - s - s) * hump
        rise = first * rest * rest + float32(2) * s * hump + second * theta * theta
        quotient = s / under
        log_slope = log(rise * quotient * quotient)
        noise = (lines[BOTTOM + j] + lines[BIN_HEIGHT + j] * below / under) * unit - reach
        x = lines[X + j]
        away = (x if x > float32(0) else -x) > reach
        lines[GRAD + j] = (x if away else noise) * lines[SHOWN + j]
        lines[PULL + j] = (float32(0) if away else log_slope) * lines[SHOWN + j]


@jit()
@no_type_check
def _pull_spline(layer, matrices, index, work, shown, panels, context, numbers, weight, wide):
    """Compute the gradients of a spline layer, from those of its output."""
    stay_apart()
    values, grads = work[2], work[3]
    _keep(layer, index, grads, panels, (layer[GRAD_SOURCE], layer[GRAD_TARGET]), BACK)
    width, moved, bins, bound = layer[WIDTH], layer[MOVED], layer[BINS], numbers[layer[BOUND]]
    lines, step = np.zeros(SPLINE_NUMBERS, np.float32), moved * ROWS
    outs = (3 * bins - 1) * moved
    for panel in range(panels):
        for begin in range(0, moved, SPAN // ROWS):
            count = min(SPAN // ROWS, moved - begin)
            size = count * ROWS
            at = _at(panels, layer[OUT], outs, begin, panel)
            to = _at(panels, layer[GRAD_OUT], outs, begin, panel)
            _gather(layer, index, values, shown, panels, panel, begin, count, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                g = _at(panels, layer[GRAD_TARGET], width, index[layer[PLACES] + i], panel)
                for j in range(ROWS):
                    lines[GRAD + t * ROWS + j] = grads[g + j]
                    lines[PULL + t * ROWS + j] = -weight[panel * ROWS + j]
            _find_bins(values, at, step, size, bins, bound, lines)
            _pull_bins(size, bins, bound, lines)
            _pull_sizes(values, grads, at, to, step, size, bins, lines, GRAD_LEFT, GRAD_WIDTH)
            _pull_sizes(
                values, grads, at + bins * step, to + bins * step, step, size, bins, lines,
                GRAD_BOTTOM, GRAD_HEIGHT,
            )  # fmt: skip
            _pull_slopes(grads, to + 2 * bins * step, step, size, bins, lines)
            for t in range(count):
                i = layer[FIRST] + (begin + t) * layer[STEP]
                x = _at(panels, layer[GRAD_SOURCE], width, i, panel)
                for j in range(ROWS):
                    grads[x + j] = lines[GRAD + t * ROWS + j]
    first = layer[MATRIX]
    _pull_network(
        layer, matrices[first : first + layer[MATRICES]], index, work, panels, context, wide
    )


@jit()
@no_type_check
def _pull_bins(size, bins, bound, lines):
    """Compute the gradients of the input, and of a bin's corner, sizes and slopes."""
    stay_apart()
    unit, reach = float32(2 * bound / (1 + bins * _floor(bins))), float32(bound)
    for j in range(size):
        x = lines[X + j]
        away = (x if x > float32(0) else -x) > reach
        grad = lines[GRAD + j] * lines[SHOWN + j]
        pull = float32(0) if away else lines[PULL + j] * lines[SHOWN + j]
        rise_u = float32(0) if away else grad * unit
        s = lines[BIN_HEIGHT + j] / lines[BIN_WIDTH + j]
        theta = (lines[PLACE + j] - lines[LEFT + j]) / lines[BIN_WIDTH + j]
        first, second = _slope_of(lines[RAW_FIRST + j]), _slope_of(lines[RAW_SECOND + j])
        rest = float32(1) - theta
        hump, tilt = theta * rest, rest - theta
        bend = first + second - s - s
        below = s * theta * theta + first * hump
        under = float32(1) / (s + bend * hump)
        rise = first * rest * rest + float32(2) * s * hump + second * theta * theta
        high = rise_u * lines[BIN_HEIGHT + j] * under
        grad_under = -(high * below + pull + pull) * under
        grad_rise = pull / rise
        grad_theta = (
            high * (float32(2) * s * theta + first * tilt)
            + grad_under * bend * tilt
            + grad_rise * float32(2) * (s * tilt + second * theta - first * rest)
        )
        grad_s = (
            high * theta * theta
            + grad_under * (float32(1) - hump - hump)
            + float32(2) * (grad_rise * hump + pull / s)
        )
        per_width = grad_theta / lines[BIN_WIDTH + j]
        lines[GRAD_LEFT + j] = -per_width
        lines[GRAD_BOTTOM + j] = rise_u
        lines[GRAD_WIDTH + j] = -per_width * theta - grad_s * s / lines[BIN_WIDTH + j]
        lines[GRAD_HEIGHT + j] = rise_u * below * under + grad_s / lines[BIN_WIDTH + j]
        lines[GRAD_FIRST + j] = (high + grad_under) * hump + grad_rise * rest * rest
        lines[GRAD_SECOND + j] = grad_under * hump + grad_rise * theta * theta
        lines[GRAD + j] = grad if away else per_width / unit


@jit()
@no_type_check
def _pull_sizes(values, grads, at, to, step, size, bins, lines, before, inside):
    """Compute the gradients of the logits of sizes, from those of a corner and of a size."""
    stay_apart()
    floor = float32(_floor(bins))
    index, mean = lines[INDEX : INDEX + size], lines[SUM_WIDTH : SUM_WIDTH + size]
    corner, own = lines[before : before + size], lines[inside : inside + size]
    mean[:] = 0
    for k in range(bins):
        result = grads[to + k * step : to + k * step + size]
        sizes = values[at + k * step : at + k * step + size]
        for j in range(size):
            grad = corner[j] if float32(k) < index[j] else float32(0)
            grad = own[j] if float32(k) == index[j] else grad
            result[j] = grad * (sizes[j] - floor)
        for j in range(size):
            mean[j] += result[j]
    for k in range(bins):
        result = grads[to + k * step : to + k * step + size]
        sizes = values[at + k * step : at + k * step + size]
        for j in range(size):
            result[j] -= (sizes[j] - floor) * mean[j]


@jit()
@no_type_check
def _pull_slopes(grads, to, step, size, bins, lines):
    """Compute the gradients of the parameters of the slopes."""
    stay_apart()
    for j in range(size):
        lines[GRAD_FIRST + j] /= float32(1) + exp(-(lines[RAW_FIRST + j] + SLOPE_OFFSET))
        lines[GRAD_SECOND + j] /= float32(1) + exp(-(lines[RAW_SECOND + j] + SLOPE_OFFSET))
    for k in range(bins - 1):
        result = grads[to + k * step : to + k * step + size]
        for j in range(size):
            grad = lines[GRAD_SECOND + j] if lines[INDEX + j] == float32(k) else float32(0)
            is_next = lines[INDEX + j] == float32(k + 1)
            result[j] = lines[GRAD_FIRST + j] if is_next else grad


@jit()
@no_type_check
def _run_categorical(layer, matrices, index, arrays, panels, rows, context, numbers, loss):
    """Add minus the log probabilities of levels to the losses; outputs become probabilities."""
    stay_apart()
    parameters, values = arrays[0], arrays[2]
    for number in range(layer[MATRICES]):
        _run_matrix(matrices[layer[MATRIX] + number], index, parameters, values, panels, context)
    log_seen, log_unseen = float32(numbers[layer[LOGS]]), float32(numbers[layer[LOGS] + 1])
    lines = np.zeros((2, ROWS), np.float32)
    variables = layer[VARIABLES]
    for panel in range(panels):
        for v in range(variables):
            first, size, is_open = index[layer[STARTS] + 3 * v : layer[STARTS] + 3 * v + 3]
            at = _at(panels, layer[OUT], layer[OUTS], first, panel)
            level = _at(panels, layer[LEVELS], variables, v, panel)
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
            _softmax(values, at, ROWS, size, float32(0), lines[0], lines[1])
            for j in range(min(ROWS, rows - panel * ROWS)):
                d = int64(values[level + j])
                if 0 <= d < size:
                    loss[panel * ROWS + j] += lines[0, j] + log(lines[1, j])


@jit()
@no_type_check
def _pull_categorical(layer, matrices, index, work, panels, context, weight):
    """Compute the gradients of the network of the probabilities."""
    stay_apart()
    values, grads = work[2], work[3]
    variables = layer[VARIABLES]
    for panel in range(panels):
        begin = _at(panels, layer[GRAD_OUT], layer[OUTS], 0, panel)
        grads[begin : begin + layer[OUTS] * ROWS] = 0
        for v in range(variables):
            first, size, _ = index[layer[STARTS] + 3 * v : layer[STARTS] + 3 * v + 3]
            at = _at(panels, layer[OUT], layer[OUTS], first, panel)
            to = begin + first * ROWS
            level = _at(panels, layer[LEVELS], variables, v, panel)
            for k in range(size):
                for j in range(ROWS):
                    d = values[level + j]
                    own = weight[panel * ROWS + j] if d >= float32(0) else float32(0)
                    hit = float32(1) if d == float32(k) else float32(0)
                    grads[to + k * ROWS + j] = own * (values[at + k * ROWS + j] - hit)
    first = layer[MATRIX]
    _pull_network(
        layer,
        matrices[first : first + layer[MATRICES]],
        index,
        work,
        panels,
        context,
        layer[KIND] != CATEGORICAL,
    )


@jit()
@no_type_check
def _moments(layer, i, seen, values, shown, panels):
    """Return mean, variance and number of the observed values of a feature."""
    total, square, count = 0.0, 0.0, 0.0
    for panel in range(panels):
        x = _at(panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = _mask_at(shown, panels, seen, panel)
        for j in range(ROWS):
            total += values[x + j] * shown[mask + j]
            count += shown[mask + j]
    mean = total / max(count, 1.0)
    for panel in range(panels):
        x = _at(panels, layer[SOURCE], layer[WIDTH], i, panel)
        mask = _mask_at(shown, panels, seen, panel)
        for j in range(ROWS):
            apart = (values[x + j] - mean) * shown[mask + j]
            square += apart * apart
    return mean, square / max(count, 1.0), count


@jit()
@no_type_check
def _run_norm(layer, index, arrays, shown, panels, rows, momentum, loss):
    """Normalise the observed values of a batch by their own mean and variance.

    `statistics` holds six lines: those of the batch norm, then mean, 1 / deviation, scale and share
    of one value in them, as they were used.
    """
    stay_apart()
    parameters, values, statistics = arrays[0], arrays[2], arrays[6]
    width, at = layer[WIDTH], layer[STATISTICS]
    for i in range(width):
        seen = index[layer[SEEN] + i]
        mean, variance, count = _moments(layer, i, seen, values, shown, panels)
        share = 1.0 / max(count, 1.0)
        if count < LEAST_OBSERVED and count < rows:
            mean, variance = statistics[at + i], statistics[at + width + i]
            share = 0.0
        if layer[RUNNING]:
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
        to = index[layer[PLACES] + i]
        for panel in range(panels):
            x = _at(panels, layer[SOURCE], width, i, panel)
            u = _at(panels, layer[TARGET], width, to, panel)
            mask = _mask_at(shown, panels, seen, panel)
            for j in range(ROWS):
                values[u + j] = ((values[x + j] - centre) * scale + offset) * shown[mask + j]
                loss[panel * ROWS + j] -= log_scale * shown[mask + j]


@jit()
@no_type_check
def _pull_norm(layer, index, arrays, shown, panels, weight):
    """Compute the gradients of a batch norm, from those of its output."""
    stay_apart()
    gradient, values, grads, statistics = arrays[1], arrays[2], arrays[3], arrays[6]
    width, at = layer[WIDTH], layer[STATISTICS]
    for i in range(width):
        mean, inverse = statistics[at + 2 * width + i], statistics[at + 3 * width + i]
        scale, share = statistics[at + 4 * width + i], statistics[at + 5 * width + i]
        seen, to = index[layer[SEEN] + i], index[layer[PLACES] + i]
        offset, gain, weights = 0.0, 0.0, 0.0
        for panel in range(panels):
            x = _at(panels, layer[SOURCE], width, i, panel)
            g = _at(panels, layer[GRAD_TARGET], width, to, panel)
            mask = _mask_at(shown, panels, seen, panel)
            for j in range(ROWS):
                grad = grads[g + j] * shown[mask + j]
                offset += grad
                gain += grad * (values[x + j] - mean)
                weights += weight[panel * ROWS + j] * shown[mask + j]
        gain = gain * scale - weights
        gradient[layer[OFFSET] + i], gradient[layer[GAIN] + i] = offset, gain
        pull = float32(share * offset * scale)
        bend = float32(share * gain * inverse * inverse)
        for panel in range(panels):
            x = _at(panels, layer[SOURCE], width, i, panel)
            g = _at(panels, layer[GRAD_TARGET], width, to, panel)
            to_x = _at(panels, layer[GRAD_SOURCE], width, i, panel)
            mask = _mask_at(shown, panels, seen, panel)
            for j in range(ROWS):
                apart = values[x + j] - mean
                grads[to_x + j] = (grads[g + j] * scale - pull - apart * bend) * shown[mask + j]


@jit()
@no_type_check
def _weigh_losses(loss, rows, bound, weight):
    """Set the weight of each row's loss in the gradient (`flows.training.robust`)."""
    share = float32(1) / float32(rows)
    if bound <= 0:
        for j in range(rows):
            weight[j] = share
        return
    ordered = np.sort(loss[:rows])
    middle = ordered[rows * 2 // 4]
    spread = ordered[rows * 3 // 4] - ordered[rows // 4]
    if spread < LEAST_SPREAD:
        spread = LEAST_SPREAD
    fence = middle + bound * spread
    for j in range(rows):
        excess = loss[j] - fence
        if excess > LARGEST:
            weight[j] = 0
        elif excess > 0:
            weight[j] = share / (float32(1) + excess / spread)
        else:
            weight[j] = share


@jit()
@no_type_check
def _read(rows, places, values, panels, block, width):
    """Copy rows into a block, features first; missing rows are 0."""
    for panel in range(panels):
        for i in range(rows.shape[1]):
            at = _at(panels, block, width, places[i], panel)
            for j in range(ROWS):
                row = panel * ROWS + j
                values[at + j] = rows[row, i] if row < len(rows) else float32(0)


@jit()
@no_type_check
def _score(u, shown, panels, width, values, loss):
    """Add the negative log density of the noise to the losses."""
    half_log = float32(0.91893853320467274)
    for panel in range(panels):
        for i in range(width):
            at = _at(panels, u, width, i, panel)
            mask = _mask_at(shown, panels, i, panel)
            for j in range(ROWS):
                noise = values[at + j]
                loss[panel * ROWS + j] += float32(0.5) * noise * noise + half_log * shown[mask + j]


@jit()
@no_type_check
def _pull_score(blocks, panels, width, values, grads, weight):
    """Compute the gradients of the noise."""
    for panel in range(panels):
        for i in range(width):
            u = _at(panels, blocks[0], width, i, panel)
            g = _at(panels, blocks[1], width, i, panel)
            for j in range(ROWS):
                grads[g + j] = values[u + j] * weight[panel * ROWS + j]


@jit()
@no_type_check
def _read_batch(batch, places, arrays, shown, panels, blocks):
    """Copy rows, context, mask and levels into their blocks."""
    rows, given, observed, levels = batch
    values, turned_context = arrays[2], arrays[5]
    if observed.shape[1] > 0:
        _read(observed, np.arange(observed.shape[1]), shown, panels, 0, observed.shape[1])
    else:
        for j in range(panels * ROWS):
            shown[j] = float32(1) if j < len(rows) else float32(0)
    _read(rows, places, values, panels, blocks[1], rows.shape[1])
    for panel in range(panels):
        for i in range(rows.shape[1]):
            at = _at(panels, blocks[1], rows.shape[1], places[i], panel)
            mask = _mask_at(shown, panels, i, panel)
            for j in range(ROWS):
                values[at + j] = values[at + j] if shown[mask + j] > 0 else float32(0)
    _read(levels, np.arange(levels.shape[1]), values, panels, blocks[2], levels.shape[1])
    width = given.shape[1]
    if width > 0:
        _read(given, np.arange(width), values, panels, blocks[0], width)
        line = width + -width % (LANES * VECTORS)
        _turn(values, panels, blocks[0], width, 0, 1, width, turned_context, line)


_INTEGERS, _LINES = int64[::1], int64[:, ::1]
_SINGLES, _TABLE = float32[::1], float32[:, ::1]


@jit(
    float64(
        types.UniTuple(_TABLE, 4), _LINES, _LINES, _INTEGERS, _INTEGERS,
        types.UniTuple(_SINGLES, 10), float64[::1],
    )
)  # fmt: skip
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
            statistics, mask, losses and weights of the losses.
        numbers: Weight of the past in running statistics; bound of the losses of rows, in spreads,
            0 for none; and what the layers refer to.
    """
    n, width = batch[0].shape
    panels = -(-n // ROWS)
    context = (sizes[0], batch[1].shape[1])
    lines = max(1, batch[2].shape[1])
    values, grads = arrays[2], arrays[3]
    shown, loss = arrays[7][: panels * ROWS * lines], arrays[8][: panels * ROWS]
    weight = arrays[9][: panels * ROWS]
    loss[:], weight[:] = 0, 0
    _read_batch(batch, index[sizes[3] :], arrays, shown, panels, sizes)
    for number in range(len(layers)):
        layer = layers[number]
        if layer[KIND] == NORM:
            _run_norm(layer, index, arrays, shown, panels, n, numbers[0], loss)
        elif layer[KIND] == SPLINE:
            _run_spline(layer, matrices, index, arrays, shown, panels, context, numbers, loss)
        elif layer[KIND] == CATEGORICAL:
            _run_categorical(layer, matrices, index, arrays, panels, n, context, numbers, loss)
        else:
            _run_affine(layer, matrices, index, arrays[0], values, shown, panels, context, loss)
    last = layers[len(layers) - 1]
    first = 1 if layers[0, KIND] == CATEGORICAL else 0
    _score(last[TARGET], shown, panels, width, values, loss)
    _weigh_losses(loss, n, float32(numbers[1]), weight)
    _pull_score((last[TARGET], last[GRAD_TARGET]), panels, width, values, grads, weight)
    work = (*arrays[:6], np.empty(UNITS * ROWS, np.float32), np.zeros(UNITS, np.float32))
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        if layer[KIND] == NORM:
            _pull_norm(layer, index, arrays, shown, panels, weight)
        elif layer[KIND] == SPLINE:
            _pull_spline(
                layer,
                matrices,
                index,
                work,
                shown,
                panels,
                context,
                numbers,
                weight,
                number > first,
            )
        elif layer[KIND] == CATEGORICAL:
            _pull_categorical(layer, matrices, index, work, panels, context, weight)
        else:
            _pull_affine(
                layer, matrices, index, work, shown, panels, context, weight, number > first
            )
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
        some = float32(0)
        for k in range(start, start + length):
            some += gradient[k] * gradient[k]
        total += some
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
    clip, keep = float32(clip), float32(1 - rate * decay if decoupled else 1)
    pull = float32(0 if decoupled else decay)
    new1, new2 = float32(1 - BETA1), float32(1 - BETA2)
    old2 = float32(BETA2)
    rise = float32(rate / (1 - BETA1**count))
    root = float32(1 / np.sqrt(1 - BETA2**count))
    follow, eps = float32(share), float32(1e-8)
    for number in range(len(segments)):
        start, length = segments[number]
        for k in range(start, start + length):
            p = parameters[k] * keep
            g = gradient[k] * clip + pull * p
            m = first[k] + (g - first[k]) * new1
            v = old2 * second[k] + new2 * g * g
            first[k], second[k] = m, v
            parameters[k] = p - rise * m / (np.sqrt(v) * root + eps)
        if len(average) > 0:
            for k in range(start, start + length):
                average[k] += (parameters[k] - average[k]) * follow
