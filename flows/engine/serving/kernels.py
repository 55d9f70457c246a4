"""Compiled loops for chains of masked autoregressive and of coupling layers on a processor.

Rows are taken in tiles, features first, a row in each lane of the vector unit; a single row has
the lanes filled with units instead. Micro-kernels keep a block of results in registers, and every
product stops at the last weight that the masks let through: either direction costs a layer half
of the dense arithmetic.

Weights stand in panels of `PANEL` units, `weight[input, unit]`, which end where the last of the
units sees no further input, so they are read from one end to the other. A layer's elementwise map is
called by its address (`flows.engine.maps`), so that only the maps of a flow need compiling.
`flows.engine.serving.packing` lays all of it out.

Importing this module compiles it, or reads what an earlier import left in numba's cache: beside
the source or, where that is read-only, in the user's cache folder. No
function keeps state: threads may share what they pass, and run in parallel.
"""

import numpy as np
from numba import float32, float64, int64, types

from flows.engine import fields
from flows.engine.blocks import LANES, ROWS, word
from flows.engine.loop_cache import jit
from flows.engine.serving.networks import map_at_once, map_one_by_one, mark_level

# mypy: ignore-errors
# numba compiles these functions by its own types.


# Number of rows from which on a tile that is not full beats single rows.
_TILE_FROM = 3
_LOG_TWO_PI = np.log(2 * np.pi)


@jit()
def _rows_in_tile(left, single):
    """Return the number of rows of the next tile."""
    return 1 if single else ROWS if left > LANES else LANES


