"""Compiled loops for chains of masked autoregressive and of coupling affine layers on a processor.

Rows are taken in tiles, features first, a row in each lane of the vector unit; a single row has
the lanes filled with units instead. Micro-kernels keep a block of results in registers, and every
product stops at the last weight that the masks let through: either direction costs a layer half
of the dense arithmetic.

Weights stand in panels of `PANEL` units, `weight[input, unit]`, which end where the last of the
units sees no further input, so they are read from one end to the other.
`flows.compiled.packing` lays them out.

Importing this module compiles it, or reads what an earlier import left in numba's cache: beside
the source or, where that is read-only, in the user's cache folder. It is one file because the
cache watches the file of the entry points only. No function keeps state: threads may share what
they pass, and run in parallel.
"""

from typing import no_type_check

import numpy as np
from numba import float32, float64, int64, types

from flows.compiled.functions import erf, exp, jit, tanh
from flows.compiled.micro_kernels import (
    LANES,
    PANEL,
    UNITS,
    VECTORS,
    row_block,
    stay_apart,
    tile_block_of,
    word,
)

# mypy: ignore-errors
# numba compiles these functions by its own types; llvmlite has none.

# Number of rows from which on a tile that is not full beats single rows.
TILE_FROM = 3
# Units computed before their activations are, so that these find them in the nearest cache.
HOT_UNITS = 64
# Features that the sampler takes at a time, or more if they have fewer hidden units than this.
BLOCK_FEATURES, BLOCK_UNITS = 4, 32

ACTIVATIONS = ("relu", "sigmoid", "elu", "gelu")
RELU, SIGMOID, ELU = range(3)
# The structure of a flow is encoded in integers, so that the loops count no references. A layer:
# its activation; the number of features that a coupling copies, 0 for a masked layer; the number of
# matrices in each of its networks, and the addresses of their lines; and, for a masked layer, how
# many units of the inputs and of each layer are known with the first 0, 1, ... features.
ACTIVATION, COPIED, MATRICES, LINES, KNOWN = range(5)
# The line of a matrix: its number of units; the offset of their values in a work space, counted in
# units; and the addresses of the biases, of the panels' addresses, and of how many units of the
# layer below each unit sees.
WIDTH, PLACE, BIASES, PANELS, REACH = range(5)
LINE_BYTES = 40
# Start values of a product.
FROM_THERE, FROM_BIASES = range(2)


_narrow_1, _narrow_2, _narrow_4, _narrow_all = (tile_block_of(n, 1) for n in (1, 2, 4, UNITS))
_wide_1, _wide_2, _wide_4, _wide_all = (tile_block_of(n, VECTORS) for n in (1, 2, 4, UNITS))


