"""Compiled loops for chains of masked autoregressive and of coupling layers on a processor.

Rows are taken in tiles, features first, a row in each lane of the vector unit; a single row has
the lanes filled with units instead. Micro-kernels keep a block of results in registers, and every
product stops at the last weight that the masks let through: either direction costs a layer half
of the dense arithmetic.

Weights stand in panels of `PANEL` units, `weight[input, unit]`, which end where the last of the
units sees no further input, so they are read from one end to the other. A layer's elementwise map is
called by its address (`flows.compiled.maps`), so that only the maps of a flow need compiling.
`flows.compiled.packing` lays all of it out.

Importing this module compiles it, or reads what an earlier import left in numba's cache: beside
the source or, where that is read-only, in the user's cache folder. No
function keeps state: threads may share what they pass, and run in parallel.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.compiled.functions import erf, exp, jit, tanh
from flows.compiled.micro_kernels import (
    LANES,
    PANEL,
    TOGETHER,
    UNITS,
    VECTORS,
    call_map,
    row_blocks,
    stay_apart,
    tile_block_of,
    word,
)
from flows.compiled.packed_fields import (
    ACTIVATION,
    ACTIVATION_2,
    CONTEXT,
    CONTEXT_DIM,
    DIM,
    END,
    FIRST,
    GIVEN,
    HAS_DENSITY,
    INVERTED,
    KNOWN,
    LEVELS,
    LINES,
    LINES_2,
    MAP,
    MASKED,
    MATRICES,
    NOISE_MASKS,
    STATES,
    TILE_UNITS,
    VARIABLES,
)

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Number of rows from which on a tile that is not full beats single rows.
TILE_FROM = 3
# Units computed before their activations are, so that these find them in the nearest cache.
HOT_UNITS = 64
# Features that the sampler takes at a time, or more if they have fewer hidden units than this.
BLOCK_FEATURES, BLOCK_UNITS = 4, 32

ACTIVATIONS = ("relu", "sigmoid", "elu", "gelu", "tanh")
RELU, SIGMOID, ELU, GELU = range(4)
# Directions of a map, as in `flows.compiled.maps`.
INVERSE, FORWARD, DENSITY = range(3)
# The line of a matrix: its number of units; the offset of their values in a work space, counted in
# units; and the addresses of the biases, of the panels' addresses, and of how many units of the
# layer below each unit sees.
WIDTH, PLACE, BIASES, PANELS, REACH = range(5)
LINE_BYTES = 40
LOG_TWO_PI = np.log(2 * np.pi)
# Start values of a product.
FROM_THERE, FROM_BIASES = range(2)


_narrow_1, _narrow_2, _narrow_4, _narrow_all = (tile_block_of(n, 1) for n in (1, 2, 4, UNITS))
_wide_1, _wide_2, _wide_4, _wide_all = (tile_block_of(n, VECTORS) for n in (1, 2, 4, UNITS))


@jit()
@no_type_check
def _activate(kind, h):  # noqa: C901  one loop for each activation
    """Apply an activation in place."""
    stay_apart()
    if kind == RELU:
        for j in range(len(h)):
            h[j] = float32(0) if h[j] < float32(0) else h[j]
    elif kind == SIGMOID:
        for j in range(len(h)):
            h[j] = float32(0.5) + float32(0.5) * tanh(float32(0.5) * h[j])
    elif kind == ELU:
        for j in range(len(h)):
            h[j] = exp(h[j]) - float32(1) if h[j] < float32(0) else h[j]
    elif kind == GELU:
        for j in range(len(h)):
            h[j] = float32(0.5) * h[j] * (float32(1) + erf(h[j] * float32(0.70710678118654752)))
    else:
        for j in range(len(h)):
            h[j] = tanh(h[j])


@jit()
@no_type_check
def _tile_block(weight, bias, depth, source, out, units, vectors):
    """Return the micro-kernel for this number of units and vectors."""
    if vectors == VECTORS:
        if units == UNITS:
            _wide_all(weight, bias, depth, source, out)
        elif units == 4:
            _wide_4(weight, bias, depth, source, out)
        elif units == 2:
            _wide_2(weight, bias, depth, source, out)
        else:
            _wide_1(weight, bias, depth, source, out)
    elif units == UNITS:
        _narrow_all(weight, bias, depth, source, out)
    elif units == 4:
        _narrow_4(weight, bias, depth, source, out)
    elif units == 2:
        _narrow_2(weight, bias, depth, source, out)
    else:
        _narrow_1(weight, bias, depth, source, out)


@jit()
@no_type_check
def _product(line, units, inputs, start, space, below, vectors):
    """Compute some units of one layer from a range of the layer below, as far as they see it.

    Args:
        line: Address of the matrix line.
        units: First unit, and the one after the last.
        inputs: First input, and the one after the last.
        start: Start values: the biases, or the present values.
        space: Address of the tile.
        below: Offset of the values of the layer below.
        vectors: Number of vectors of rows in the tile; 0 is a single row.
    """
    stay_apart()
    panels, reach = word(line, PANELS), word(line, REACH)
    row = 4 * LANES * vectors if vectors > 0 else 4
    source = space + row * (below + inputs[0])
    place = space + row * word(line, PLACE)
    biases = word(line, BIASES) if start == FROM_BIASES else 0
    unit = units[0]
    while unit < units[1]:
        if vectors == 0:
            end = min(unit // PANEL * PANEL + TOGETHER * PANEL, units[1])
            row_blocks(panels, reach, (unit, end), inputs, biases, source, place)
            unit = end
            continue
        lane = unit % PANEL
        count = min(PANEL - lane, units[1] - unit)
        count = UNITS if count >= UNITS else 4 if count >= 4 else 2 if count >= 2 else 1
        depth = min(inputs[1], word(reach, unit + count - 1)) - inputs[0]
        weight = word(panels, unit // PANEL) + 4 * (PANEL * inputs[0] + lane)
        bias = biases + 4 * unit if start == FROM_BIASES else 0
        _tile_block(weight, bias, depth, source, place + row * unit, count, vectors)
        unit += count


@jit()
@no_type_check
def _run_network(lines, matrices, activation, space, size, source):
    """Compute all units of a network from the values at `source`; return its outputs' offset."""
    stay_apart()
    below = source
    for index in range(matrices):
        line = lines + LINE_BYTES * index
        place, width = word(line, PLACE), word(line, WIDTH)
        for start in range(0, width, HOT_UNITS):
            stop = min(start + HOT_UNITS, width)
            inputs = int64(0), word(word(line, REACH), stop - 1)
            address, vectors = space.ctypes.data, size // LANES
            _product(line, (start, stop), inputs, FROM_BIASES, address, below, vectors)
            if index < matrices - 1:
                _activate(activation, space[(place + start) * size : (place + stop) * size])
        below = place
    return below


