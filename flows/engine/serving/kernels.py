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

from typing import no_type_check

import numpy as np
from numba import float64, int64, types

from flows.engine.fields import (
    CONTEXT,
    CONTEXT_DIM,
    DIM,
    FORWARD,
    HAS_DENSITY,
    INVERSE,
    INVERTED,
    MASKED,
    NOISE_MASKS,
    TILE_UNITS,
    VARIABLES,
)
from flows.engine.loop_cache import jit
from flows.engine.serving.networks import map_at_once, map_one_by_one, mark_level
from flows.engine.serving.tiles import (
    TILE_FROM,
    make_space,
    mask_noise,
    place_of_indices,
    read_rows,
    rows_in_tile,
    set_context,
    write_noise,
    write_rows,
)

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def _score_levels(shape, layer, space, cells, indices, order, total):
    """Add the log probabilities of the variables of a tile, and mark their levels in the context."""
    for variable in range(shape[VARIABLES]):
        mark_level(layer, cells, 0, indices, variable)
    map_at_once(layer, INVERSE, space, cells, int64(0), indices, indices, order, order, total)


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
            map_at_once(
                layer, way, space, cells, source - given, source, target, in_order, to, total
            )
            source, target = target, source
            continue
        if layer[MASKED] != 0:
            map_one_by_one(
                layer, space, cells, target - given, source, target, in_order, in_order, total
            )
        else:
            inputs = target - given
            map_at_once(
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
            map_at_once(
                layer, INVERSE, space, cells, inputs, target, source, in_order, in_order, total
            )
            continue
        if layer[MASKED] != 0:
            map_one_by_one(layer, space, cells, inputs, source, target, to, in_order, total)
        else:
            map_at_once(layer, FORWARD, space, cells, inputs, source, target, to, in_order, total)
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
        affine: Two lines: mean and deviation of each feature of the data.
        direction: `INVERSE`, or `DENSITY` for the densities of layers that have one.
        noise: Result buffer, or an array without columns.
        log_det: Result buffer: log|det du/dx|, without constants.
        squares: Result buffer: the sum of u^2 + log(2 pi) over the noise u of observed features.
        discrete: Result buffer: the log probability of the variables.
    """
    n, start, dim = len(rows), 0, shape[DIM]
    units, indices = shape[TILE_UNITS], place_of_indices(shape)
    space, in_order = make_space(n, units), np.arange(max(dim, shape[VARIABLES]))
    while start < n:
        size = rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total, discrete_total = np.zeros(size), np.zeros(size)
        read_rows(rows, start, shape, affine[0], affine[1], cells, places[0], indices)
        for index in range(len(levels)):
            order = in_order[: shape[VARIABLES]]
            _score_levels(shape, levels[index], space, cells, indices, order, discrete_total)
        set_context(shape, cells)
        source = _invert_tile(shape, layers, places, in_order[:dim], direction, space, cells, total)
        write_noise(shape, cells, source, start, noise, squares)
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
        affine: Means and deviations, as for `invert`.
        rows: Result buffer of the data: indices of the variables, then features.
        log_det: Result buffer: log|det dx/du|, without constants.
    """
    n, start, dim, variables = len(noise), 0, shape[DIM], shape[VARIABLES]
    units, indices = shape[TILE_UNITS], place_of_indices(shape)
    space, in_order = make_space(n, units), np.arange(max(dim, variables))
    nowhere, as_it_is = np.zeros(dim), np.ones(dim)
    while start < n:
        size = rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total = np.zeros(size)
        drawn = indices + variables
        read_rows(noise, start, shape, nowhere, as_it_is, cells, in_order[:dim], drawn)
        for index in range(len(levels)):
            order = in_order[:variables]
            map_one_by_one(
                levels[index], space, cells, int64(0), drawn, indices, order, order, total
            )
        set_context(shape, cells)
        if shape[NOISE_MASKS] != 0:
            mask_noise(shape, cells)
        source = _sample_tile(shape, layers, places, in_order[:dim], space, cells, total)
        write_rows(shape, affine, cells, source, start, places[0], rows)
        count = min(size, n - start)
        log_det[start : start + count] = total[:count]
        start += count