@jit()
@no_type_check
def _activate(kind, h):
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
    else:
        for j in range(len(h)):
            h[j] = float32(0.5) * h[j] * (float32(1) + erf(h[j] * float32(0.70710678118654752)))


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
    unit = units[0]
    while unit < units[1]:
        lane = unit % PANEL
        count = min(PANEL - lane, units[1] - unit)
        if vectors > 0:
            count = UNITS if count >= UNITS else 4 if count >= 4 else 2 if count >= 2 else 1
        depth = min(inputs[1], word(reach, unit + count - 1)) - inputs[0]
        weight = word(panels, unit // PANEL) + 4 * PANEL * inputs[0]
        out = place + row * unit
        if vectors == 0:
            bias = word(line, BIASES) + 4 * (unit - lane) if start == FROM_BIASES else 0
            row_block(weight, bias, depth, source, out - 4 * lane, lane, count)
        else:
            bias = word(line, BIASES) + 4 * unit if start == FROM_BIASES else 0
            _tile_block(weight + 4 * lane, bias, depth, source, out, count, vectors)
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
def _invert_layer(layer, space, cells, source, target, places, log_det):
    """Map data to noise, one masked layer, for a tile.

    Args:
        layer: Integers of the layer.
        space: Address of the tile.
        cells: View of the tile, units by rows.
        source: Offset of the layer's data.
        target: Offset of the noise to write.
        places: Position of each feature's noise from the offset.
        log_det: Log-determinants of the rows, added to.
    """
    stay_apart()
    size = cells.shape[1]
    out = _run_network(layer[LINES], layer[MATRICES], layer[ACTIVATION], space, size, source)
    for i in range(len(places)):
        x, u, shift = source + i, target + places[i], out + 2 * i
        for j in range(size):
            cells[u, j] = (cells[x, j] - cells[shift, j]) * exp(-cells[shift + 1, j])
        for j in range(size):
            log_det[j] -= cells[shift + 1, j]


@jit()
@no_type_check
def _sample_layer(layer, space, cells, source, target, places, log_det):
    """Map noise to data, one masked layer, for a tile; each hidden unit is computed once.

    Features are taken in blocks: large products bring in what finished features contribute to a
    whole block, small ones do the rest inside it.

    Args:
        layer: Integers of the layer.
        space: Address of the tile.
        cells: View of the tile, units by rows.
        source: Offset of the layer's noise.
        target: Offset of the data to write.
        places: Position of each feature's noise from the offset.
        log_det: Log-determinants of the rows, added to.
    """
    stay_apart()
    size, dim = cells.shape[1], len(places)
    address, vectors = space.ctypes.data, size // LANES
    last, kind = layer[MATRICES] - 1, layer[ACTIVATION]
    end_line = layer[LINES] + LINE_BYTES * last
    out = word(end_line, PLACE)
    deepest = word(end_line - LINE_BYTES, PLACE) if last > 0 else target
    width = word(layer[LINES], WIDTH)
    block = max(BLOCK_FEATURES, BLOCK_UNITS * dim // width)
    step = dim + 1
    for begin in range(0, dim, block):
        end = min(begin + block, dim)
        below, line, known = target, layer[LINES], layer[KNOWN]
        for _ in range(last + 1):
            units = word(known, step + begin), word(known, step + end)
            _product(
                line, units, (int64(0), word(known, begin)), FROM_BIASES, address, below, vectors
            )
            below, line, known = word(line, PLACE), line + LINE_BYTES, known + 8 * step
        known -= 8 * step
        for i in range(begin, end):
            inputs = word(known, begin), word(known, i)
            _product(end_line, (2 * i, 2 * i + 2), inputs, FROM_THERE, address, deepest, vectors)
            x, u, shift = target + i, source + places[i], out + 2 * i
            for j in range(size):
                cells[x, j] = cells[shift, j] + cells[u, j] * exp(cells[shift + 1, j])
            for j in range(size):
                log_det[j] += cells[shift + 1, j]
            below, line, known = target, layer[LINES], layer[KNOWN]
            for _ in range(last):
                units = word(known, step + i), word(known, step + i + 1)
                inputs = word(known, begin), word(known, i + 1)
                _product(line, units, inputs, FROM_THERE, address, below, vectors)
                below, line, known = word(line, PLACE), line + LINE_BYTES, known + 8 * step
                first, after = (below + units[0]) * size, (below + units[1]) * size
                _activate(kind, space[first:after])


@jit()
@no_type_check
def _invert_coupling(layer, space, cells, source, target, places, log_det):
    """Map data to noise, one coupling, copied features first; arguments of `_invert_layer`.

    The first network gives minus the log scales, the second one minus the shifts.
    """
    stay_apart()
    scales, shifts = _run_coupling(layer, space, cells.shape[1], source)
    for i in range(len(places)):
        x, u = source + i, target + places[i]
        if i < layer[COPIED]:
            for j in range(cells.shape[1]):
                cells[u, j] = cells[x, j]
        else:
            for j in range(cells.shape[1]):
                cells[u, j] = (cells[x, j] + cells[shifts + i, j]) * exp(cells[scales + i, j])
            for j in range(cells.shape[1]):
                log_det[j] += cells[scales + i, j]


@jit()
@no_type_check
def _sample_coupling(layer, space, cells, source, target, places, log_det):
    """Map noise to data, one coupling; arguments of `_sample_layer`."""
    stay_apart()
    for i in range(layer[COPIED]):
        for j in range(cells.shape[1]):
            cells[target + i, j] = cells[source + places[i], j]
    scales, shifts = _run_coupling(layer, space, cells.shape[1], target)
    for i in range(layer[COPIED], len(places)):
        x, u = target + i, source + places[i]
        for j in range(cells.shape[1]):
            cells[x, j] = cells[u, j] * exp(-cells[scales + i, j]) - cells[shifts + i, j]
        for j in range(cells.shape[1]):
            log_det[j] -= cells[scales + i, j]


@jit()
@no_type_check
def _run_coupling(layer, space, size, source):
    """Compute both networks; return the offsets of the outputs, less the copied features."""
    n, lines = layer[MATRICES], layer[LINES]
    scales = _run_network(lines, n, SIGMOID, space, size, source)
    shifts = _run_network(lines + LINE_BYTES * n, n, RELU, space, size, source)
    return scales - layer[COPIED], shifts - layer[COPIED]


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
def _read(rows, start, shift, scale, cells, places):
    """Copy rows from `start` on, minus shift and times scale, into a tile."""
    size = cells.shape[1]
    count = min(size, len(rows) - start)
    for i in range(rows.shape[1]):
        for j in range(count):
            cells[places[i], j] = (rows[start + j, i] - shift[i]) / scale[i]
        for j in range(count, size):
            cells[places[i], j] = 0


@jit()
@no_type_check
def _invert_tile(layers, places, space, cells, log_det):
    """Invert all layers, from data at offset 0; return the offset of the noise."""
    dim = places.shape[1]
    source, target = int64(0), dim + -dim % LANES
    for index in range(len(layers)):
        layer, to = layers[index], places[index + 1]
        if layer[COPIED] > 0:
            _invert_coupling(layer, space, cells, source, target, to, log_det)
        else:
            _invert_layer(layer, space, cells, source, target, to, log_det)
        source, target = target, source
    return source


@jit()
@no_type_check
def _sample_tile(layers, places, space, cells, log_det):
    """Sample through all layers, from noise at offset 0; return the offset of the data."""
    dim = places.shape[1]
    source, target = int64(0), dim + -dim % LANES
    for index in range(len(layers) - 1, -1, -1):
        layer, to = layers[index], places[index + 1]
        if layer[COPIED] > 0:
            _sample_coupling(layer, space, cells, source, target, to, log_det)
        else:
            _sample_layer(layer, space, cells, source, target, to, log_det)
        source, target = target, source
    return source


_INTEGERS = types.Array(int64, 2, "C", readonly=True)
_SINGLES = types.Array(float32, 2, "C", readonly=True)
_DOUBLES = types.Array(float64, 2, "C", readonly=True)
_MODEL = (_INTEGERS, int64, _INTEGERS, _DOUBLES)
_RESULTS = (float64[:, ::1], float64[::1])


@jit([types.void(rows, *_MODEL, *_RESULTS, float64[::1]) for rows in (_SINGLES, _DOUBLES)])
@no_type_check
def invert(rows, layers, units, places, affine, noise, log_det, squares):
    """Map data to noise.

    Args:
        rows: Rows of data.
        layers: Layers of the flow, as integers.
        units: Number of units in a tile.
        places: Position of each feature of a layer's noise in the input of the next layer; the
            first line is for the rows themselves.
        affine: Four lines: mean and deviation of the data, and shift and scale of the noise.
        noise: Result buffer, or an array without columns.
        log_det: Result buffer: log|det du/dx|, without constants.
        squares: Result buffer: the sum of the squares of the noise.
    """
    n, start = len(rows), 0
    space = _space(n, units)
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total = np.zeros(size)
        _read(rows, start, affine[0], affine[1], cells, places[0])
        source = _invert_tile(layers, places, space, cells, total)
        count = min(size, n - start)
        for j in range(count):
            log_det[start + j] = total[j]
            squares[start + j] = 0
        for i in range(rows.shape[1]):
            for j in range(count):
                u = affine[2, i] + affine[3, i] * cells[source + i, j]
                squares[start + j] += u * u
                if noise.shape[1] > 0:
                    noise[start + j, i] = u
        start += count


@jit(types.void(_DOUBLES, *_MODEL, *_RESULTS))
@no_type_check
def sample(noise, layers, units, places, affine, rows, log_det):
    """Map noise to data.

    Args:
        noise: Rows of noise.
        layers: Layers of the flow, as for `invert`.
        units: Number of units in a tile, as for `invert`.
        places: Positions of features, as for `invert`.
        affine: Means, deviations, shifts and scales, as for `invert`.
        rows: Result buffer of the data.
        log_det: Result buffer: log|det dx/du|, without constants.
    """
    n, start, dim = len(noise), 0, noise.shape[1]
    space, in_order = _space(n, units), np.arange(dim)
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        cells = space[: units * size].reshape((units, size))
        total = np.zeros(size)
        _read(noise, start, affine[2], affine[3], cells, in_order)
        source = _sample_tile(layers, places, space, cells, total)
        count = min(size, n - start)
        for j in range(count):
            log_det[start + j] = total[j]
        for i in range(dim):
            x = source + places[0, i]
            for j in range(count):
                rows[start + j, i] = affine[0, i] + affine[1, i] * cells[x, j]
        start += count