@jit()
@no_type_check
def _run_networks(layer, space, size, inputs):
    """Compute a layer's networks; return the offset of the first parameter, and the step to the next."""
    matrices = layer[MATRICES]
    out = _run_network(layer[LINES], matrices, layer[ACTIVATION], space, size, inputs)
    if layer[LINES_2] == 0:
        return out, 1
    second = _run_network(layer[LINES_2], matrices, layer[ACTIVATION_2], space, size, inputs)
    return out, second - out


@jit()
@no_type_check
def _map(layer, direction, features, parameters, step, cells, source, read, target, write, total):
    """Map some features of a tile.

    Args:
        layer: Integers of the layer.
        direction: Direction of the map.
        features: First feature, and the one after the last.
        parameters: Offset of the parameters of all features.
        step: Offset from a parameter to the next one.
        cells: View of the tile, units by rows.
        source: Offset of the values.
        read: Position of each feature from `source`.
        target: Offset of the results.
        write: Position of each feature from `target`.
        total: Log-determinants of the rows, added to.
    """
    words = (
        int64(direction),
        int64(layer.ctypes.data),
        features[0],
        features[1],
        int64(cells.ctypes.data),
        cells.shape[1],
        parameters,
        int64(step),
        source,
        int64(read.ctypes.data),
        target,
        int64(write.ctypes.data),
        int64(total.ctypes.data),
    )
    call_map(layer[MAP], words)


