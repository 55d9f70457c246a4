"""Loops that read rows into a tile, features first, and write them back."""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64

from flows.engine.blocks import LANES, ROWS, word
from flows.engine.fields import (
    CONTEXT_DIM,
    DIM,
    GIVEN,
    NOISE_MASKS,
    STATES,
    VARIABLES,
)
from flows.engine.loop_cache import jit

# mypy: ignore-errors
# numba compiles these functions by its own types.

# Number of rows from which on a tile that is not full beats single rows.
TILE_FROM = 3
LOG_TWO_PI = np.log(2 * np.pi)


@jit()
@no_type_check
def rows_in_tile(left, single):
    """Return the number of rows of the next tile."""
    return 1 if single else ROWS if left > LANES else LANES


@jit()
@no_type_check
def make_space(n, units):
    """Return a work space for tiles of this number of units, aligned to a cache line."""
    numbers = units * rows_in_tile(n, n < TILE_FROM)
    raw = np.empty(numbers + LANES, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % LANES
    return raw[skip : skip + numbers]


@jit()
@no_type_check
def place_of_indices(shape):
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
def read_rows(rows, start, shape, shift, scale, cells, places, indices):
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
def set_context(shape, cells):
    """Copy the context to the second place of the features, and set the masks."""
    context, dim, size = shape[CONTEXT_DIM], shape[DIM], cells.shape[1]
    for i in range(context):
        for j in range(size):
            cells[context + dim + i, j] = cells[i, j]
    if shape[STATES] == 0:
        return
    indices = place_of_indices(shape)
    masks = indices + 2 * shape[VARIABLES]
    for i in range(dim):
        state = word(shape[STATES], i)
        for j in range(size):
            seen = state < 0 or cells[indices + state, j] == float32(0)
            cells[masks + i, j] = float32(1) if seen else float32(0)


@jit()
@no_type_check
def mask_noise(shape, cells):
    """Set the noise of features that are not observed to 0."""
    for i in range(shape[DIM]):
        mask = word(shape[NOISE_MASKS], i)
        for j in range(cells.shape[1]):
            if cells[mask, j] == 0:
                cells[shape[CONTEXT_DIM] + i, j] = 0


@jit()
@no_type_check
def write_noise(shape, cells, source, start, noise, squares):
    """Write the noise of a tile from `start` on, and the sums of its squares and of log(2 pi)."""
    count = min(cells.shape[1], len(squares) - start)
    for j in range(count):
        squares[start + j] = 0
    for i in range(shape[DIM]):
        mask = word(shape[NOISE_MASKS], i) if shape[NOISE_MASKS] != 0 else int64(-1)
        for j in range(count):
            u = float64(cells[source + i, j])
            if mask < 0 or cells[mask, j] > 0:
                squares[start + j] += u * u + LOG_TWO_PI
            if noise.shape[1] > 0:
                noise[start + j, i] = u


@jit()
@no_type_check
def write_rows(shape, affine, cells, source, start, places, rows):
    """Write the data of a tile from `start` on: indices of the variables, then features."""
    count = min(cells.shape[1], len(rows) - start)
    variables, indices = shape[VARIABLES], place_of_indices(shape)
    for i in range(variables):
        for j in range(count):
            rows[start + j, i] = cells[indices + i, j]
    for i in range(shape[DIM]):
        x = source + places[i]
        for j in range(count):
            rows[start + j, variables + i] = affine[0, i] + affine[1, i] * cells[x, j]