@jit()
def _make_space(n, units):
    """Return a work space for tiles of this number of units, aligned to a cache line."""
    numbers = units * _rows_in_tile(n, n < _TILE_FROM)
    raw = np.empty(numbers + LANES, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % LANES
    return raw[skip : skip + numbers]


@jit()
def _place_of_indices(shape):
    """Return the offset of the indices of the variables, after context and features, twice."""
    return 2 * (shape[fields.CONTEXT_DIM] + shape[fields.DIM])


@jit()
def _read_column(rows, column, start, cells, unit):
    """Copy a column of the rows from `start` on into a tile."""
    size = cells.shape[1]
    count = min(size, len(rows) - start)
    for j in range(count):
        cells[unit, j] = rows[start + j, column]
    for j in range(count, size):
        cells[unit, j] = 0


@jit()
def _read_rows(rows, start, shape, shift, scale, cells, places, indices):
    """Copy rows from `start` on into a tile: variables, features less shift and scaled, context."""
    size = cells.shape[1]
    count = min(size, len(rows) - start)
    variables, dim, context = shape[fields.VARIABLES], shape[fields.DIM], shape[fields.CONTEXT_DIM]
    for i in range(variables):
        _read_column(rows, i, start, cells, indices + i)
    for i in range(dim):
        unit = context + places[i]
        for j in range(count):
            cells[unit, j] = (rows[start + j, variables + i] - shift[i]) / scale[i]
        for j in range(count, size):
            cells[unit, j] = 0
    for i in range(shape[fields.GIVEN]):
        _read_column(rows, variables + dim + i, start, cells, i)


@jit()
def _set_context(shape, cells):
    """Copy the context to the second place of the features, and set the masks."""
    context, dim, size = shape[fields.CONTEXT_DIM], shape[fields.DIM], cells.shape[1]
    for i in range(context):
        for j in range(size):
            cells[context + dim + i, j] = cells[i, j]
    if shape[fields.STATES] == 0:
        return
    indices = _place_of_indices(shape)
    masks = indices + 2 * shape[fields.VARIABLES]
    for i in range(dim):
        state = word(shape[fields.STATES], i)
        for j in range(size):
            seen = state < 0 or cells[indices + state, j] == float32(0)
            cells[masks + i, j] = float32(1) if seen else float32(0)


@jit()
def _mask_noise(shape, cells):
    """Set the noise of features that are not observed to 0."""
    for i in range(shape[fields.DIM]):
        mask = word(shape[fields.NOISE_MASKS], i)
        for j in range(cells.shape[1]):
            if cells[mask, j] == 0:
                cells[shape[fields.CONTEXT_DIM] + i, j] = 0


@jit()
def _write_noise(shape, cells, source, start, noise, squares):
    """Write the noise of a tile from `start` on, and the sums of its squares and of log(2 pi)."""
    count = min(cells.shape[1], len(squares) - start)
    for j in range(count):
        squares[start + j] = 0
    for i in range(shape[fields.DIM]):
        mask = word(shape[fields.NOISE_MASKS], i) if shape[fields.NOISE_MASKS] != 0 else int64(-1)
        for j in range(count):
            u = float64(cells[source + i, j])
            if mask < 0 or cells[mask, j] > 0:
                squares[start + j] += u * u + _LOG_TWO_PI
            if noise.shape[1] > 0:
                noise[start + j, i] = u


@jit()
def _write_rows(shape, affine, cells, source, start, places, rows):
    """Write the data of a tile from `start` on: indices of the variables, then features."""
    count = min(cells.shape[1], len(rows) - start)
    variables, indices = shape[fields.VARIABLES], _place_of_indices(shape)
    for i in range(variables):
        for j in range(count):
            rows[start + j, i] = cells[indices + i, j]
    for i in range(shape[fields.DIM]):
        x = source + places[i]
        for j in range(count):
            rows[start + j, variables + i] = affine[0, i] + affine[1, i] * cells[x, j]


@jit()
def _score_levels(shape, layer, space, cells, indices, order, total):
    """Add the log probabilities of the variables of a tile, and mark their levels in the context."""
    for variable in range(shape[fields.VARIABLES]):
        mark_level(layer, cells, 0, indices, variable)
    map_at_once(
        layer, fields.INVERSE, space, cells, int64(0), indices, indices, order, order, total
    )


@jit()
def _invert_tile(shape, layers, places, in_order, direction, space, cells, total):
    """Invert all layers, from data in the first place; return the offset of the noise."""
    dim, context = shape[fields.DIM], shape[fields.CONTEXT_DIM]
    source, target = context, 2 * context + dim
    for index in range(len(layers)):
        layer, to = layers[index], places[index + 1]
        given = layer[fields.CONTEXT]
        if layer[fields.INVERTED] == 0:
            way = direction if layer[fields.HAS_DENSITY] != 0 else fields.INVERSE
            map_at_once(
                layer, way, space, cells, source - given, source, target, in_order, to, total
            )
            source, target = target, source
            continue
        if layer[fields.MASKED] != 0:
            map_one_by_one(
                layer, space, cells, target - given, source, target, in_order, in_order, total
            )
        else:
            inputs = target - given
            map_at_once(
                layer,
                fields.FORWARD,
                space,
                cells,
                inputs,
                source,
                target,
                in_order,
                in_order,
                total,
            )
        for i in range(dim):
            for j in range(cells.shape[1]):
                cells[source + to[i], j] = cells[target + i, j]
    return source


@jit()
def _sample_tile(shape, layers, places, in_order, space, cells, total):
    """Sample through all layers, from noise in the first place; return the offset of the data."""
    dim, context = shape[fields.DIM], shape[fields.CONTEXT_DIM]
    source, target = context, 2 * context + dim
    for index in range(len(layers) - 1, -1, -1):
        layer, to = layers[index], places[index + 1]
        inputs = target - layer[fields.CONTEXT]
        if layer[fields.INVERTED] != 0:
            for i in range(dim):
                for j in range(cells.shape[1]):
                    cells[target + i, j] = cells[source + to[i], j]
            map_at_once(
                layer,
                fields.INVERSE,
                space,
                cells,
                inputs,
                target,
                source,
                in_order,
                in_order,
                total,
            )
            continue
        if layer[fields.MASKED] != 0:
            map_one_by_one(layer, space, cells, inputs, source, target, to, in_order, total)
        else:
            map_at_once(
                layer, fields.FORWARD, space, cells, inputs, source, target, to, in_order, total
            )
        source, target = target, source
    return source


_LINES = types.Array(int64, 2, "C", readonly=True)
_SHAPE = types.Array(int64, 1, "C", readonly=True)
_DOUBLES = types.Array(float64, 2, "C", readonly=True)
_MODEL = (_SHAPE, _LINES, _LINES, _LINES, _DOUBLES)
_TABLE, _NUMBERS = float64[:, ::1], float64[::1]


@jit(types.void(_DOUBLES, *_MODEL, int64, _TABLE, *[_NUMBERS] * 3))
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
        affine: Two lines: mean and deviation of each feature of the data.
        direction: `INVERSE`, or `DENSITY` for the densities of layers that have one.
        noise: Result buffer, or an array without columns.
        log_det: Result buffer: log|det du/dx|, without constants.
        squares: Result buffer: the sum of u^2 + log(2 pi) over the noise u of observed features.
        discrete: Result buffer: the log probability of the variables.
    """
    n, start, dim = len(rows), 0, shape[fields.DIM]
    units, indices = shape[fields.TILE_UNITS], _place_of_indices(shape)
    space, in_order = _make_space(n, units), np.arange(max(dim, shape[fields.VARIABLES]))
    while start < n:
        size = _rows_in_tile(n - start, n < _TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total, discrete_total = np.zeros(size), np.zeros(size)
        _read_rows(rows, start, shape, affine[0], affine[1], cells, places[0], indices)
        for index in range(len(levels)):
            order = in_order[: shape[fields.VARIABLES]]
            _score_levels(shape, levels[index], space, cells, indices, order, discrete_total)
        _set_context(shape, cells)
        source = _invert_tile(shape, layers, places, in_order[:dim], direction, space, cells, total)
        _write_noise(shape, cells, source, start, noise, squares)
        count = min(size, n - start)
        log_det[start : start + count] = total[:count]
        discrete[start : start + count] = discrete_total[:count]
        start += count


@jit(types.void(_DOUBLES, *_MODEL, _TABLE, _NUMBERS))
def sample(noise, shape, layers, levels, places, affine, rows, log_det):
    """Map noise to data; the flow's arguments are those of `invert`.

    `noise` has rows of noise for the variables, then for the features, and context. The results are in
    `rows`, indices of the variables and then features, and in `log_det`, log|det dx/du| without
    constants.
    """
    n, start, dim, variables = len(noise), 0, shape[fields.DIM], shape[fields.VARIABLES]
    units, indices = shape[fields.TILE_UNITS], _place_of_indices(shape)
    space, in_order = _make_space(n, units), np.arange(max(dim, variables))
    nowhere, as_it_is = np.zeros(dim), np.ones(dim)
    while start < n:
        size = _rows_in_tile(n - start, n < _TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total = np.zeros(size)
        drawn = indices + variables
        _read_rows(noise, start, shape, nowhere, as_it_is, cells, in_order[:dim], drawn)
        for index in range(len(levels)):
            order = in_order[:variables]
            map_one_by_one(
                levels[index], space, cells, int64(0), drawn, indices, order, order, total
            )
        _set_context(shape, cells)
        if shape[fields.NOISE_MASKS] != 0:
            _mask_noise(shape, cells)
        source = _sample_tile(shape, layers, places, in_order[:dim], space, cells, total)
        _write_rows(shape, affine, cells, source, start, places[0], rows)
        count = min(size, n - start)
        log_det[start : start + count] = total[:count]
        start += count