@jit()
@no_type_check
def _copy_others(layer, cells, source, target, read, write):
    """Copy the features that a layer does not map."""
    for i in range(len(read)):
        if i < layer[FIRST] or i >= layer[END]:
            x, y = source + read[i], target + write[i]
            for j in range(cells.shape[1]):
                cells[y, j] = cells[x, j]


@jit()
@no_type_check
def _at_once(layer, direction, space, cells, inputs, source, target, read, write, total):
    """Map all features of a tile by parameters that its networks compute at once.

    Args:
        layer: Integers of the layer.
        direction: Direction of the map.
        space: Work space of the tile.
        cells: View of the tile, units by rows.
        inputs: Offset of what the networks read.
        source: Offset of the values.
        target: Offset of the results.
        read: Position of each feature from `source`.
        write: Position of each feature from `target`.
        total: Log-determinants of the rows, added to.
    """
    stay_apart()
    _copy_others(layer, cells, source, target, read, write)
    out, step = _run_networks(layer, space, cells.shape[1], inputs)
    features = layer[FIRST], layer[END]
    _map(layer, direction, features, out, step, cells, source, read, target, write, total)


@jit()
@no_type_check
def _one_by_one(layer, space, cells, inputs, source, target, read, in_order, total):
    """Map noise to data, one masked layer, for a tile; each hidden unit is computed once.

    Features are taken in blocks: large products bring in what finished features contribute to a
    whole block, small ones do the rest inside it.

    Args:
        layer: Integers of the layer.
        space: Work space of the tile.
        cells: View of the tile, units by rows.
        inputs: Offset of what the network reads.
        source: Offset of the layer's noise.
        target: Offset of the data to write.
        read: Position of each feature's noise from `source`.
        in_order: Numbers of the features.
        total: Log-determinants of the rows, added to.
    """
    stay_apart()
    size, dim = cells.shape[1], layer[END]
    address, vectors = space.ctypes.data, size // LANES
    last, kind = layer[MATRICES] - 1, layer[ACTIVATION]
    end_line = layer[LINES] + LINE_BYTES * last
    out = word(end_line, PLACE)
    deepest = word(end_line - LINE_BYTES, PLACE) if last > 0 else inputs
    width = word(layer[LINES], WIDTH)
    block = max(BLOCK_FEATURES, BLOCK_UNITS * dim // width)
    step = dim + 1
    for i in range(dim, len(read)):
        for j in range(size):
            cells[target + i, j] = cells[source + read[i], j]
    _known_first(layer, space, size, inputs)
    for begin in range(0, dim, block):
        end = min(begin + block, dim)
        below, line, known = inputs, layer[LINES], layer[KNOWN]
        for _ in range(last + 1):
            units = word(known, step + begin), word(known, step + end)
            _product(
                line, units, (int64(0), word(known, begin)), FROM_BIASES, address, below, vectors
            )
            below, line, known = word(line, PLACE), line + LINE_BYTES, known + 8 * step
        known -= 8 * step
        for i in range(begin, end):
            seen = word(known, begin), word(known, i)
            units = word(known, step + i), word(known, step + i + 1)
            _product(end_line, units, seen, FROM_THERE, address, deepest, vectors)
            feature = int64(i), int64(i + 1)
            _map(layer, FORWARD, feature, out, 1, cells, source, read, target, in_order, total)
            if layer[LEVELS] != 0:
                _mark_level(layer, cells, inputs, target, i)
            below, line, known = inputs, layer[LINES], layer[KNOWN]
            for _ in range(last):
                units = word(known, step + i), word(known, step + i + 1)
                seen = word(known, begin), word(known, i + 1)
                _product(line, units, seen, FROM_THERE, address, below, vectors)
                below, line, known = word(line, PLACE), line + LINE_BYTES, known + 8 * step
                first, after = (below + units[0]) * size, (below + units[1]) * size
                _activate(kind, space[first:after])


@jit()
@no_type_check
def _known_first(layer, space, size, inputs):
    """Compute the hidden units that a context alone makes known."""
    below, line, known = inputs, layer[LINES], layer[KNOWN]
    step = layer[END] + 1
    for _ in range(layer[MATRICES] - 1):
        units = int64(0), word(known, step)
        seen = int64(0), word(known, 0)
        _product(line, units, seen, FROM_BIASES, space.ctypes.data, below, size // LANES)
        below, line, known = word(line, PLACE), line + LINE_BYTES, known + 8 * step
        _activate(layer[ACTIVATION], space[below * size : (below + units[1]) * size])


@jit()
@no_type_check
def _mark_level(layer, cells, inputs, indices, variable):
    """Set the input of a variable's level to 1, and those of its other levels to 0."""
    first, end = word(layer[KNOWN], variable), word(layer[KNOWN], variable + 1)
    for slot in range(first, end):
        level = float32(slot - first)
        for j in range(cells.shape[1]):
            is_level = cells[indices + variable, j] == level
            cells[inputs + slot, j] = float32(1) if is_level else float32(0)


@jit()
@no_type_check
def _rows_in_tile(left, single):
    """Return the number of rows of the next tile."""
    return 1 if single else LANES * VECTORS if left > LANES else LANES


@jit()
@no_type_check
def _space(n, units):
    """Return a work space for tiles of this number of units, aligned to a cache line."""
    numbers = units * _rows_in_tile(n, n < TILE_FROM)
    raw = np.empty(numbers + LANES, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % LANES
    return raw[skip : skip + numbers]


@jit()
@no_type_check
def _indices(shape):
    """Return the offset of the indices of the variables, after context and features, twice."""
    return 2 * (shape[CONTEXT_DIM] + shape[DIM])


@jit()
@no_type_check
def _read_column(rows, column, start, cells, unit):
    """Copy a column of the rows from `start` on into a tile."""
    size = cells.shape[1]
    count = min(size, len(rows) - start)
    for j in range(count):
        cells[unit, j] = rows[start + j, column]
    for j in range(count, size):
        cells[unit, j] = 0


@jit()
@no_type_check
def _read(rows, start, shape, shift, scale, cells, places, indices):
    """Copy rows from `start` on into a tile: variables, features less shift and scaled, context.

    Args:
        rows: Rows to copy from.
        start: First row of the tile.
        shape: Shape of the flow.
        shift: Shift of each feature.
        scale: Scale of each feature.
        cells: View of the tile, units by rows.
        places: Position of each feature.
        indices: Offset of the variables.
    """
    size = cells.shape[1]
    count = min(size, len(rows) - start)
    variables, dim, context = shape[VARIABLES], shape[DIM], shape[CONTEXT_DIM]
    for i in range(variables):
        _read_column(rows, i, start, cells, indices + i)
    for i in range(dim):
        unit = context + places[i]
        for j in range(count):
            cells[unit, j] = (rows[start + j, variables + i] - shift[i]) / scale[i]
        for j in range(count, size):
            cells[unit, j] = 0
    for i in range(shape[GIVEN]):
        _read_column(rows, variables + dim + i, start, cells, i)


@jit()
@no_type_check
def _condition(shape, cells):
    """Copy the context to the second place of the features, and set the masks."""
    context, dim, size = shape[CONTEXT_DIM], shape[DIM], cells.shape[1]
    for i in range(context):
        for j in range(size):
            cells[context + dim + i, j] = cells[i, j]
    if shape[STATES] == 0:
        return
    indices = _indices(shape)
    masks = indices + 2 * shape[VARIABLES]
    for i in range(dim):
        state = word(shape[STATES], i)
        for j in range(size):
            seen = state < 0 or cells[indices + state, j] == float32(0)
            cells[masks + i, j] = float32(1) if seen else float32(0)


@jit()
@no_type_check
def _mask_noise(shape, cells):
    """Set the noise of features that are not observed to 0."""
    for i in range(shape[DIM]):
        mask = word(shape[NOISE_MASKS], i)
        for j in range(cells.shape[1]):
            if cells[mask, j] == 0:
                cells[shape[CONTEXT_DIM] + i, j] = 0


@jit()
@no_type_check
def _score_levels(shape, layer, space, cells, indices, order, total):
    """Add the log probabilities of the variables of a tile, and mark their levels in the context."""
    for variable in range(shape[VARIABLES]):
        _mark_level(layer, cells, 0, indices, variable)
    _at_once(layer, INVERSE, space, cells, int64(0), indices, indices, order, order, total)


@jit()
@no_type_check
def _write_noise(shape, affine, cells, source, start, noise, squares):
    """Write the noise of a tile from `start` on, and the sums of its squares and of log(2 pi)."""
    count = min(cells.shape[1], len(squares) - start)
    for j in range(count):
        squares[start + j] = 0
    for i in range(shape[DIM]):
        mask = word(shape[NOISE_MASKS], i) if shape[NOISE_MASKS] != 0 else int64(-1)
        for j in range(count):
            u = affine[2, i] + affine[3, i] * cells[source + i, j]
            if mask < 0 or cells[mask, j] > 0:
                squares[start + j] += u * u + LOG_TWO_PI
            if noise.shape[1] > 0:
                noise[start + j, i] = u


@jit()
@no_type_check
def _write_rows(shape, affine, cells, source, start, places, rows):
    """Write the data of a tile from `start` on: indices of the variables, then features."""
    count = min(cells.shape[1], len(rows) - start)
    variables, indices = shape[VARIABLES], _indices(shape)
    for i in range(variables):
        for j in range(count):
            rows[start + j, i] = cells[indices + i, j]
    for i in range(shape[DIM]):
        x = source + places[i]
        for j in range(count):
            rows[start + j, variables + i] = affine[0, i] + affine[1, i] * cells[x, j]


@jit()
@no_type_check
def _invert_tile(shape, layers, places, in_order, direction, space, cells, total):
    """Invert all layers, from data in the first place; return the offset of the noise."""
    dim, context = shape[DIM], shape[CONTEXT_DIM]
    source, target = context, 2 * context + dim
    for index in range(len(layers)):
        layer, to = layers[index], places[index + 1]
        given = layer[CONTEXT]
        if layer[INVERTED] == 0:
            way = direction if layer[HAS_DENSITY] != 0 else INVERSE
            _at_once(layer, way, space, cells, source - given, source, target, in_order, to, total)
            source, target = target, source
            continue
        if layer[MASKED] != 0:
            _one_by_one(
                layer, space, cells, target - given, source, target, in_order, in_order, total
            )
        else:
            inputs = target - given
            _at_once(
                layer, FORWARD, space, cells, inputs, source, target, in_order, in_order, total
            )
        for i in range(dim):
            for j in range(cells.shape[1]):
                cells[source + to[i], j] = cells[target + i, j]
    return source


@jit()
@no_type_check
def _sample_tile(shape, layers, places, in_order, space, cells, total):
    """Sample through all layers, from noise in the first place; return the offset of the data."""
    dim, context = shape[DIM], shape[CONTEXT_DIM]
    source, target = context, 2 * context + dim
    for index in range(len(layers) - 1, -1, -1):
        layer, to = layers[index], places[index + 1]
        inputs = target - layer[CONTEXT]
        if layer[INVERTED] != 0:
            for i in range(dim):
                for j in range(cells.shape[1]):
                    cells[target + i, j] = cells[source + to[i], j]
            _at_once(
                layer, INVERSE, space, cells, inputs, target, source, in_order, in_order, total
            )
            continue
        if layer[MASKED] != 0:
            _one_by_one(layer, space, cells, inputs, source, target, to, in_order, total)
        else:
            _at_once(layer, FORWARD, space, cells, inputs, source, target, to, in_order, total)
        source, target = target, source
    return source


_LINES = types.Array(int64, 2, "C", readonly=True)
_SHAPE = types.Array(int64, 1, "C", readonly=True)
_DOUBLES = types.Array(float64, 2, "C", readonly=True)
_MODEL = (_SHAPE, _LINES, _LINES, _LINES, _DOUBLES)
_TABLE, _NUMBERS = float64[:, ::1], float64[::1]


@jit(types.void(_DOUBLES, *_MODEL, int64, _TABLE, *[_NUMBERS] * 3))
@no_type_check
def invert(
    rows, shape, layers, levels, places, affine, direction, noise, log_det, squares, discrete
):
    """Map data to noise.

    Args:
        rows: Rows of data: indices of the variables, features, and context.
        shape: Shape of the flow.
        layers: Layers of the flow, as integers.
        levels: Layer of the variables' levels, or no line.
        places: Position of each feature of a layer's noise in the input of the next layer; the
            first line is for the rows themselves.
        affine: Four lines: mean and deviation of the data, and shift and scale of the noise.
        direction: `INVERSE`, or `DENSITY` for the densities of layers that have one.
        noise: Result buffer, or an array without columns.
        log_det: Result buffer: log|det du/dx|, without constants.
        squares: Result buffer: the sum of u^2 + log(2 pi) over the noise u of observed features.
        discrete: Result buffer: the log probability of the variables.
    """
    n, start, dim = len(rows), 0, shape[DIM]
    units, indices = shape[TILE_UNITS], _indices(shape)
    space, in_order = _space(n, units), np.arange(max(dim, shape[VARIABLES]))
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total, discrete_total = np.zeros(size), np.zeros(size)
        _read(rows, start, shape, affine[0], affine[1], cells, places[0], indices)
        for index in range(len(levels)):
            order = in_order[: shape[VARIABLES]]
            _score_levels(shape, levels[index], space, cells, indices, order, discrete_total)
        _condition(shape, cells)
        source = _invert_tile(shape, layers, places, in_order[:dim], direction, space, cells, total)
        _write_noise(shape, affine, cells, source, start, noise, squares)
        count = min(size, n - start)
        log_det[start : start + count] = total[:count]
        discrete[start : start + count] = discrete_total[:count]
        start += count


@jit(types.void(_DOUBLES, *_MODEL, _TABLE, _NUMBERS))
@no_type_check
def sample(noise, shape, layers, levels, places, affine, rows, log_det):
    """Map noise to data.

    Args:
        noise: Rows of noise: for the variables, then for the features, and context.
        shape: Shape of the flow, as for `invert`.
        layers: Layers of the flow, as for `invert`.
        levels: Layer of the variables' levels, as for `invert`.
        places: Positions of features, as for `invert`.
        affine: Means, deviations, shifts and scales, as for `invert`.
        rows: Result buffer of the data: indices of the variables, then features.
        log_det: Result buffer: log|det dx/du|, without constants.
    """
    n, start, dim, variables = len(noise), 0, shape[DIM], shape[VARIABLES]
    units, indices = shape[TILE_UNITS], _indices(shape)
    space, in_order = _space(n, units), np.arange(max(dim, variables))
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total = np.zeros(size)
        drawn = indices + variables
        _read(noise, start, shape, affine[2], affine[3], cells, in_order[:dim], drawn)
        for index in range(len(levels)):
            order = in_order[:variables]
            _one_by_one(levels[index], space, cells, int64(0), drawn, indices, order, order, total)
        _condition(shape, cells)
        if shape[NOISE_MASKS] != 0:
            _mask_noise(shape, cells)
        source = _sample_tile(shape, layers, places, in_order[:dim], space, cells, total)
        _write_rows(shape, affine, cells, source, start, places[0], rows)
        count = min(size, n - start)
        log_det[start : start + count] = total[:count]
        start += count
