"""Compiled loops for chains of masked autoregressive affine layers on a processor.

Rows are taken in tiles, features first, a row in each lane of the vector unit; a single row has
the lanes filled with units instead. Micro-kernels keep a block of results in registers, and every
product stops at the last weight that the masks let through: either direction costs a layer half
of the dense arithmetic.

Weights stand in panels of `PANEL` units, `weight[input, unit]`, which end where the last of the
units sees no further input, so they are read from one end to the other. `flows.packing` lays them
out.

Importing this module compiles it, or reads what an earlier import left in numba's cache: beside
the source or, where that is read-only, in the user's cache folder. It is one file because the
cache watches the file of the entry points only. No function keeps state: threads may share what
they pass, and run in parallel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, float64, int32, int64, njit, types

from flows.micro_kernels import (
    LANES,
    PANEL,
    UNITS,
    VECTORS,
    row_block,
    stay_apart,
    tile_block_of,
    two_to_the,
)

# ruff: noqa: ANN001, ANN202, ANN401, ARG001  numba and llvmlite have no types
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

# From so many rows on, a tile that is not full beats single rows.
TILE_FROM = 3
# Units computed before their activations are, which finds them in the nearest cache.
HOT_UNITS = 64
# The sampler takes so many features at a time that they have about so many hidden units.
BLOCK_UNITS = 64

ACTIVATIONS = ("relu", "sigmoid", "elu", "gelu")
RELU, SIGMOID, ELU = range(3)
# Columns of the table of a network's layers: where in `params` the biases start, the units, and
# where in a work space their values start, counted in units.
BIAS, WIDTH, PLACE = range(3)


def _jit(*signature: Any) -> Callable[..., Any]:
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to cache in: compile in every process
            return njit(*signature, **options)(function)

    return decorate


_narrow_1, _narrow_2, _narrow_4, _narrow_all = (tile_block_of(n, 1) for n in (1, 2, 4, UNITS))
_wide_1, _wide_2, _wide_4, _wide_all = (tile_block_of(n, VECTORS) for n in (1, 2, 4, UNITS))


@_jit()
def _exp(x):
    """The exponential to 2 units in the last place, without branches (Cephes' expf).

    Beyond float32's range it is 0 or infinite; NaN stays NaN.
    """
    x = float32(-104) if x < float32(-104) else x
    n = np.floor(x * float32(1.44269504088896341) + float32(0.5))
    n = float32(129) if n > float32(129) else n
    n = n if n > float32(-151) else float32(-151)  # NaN, which no integer is
    r = x - n * float32(0.693359375)
    r = r - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    p = p * (r * r) + (r + float32(1))
    whole = int32(n)
    half = whole >> int32(1)
    return p * two_to_the(half) * two_to_the(whole - half)


@_jit()
def _tanh(x):
    """The hyperbolic tangent to 2e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = float32(-7.905311) if x < float32(-7.905311) else x
    x = float32(7.905311) if x > float32(7.905311) else x
    s = x * x
    p = float32(-2.76076847742355e-16)
    p = p * s + float32(2.00018790482477e-13)
    p = p * s + float32(-8.60467152213735e-11)
    p = p * s + float32(5.12229709037114e-08)
    p = p * s + float32(1.48572235717979e-05)
    p = p * s + float32(6.37261928875436e-04)
    p = p * s + float32(4.89352455891786e-03)
    q = float32(1.19825839466702e-06)
    q = q * s + float32(1.18534705686654e-04)
    q = q * s + float32(2.26843463243900e-03)
    q = q * s + float32(4.89352518554385e-03)
    return x * p / q


@_jit()
def _erf(x):
    """The error function to 5e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = float32(-4) if x < float32(-4) else x
    x = float32(4) if x > float32(4) else x
    s = x * x
    p = float32(-2.72614225801306e-10)
    p = p * s + float32(2.77068142495902e-08)
    p = p * s + float32(-2.10102402082508e-06)
    p = p * s + float32(-5.69250639462346e-05)
    p = p * s + float32(-7.34990630326855e-04)
    p = p * s + float32(-2.95459980854025e-03)
    p = p * s + float32(-1.60960333262415e-02)
    q = float32(-1.45660718464996e-05)
    q = q * s + float32(-2.13374055278905e-04)
    q = q * s + float32(-1.68282697438203e-03)
    q = q * s + float32(-7.37332916720468e-03)
    q = q * s + float32(-1.42647390514189e-02)
    return x * p / q


@_jit()
def _activate(kind, h):
    """Applies an activation in place."""
    stay_apart()
    if kind == RELU:
        for j in range(len(h)):
            h[j] = float32(0) if h[j] < float32(0) else h[j]
    elif kind == SIGMOID:
        for j in range(len(h)):
            h[j] = float32(0.5) + float32(0.5) * _tanh(float32(0.5) * h[j])
    elif kind == ELU:
        for j in range(len(h)):
            h[j] = _exp(h[j]) - float32(1) if h[j] < float32(0) else h[j]
    else:
        for j in range(len(h)):
            h[j] = float32(0.5) * h[j] * (float32(1) + _erf(h[j] * float32(0.70710678118654752)))


@_jit()
def _wide_block(weight, bias, depth, source, out, count):
    if count == UNITS:
        _wide_all(weight, bias, depth, source, out)
    elif count == 4:
        _wide_4(weight, bias, depth, source, out)
    elif count == 2:
        _wide_2(weight, bias, depth, source, out)
    else:
        _wide_1(weight, bias, depth, source, out)


@_jit()
def _narrow_block(weight, bias, depth, source, out, count):
    if count == UNITS:
        _narrow_all(weight, bias, depth, source, out)
    elif count == 4:
        _narrow_4(weight, bias, depth, source, out)
    elif count == 2:
        _narrow_2(weight, bias, depth, source, out)
    else:
        _narrow_1(weight, bias, depth, source, out)


@_jit()
def _product(params, layer, panels, reach, units, inputs, biased, space, below, vectors):
    """Some units of one layer from a range of the layer below, as far as they see it.

    Args:
        params: of the network.
        layer: its row of the table.
        panels: where in `params` each of its panels starts.
        reach: how many units of the layer below each unit sees.
        units: the first and the one after the last.
        inputs: the same of the layer below.
        biased: start from the biases, not from what stands there.
        space: the values of the tile.
        below: where the layer below has its values.
        vectors: of rows in the tile; 0 is a single row.
    """
    stay_apart()
    row = 4 * LANES * vectors if vectors > 0 else 4
    room = space.ctypes.data
    source = room + row * (below + inputs[0])
    unit = units[0]
    while unit < units[1]:
        lane = unit % PANEL
        count = min(PANEL - lane, units[1] - unit)
        if vectors > 0:
            count = UNITS if count >= UNITS else 4 if count >= 4 else 2 if count >= 2 else 1
        depth = min(inputs[1], reach[unit + count - 1]) - inputs[0]
        weight = params.ctypes.data + 4 * (panels[unit // PANEL] + PANEL * inputs[0])
        bias = params.ctypes.data + 4 * (layer[BIAS] + unit) if biased else 0
        out = room + row * (layer[PLACE] + unit)
        if vectors == 0:
            bias -= 4 * lane if biased else 0
            row_block(weight, bias, depth, source, out - 4 * lane, lane, count)
        else:
            weight += 4 * lane
            if vectors == VECTORS:
                _wide_block(weight, bias, depth, source, out, count)
            else:
                _narrow_block(weight, bias, depth, source, out, count)
        unit += count


@_jit()
def _invert_layer(params, network, known, kind, space, source, target, places, log_det):
    """Data to noise, one layer, for a tile.

    Args:
        params: of the layer's network.
        network: its table, panels and reach.
        known: as for `invert`.
        kind: of the activation.
        space: the tile.
        source: where the layer's data start, in units.
        target: where its noise shall.
        places: of each feature's noise from there.
        log_det: of the rows, added to.
    """
    stay_apart()
    table, panels, reach = network
    size = len(log_det)
    vectors = size // LANES
    below = source
    last = len(table) - 1
    for index in range(last + 1):
        layer = table[index]
        inputs = int64(0), known[index, -1]
        for start in range(0, layer[WIDTH], HOT_UNITS):
            stop = min(start + HOT_UNITS, layer[WIDTH])
            _product(
                params,
                layer,
                panels[index],
                reach[index],
                (start, stop),
                inputs,
                True,
                space,
                below,
                vectors,
            )
            if index < last:
                first = layer[PLACE] + start
                _activate(kind, space[first * size : (first + stop - start) * size])
        below = layer[PLACE]
    for i in range(len(places)):
        x = space[(source + i) * size : (source + i + 1) * size]
        shift = space[(below + 2 * i) * size : (below + 2 * i + 1) * size]
        log_scale = space[(below + 2 * i + 1) * size : (below + 2 * i + 2) * size]
        first = (target + places[i]) * size
        u = space[first : first + size]
        for j in range(size):
            u[j] = (x[j] - shift[j]) * _exp(-log_scale[j])
        for j in range(size):
            log_det[j] -= log_scale[j]


@_jit()
def _sample_layer(params, network, known, kind, space, source, target, places, log_det):
    """Noise to data, one layer, for a tile; each hidden unit is computed once.

    Features are taken in blocks: large products bring in what finished features contribute to a
    whole block, small ones do the rest inside it.

    Args:
        params: of the layer's network.
        network: its table, panels and reach.
        known: as for `invert`.
        kind: of the activation.
        space: the tile.
        source: where the layer's noise starts, in units.
        target: where its data shall.
        places: of each feature's noise from there.
        log_det: of the rows, added to.
    """
    stay_apart()
    table, panels, reach = network
    size = len(log_det)
    vectors = size // LANES
    last = len(table) - 1
    dim = len(places)
    block = max(1, BLOCK_UNITS * dim // table[last - 1, WIDTH])
    out = table[last, PLACE]
    for begin in range(0, dim, block):
        end = min(begin + block, dim)
        below = target
        for index in range(last + 1):
            units = known[index + 1, begin], known[index + 1, end]
            inputs = int64(0), known[index, begin]
            _product(
                params,
                table[index],
                panels[index],
                reach[index],
                units,
                inputs,
                True,
                space,
                below,
                vectors,
            )
            below = table[index, PLACE]
        for i in range(begin, end):
            below = table[last - 1, PLACE]
            inputs = known[last, begin], known[last, i]
            units = 2 * i, 2 * i + 2
            _product(
                params,
                table[last],
                panels[last],
                reach[last],
                units,
                inputs,
                False,
                space,
                below,
                vectors,
            )
            shift = space[(out + 2 * i) * size : (out + 2 * i + 1) * size]
            log_scale = space[(out + 2 * i + 1) * size : (out + 2 * i + 2) * size]
            u = space[(source + places[i]) * size : (source + places[i] + 1) * size]
            x = space[(target + i) * size : (target + i + 1) * size]
            for j in range(size):
                x[j] = shift[j] + u[j] * _exp(log_scale[j])
            for j in range(size):
                log_det[j] += log_scale[j]
            below = target
            for index in range(last):
                units = known[index + 1, i], known[index + 1, i + 1]
                inputs = known[index, begin], known[index, i + 1]
                _product(
                    params,
                    table[index],
                    panels[index],
                    reach[index],
                    units,
                    inputs,
                    False,
                    space,
                    below,
                    vectors,
                )
                below = table[index, PLACE]
                _activate(kind, space[(below + units[0]) * size : (below + units[1]) * size])


@_jit()
def _space(n, dim, table):
    """A tile's values, from a cache line on, and room for one number a row."""
    size = 1 if n < TILE_FROM else LANES * VECTORS if n > LANES else LANES
    numbers = (table[-1, PLACE] + table[-1, WIDTH] + PANEL) * size
    raw = np.empty(numbers + LANES, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % LANES
    return raw[skip : skip + numbers], np.empty(size)


@_jit()
def _rows_in_tile(left, single):
    """How many rows the next tile has places for."""
    return 1 if single else LANES * VECTORS if left > LANES else LANES


_NETWORK = types.Tuple([types.Array(int64, 2, "C", readonly=True)] * 3)
_INTEGERS = types.Array(int64, 2, "C", readonly=True)
_FLOATS = types.Array(float32, 2, "C", readonly=True)
_DOUBLES = types.Array(float64, 2, "C", readonly=True)
_FLOW = (_FLOATS, _NETWORK, _INTEGERS, _INTEGERS, int64, _DOUBLES)


@_jit(types.void(_DOUBLES, *_FLOW, float64[:, ::1], float64[::1], float64[::1]))
def invert(rows, params, network, known, places, kind, affine, noise, log_det, squares):
    """Data to noise.

    Args:
        rows: data.
        params: weights and biases, a line a layer of the flow.
        network: of all of them, a line a layer: the table, where panels start, and how many
            units of the layer below each unit sees.
        known: units known with the first 0, 1, ... features: inputs, then layer by layer.
        places: where a layer's noise, feature by feature, stands in what the next one reads; the
            first line is for the rows themselves.
        kind: of the activation.
        affine: four lines: mean and deviation of the data, and shift and scale of the noise.
        noise: results, or no columns.
        log_det: results: log|det du/dx|, constants left out.
        squares: results: the sum of the squares of the noise.
    """
    dim, n = rows.shape[1], len(rows)
    space, totals = _space(n, dim, network[0])
    beside = network[0][0, PLACE] // 2
    start = 0
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        count = min(size, n - start)
        total = totals[:size]
        for j in range(size):
            total[j] = 0
        for i in range(dim):
            line = space[places[0, i] * size : (places[0, i] + 1) * size]
            for j in range(count):
                line[j] = (rows[start + j, i] - affine[0, i]) / affine[1, i]
            for j in range(count, size):
                line[j] = 0
        source, target = int64(0), beside
        for layer in range(len(params)):
            to = places[layer + 1]
            _invert_layer(params[layer], network, known, kind, space, source, target, to, total)
            source, target = target, source
        for j in range(count):
            log_det[start + j] = total[j]
            total[j] = 0
        for i in range(dim):
            line = space[(source + i) * size : (source + i + 1) * size]
            for j in range(count):
                u = affine[2, i] + affine[3, i] * line[j]
                total[j] += u * u
                if noise.shape[1] > 0:
                    noise[start + j, i] = u
        for j in range(count):
            squares[start + j] = total[j]
        start += count


@_jit(types.void(_DOUBLES, *_FLOW, float64[:, ::1], float64[::1]))
def sample(noise, params, network, known, places, kind, affine, rows, log_det):
    """Noise to data.

    Args:
        noise: rows.
        params: as for `invert`, and so are those not named here.
        rows: results.
        log_det: results: log|det dx/du|, constants left out.
    """
    dim, n = noise.shape[1], len(noise)
    space, totals = _space(n, dim, network[0])
    beside = network[0][0, PLACE] // 2
    start = 0
    while start < n:
        size = _rows_in_tile(n - start, n < TILE_FROM)
        count = min(size, n - start)
        total = totals[:size]
        for j in range(size):
            total[j] = 0
        for i in range(dim):
            line = space[i * size : (i + 1) * size]
            for j in range(count):
                line[j] = (noise[start + j, i] - affine[2, i]) / affine[3, i]
            for j in range(count, size):
                line[j] = 0
        source, target = int64(0), beside
        for layer in range(len(params) - 1, -1, -1):
            to = places[layer + 1]
            _sample_layer(params[layer], network, known, kind, space, source, target, to, total)
            source, target = target, source
        for j in range(count):
            log_det[start + j] = total[j]
        for i in range(dim):
            first = (source + places[0, i]) * size
            line = space[first : first + size]
            for j in range(count):
                rows[start + j, i] = affine[0, i] + affine[1, i] * line[j]
        start += count
