"""Compiled loops for chains of masked autoregressive affine layers on a processor.

Rows are taken in tiles, features first, one row a lane of the vector unit. A micro-kernel keeps a
block of results in registers; every product stops at the last weight that the masks let through,
so a pass costs half of the dense arithmetic, in both directions. A single row goes another way,
by dot products and sums of columns.

Importing this module compiles it, or reads what an earlier import left in numba's cache (beside
the source or, where that is read-only, in the user's cache folder). All of it stands in one file
because that cache watches the file of the entry points only. `flows.packing` lays out the
arguments. No function keeps state: threads may share what they are given, and run in parallel.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import float32, float64, int32, int64, njit, types
from numba.extending import intrinsic

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

LANES = 16
# With 32 wide registers a block has 8 units x 2 vectors of rows, otherwise 4 units x 1 vector.
_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
UNITS, VECTORS = (8, 2) if _WIDE else (4, 1)
# From so many rows on, a tile that is not full beats single rows.
TILE_FROM = 3

ACTIVATIONS = ("relu", "sigmoid", "elu", "gelu")
RELU, SIGMOID, ELU = range(3)
# Columns of the table of a network's layers: where in `params` weights and bias start, the
# distance of neighbouring weights along units and along inputs, the units, and where in a work
# space their values start, counted in units.
WEIGHT, BIAS, UNIT_STRIDE, INPUT_STRIDE, WIDTH, PLACE = range(6)

_EXACT = {"contract"}
_LOOSE = {"contract", "reassoc", "nsz"}


def _jit(*signature: Any, fastmath: set[str] = _EXACT) -> Callable[..., Any]:  # noqa: ANN401  numba has no types
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function: Callable[..., Any]) -> Any:  # noqa: ANN401  as above
        try:
            return njit(*signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to cache in: compile in every process
            return njit(*signature, **options)(function)

    return decorate


_FLOAT, _WORD = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _block(units: int, vectors: int) -> Any:  # noqa: ANN401  as above
    """The micro-kernel for a block of results.

    out[unit, row] = start + sum over k of weight[unit, k] * source[k, row], where start is the
    bias of the unit or, at the address 0 of biases, what stands in out.
    """

    @intrinsic
    def block(_, weight, unit_stride, input_stride, bias, depth, source, out):  # noqa: ANN001, ANN202, ARG001, PLR0913
        def generate(context, b, _signature, args):  # noqa: ANN001, ANN202
            weight, unit_stride, input_stride, bias, depth, source, out = args

            def at(address: Any, kind: ir.Type, index: Any) -> Any:  # noqa: ANN401  llvmlite's
                return b.gep(b.inttoptr(address, kind.as_pointer()), [index], source_etype=kind)

            def number(value: int) -> Any:  # noqa: ANN401  as above
                return ir.Constant(_WORD, value)

            def spread(address: Any, index: Any) -> Any:  # noqa: ANN401  as above
                scalar = b.load(at(address, _FLOAT, index), typ=_FLOAT)
                nothing = ir.Constant(_VECTOR, ir.Undefined)
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                first = b.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
                return b.shuffle_vector(first, nothing, zeros)

            def vector(address: Any, index: Any) -> Any:  # noqa: ANN401  as above
                return b.load(at(address, _VECTOR, index), typ=_VECTOR, align=4)

            cells = [(unit, v) for unit in range(units) for v in range(vectors)]
            with b.if_else(b.icmp_signed("!=", bias, number(0))) as (biased, added):
                with biased:
                    biases = [spread(bias, number(unit)) for unit in range(units)]
                    end_biased = b.block
                with added:
                    there = [vector(out, number(unit * vectors + v)) for unit, v in cells]
                    end_added = b.block
            start = []
            for (unit, _v), old in zip(cells, there, strict=True):
                phi = b.phi(_VECTOR)
                phi.add_incoming(biases[unit], end_biased)
                phi.add_incoming(old, end_added)
                start.append(phi)

            before, loop = b.block, b.append_basic_block("loop")
            body, after = b.append_basic_block("body"), b.append_basic_block("after")
            b.branch(loop)
            b.position_at_end(loop)
            k = b.phi(_WORD)
            k.add_incoming(number(0), before)
            sums = [b.phi(_VECTOR) for _ in cells]
            for total, first in zip(sums, start, strict=True):
                total.add_incoming(first, before)
            b.cbranch(b.icmp_signed("<", k, depth), body, after)
            b.position_at_end(body)
            first = b.mul(k, number(vectors))
            rows = [vector(source, b.add(first, number(v))) for v in range(vectors)]
            column = b.mul(k, input_stride)
            factors = [
                spread(weight, b.add(column, b.mul(unit_stride, number(unit))))
                for unit in range(units)
            ]
            flags = tuple(_LOOSE)
            for total, (unit, v) in zip(sums, cells, strict=True):
                product = b.fmul(factors[unit], rows[v], flags=flags)
                total.add_incoming(b.fadd(total, product, flags=flags), body)
            k.add_incoming(b.add(k, number(1)), body)
            b.branch(loop)
            b.position_at_end(after)
            for total, (unit, v) in zip(sums, cells, strict=True):
                b.store(total, at(out, _VECTOR, number(unit * vectors + v)), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return block


_narrow = [_block(units, 1) for units in (1, 2, 4, UNITS)]
_wide = [_block(units, VECTORS) for units in (1, 2, 4, UNITS)]
_narrow_1, _narrow_2, _narrow_4, _narrow_all = _narrow
_wide_1, _wide_2, _wide_4, _wide_all = _wide


@intrinsic
def _stay_apart(_):  # noqa: ANN001, ANN202  numba calls it with types
    """Keeps the function that calls it from being compiled into each of its callers again."""

    def generate(context, builder, _signature, _args):  # noqa: ANN001, ANN202
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _two_to_the(_, exponent):  # noqa: ANN001, ANN202, ARG001  numba calls it with types
    """2 to an integer from -126 to 127."""

    def generate(_context, builder, _signature, args):  # noqa: ANN001, ANN202
        word = ir.IntType(32)
        biased = builder.add(args[0], ir.Constant(word, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), _FLOAT)

    return float32(int32), generate


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
    return p * _two_to_the(half) * _two_to_the(whole - half)


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
    _stay_apart()
    if kind == RELU:
        for j in range(len(h)):
            h[j] = float32(0) if h[j] < float32(0) else h[j]
    elif kind == SIGMOID:
        for j in range(len(h)):
            h[j] = float32(1) / (float32(1) + _exp(-h[j]))
    elif kind == ELU:
        for j in range(len(h)):
            h[j] = _exp(h[j]) - float32(1) if h[j] < float32(0) else h[j]
    else:
        for j in range(len(h)):
            h[j] = float32(0.5) * h[j] * (float32(1) + _erf(h[j] * float32(0.70710678118654752)))


@_jit(fastmath=_LOOSE)
def _product(params, layer, units, inputs, biased, space, below, vectors):
    """The units of one layer from a range of the layer below, for a tile.

    Args:
        params: of the network.
        layer: its row of the table.
        units: the first and the one after the last.
        inputs: the same of the layer below.
        biased: start from the biases, not from what stands there.
        space: the values of the tile.
        below: where the layer below has its values.
        vectors: of rows in the tile.
    """
    _stay_apart()
    start, stop = units
    stride, step = layer[UNIT_STRIDE], layer[INPUT_STRIDE]
    base, room = params.ctypes.data, space.ctypes.data
    weight = base + 4 * (layer[WEIGHT] + start * stride + inputs[0] * step)
    bias = base + 4 * (layer[BIAS] + start)
    row = 4 * LANES * vectors
    source = room + row * (below + inputs[0])
    out = room + row * (layer[PLACE] + start)
    depth = inputs[1] - inputs[0]
    left = stop - start
    while left > 0:
        b = bias if biased else 0
        if left >= UNITS:
            done = UNITS
            if vectors == VECTORS:
                _wide_all(weight, stride, step, b, depth, source, out)
            else:
                _narrow_all(weight, stride, step, b, depth, source, out)
        elif left >= 4:
            done = 4
            if vectors == VECTORS:
                _wide_4(weight, stride, step, b, depth, source, out)
            else:
                _narrow_4(weight, stride, step, b, depth, source, out)
        elif left >= 2:
            done = 2
            if vectors == VECTORS:
                _wide_2(weight, stride, step, b, depth, source, out)
            else:
                _narrow_2(weight, stride, step, b, depth, source, out)
        else:
            done = 1
            if vectors == VECTORS:
                _wide_1(weight, stride, step, b, depth, source, out)
            else:
                _narrow_1(weight, stride, step, b, depth, source, out)
        weight += 4 * done * stride
        bias += 4 * done
        out += row * done
        left -= done


@_jit()
def _aligned(size):
    """Zeros that start at a cache line."""
    _stay_apart()
    raw = np.zeros(size + LANES, dtype=np.float32)
    skip = (-raw.ctypes.data // 4) % LANES
    return raw[skip : skip + size]


@_jit()
def _invert_layer(params, table, reach, kind, space, source, target, places, log_det):
    """Data to noise, one layer, for a tile.

    Args:
        params: of the layer's network.
        table: of the network's layers.
        reach: how many units of the layer below each unit sees, layer by layer.
        kind: of the activation.
        space: the tile.
        source: where the layer's data start, in units.
        target: where its noise shall.
        places: of each feature's noise from there.
        log_det: of the rows, added to.
    """
    _stay_apart()
    size = len(log_det)
    vectors = size // LANES
    below = source
    last = len(table) - 1
    for index in range(last + 1):
        layer = table[index]
        width = layer[WIDTH]
        for start in range(0, width, UNITS):
            stop = min(start + UNITS, width)
            depth = reach[index, stop - 1]
            _product(params, layer, (start, stop), (0, depth), True, space, below, vectors)
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
            log_det[j] -= log_scale[j]


@_jit()
def _sample_layer(params, table, known, kind, space, source, target, places, log_det, block):
    """Noise to data, one layer, for a tile; each hidden unit is computed once.

    Features are taken in blocks: large products bring in what finished features contribute to a
    whole block, small ones do the rest inside it.

    Args:
        params: of the layer's network.
        table: of the network's layers.
        known: units known with the first 0, 1, ... features: inputs, then layer by layer.
        kind: of the activation.
        space: the tile.
        source: where the layer's noise starts, in units.
        target: where its data shall.
        places: of each feature's noise from there.
        log_det: of the rows, added to.
        block: features in a block.
    """
    _stay_apart()
    size = len(log_det)
    vectors = size // LANES
    last = len(table) - 1
    dim = len(places)
    out = table[last, PLACE]
    for begin in range(0, dim, block):
        end = min(begin + block, dim)
        below = target
        for index in range(last + 1):
            units = known[index + 1, begin], known[index + 1, end]
            inputs = int64(0), known[index, begin]
            _product(params, table[index], units, inputs, True, space, below, vectors)
            below = table[index, PLACE]
        for i in range(begin, end):
            below = table[last - 1, PLACE]
            inputs = known[last, begin], known[last, i]
            _product(params, table[last], (2 * i, 2 * i + 2), inputs, False, space, below, vectors)
            shift = space[(out + 2 * i) * size : (out + 2 * i + 1) * size]
            log_scale = space[(out + 2 * i + 1) * size : (out + 2 * i + 2) * size]
            u = space[(source + places[i]) * size : (source + places[i] + 1) * size]
            x = space[(target + i) * size : (target + i + 1) * size]
            for j in range(size):
                x[j] = shift[j] + u[j] * _exp(log_scale[j])
                log_det[j] += log_scale[j]
            below = target
            for index in range(last):
                units = known[index + 1, i], known[index + 1, i + 1]
                inputs = known[index, begin], known[index, i + 1]
                _product(params, table[index], units, inputs, False, space, below, vectors)
                below = table[index, PLACE]
                _activate(kind, space[(below + units[0]) * size : (below + units[1]) * size])


@_jit(fastmath=_LOOSE)
def _add_columns(params, layer, start, inputs, values, h):
    """Adds what a range of inputs contributes to the units from `start` on, for a single row."""
    _stay_apart()
    for k in range(inputs[0], inputs[1]):
        first = layer[WEIGHT] + k * layer[INPUT_STRIDE]
        column = params[first + start : first + layer[WIDTH]]
        target = h[start : layer[WIDTH]]
        for r in range(len(target)):
            target[r] += column[r] * values[k]


@_jit(fastmath=_LOOSE)
def _dots(params, layer, units, depth, values, h):
    """Units of one layer by dot products with the first `depth` inputs, for a single row."""
    _stay_apart()
    depth = (depth + LANES - 1) // LANES * LANES  # beyond are weights of 0
    stride = layer[UNIT_STRIDE]
    inputs = values[:depth]
    unit = units[0]
    while unit < units[1]:
        first = layer[WEIGHT] + unit * stride
        a = params[first : first + depth]
        if unit + 1 < units[1]:
            b = params[first + stride : first + stride + depth]
            s = t = float32(0)
            for k in range(len(inputs)):
                s += a[k] * inputs[k]
                t += b[k] * inputs[k]
            h[unit] = params[layer[BIAS] + unit] + s
            h[unit + 1] = params[layer[BIAS] + unit + 1] + t
        else:
            s = float32(0)
            for k in range(len(inputs)):
                s += a[k] * inputs[k]
            h[unit] = params[layer[BIAS] + unit] + s
        unit += 2


@_jit()
def _invert_row(params, table, known, kind, space, x, u, places):
    """Data to noise, one layer, for a single row; returns log|det du/dx|."""
    _stay_apart()
    last = len(table) - 1
    dim = len(places)
    layer = table[0]
    h = space[layer[PLACE] : layer[PLACE] + layer[WIDTH]]
    for r in range(layer[WIDTH]):
        h[r] = params[layer[BIAS] + r]
    for k in range(dim):
        _add_columns(params, layer, known[1, k], (k, k + 1), x, h)
    _activate(kind, h)
    for index in range(1, last + 1):
        below = space[table[index - 1, PLACE] :]
        layer = table[index]
        h = space[layer[PLACE] : layer[PLACE] + layer[WIDTH]]
        for i in range(dim):
            sees = known[index, i + 1] if index < last else known[index, i]
            _dots(params, layer, (known[index + 1, i], known[index + 1, i + 1]), sees, below, h)
        if index < last:
            _activate(kind, h)
    log_det = 0.0
    for i in range(dim):
        u[places[i]] = (x[i] - h[2 * i]) * _exp(-h[2 * i + 1])
        log_det -= h[2 * i + 1]
    return log_det


@_jit()
def _sample_row(params, table, known, kind, space, u, x, places):
    """Noise to data, one layer, for a single row; returns log|det dx/du|."""
    _stay_apart()
    last = len(table) - 1
    first = space[table[0, PLACE] : table[0, PLACE] + table[0, WIDTH]]
    for r in range(table[0, WIDTH]):
        first[r] = params[table[0, BIAS] + r]
    out = space[table[last, PLACE] : table[last, PLACE] + table[last, WIDTH]]
    deepest = space[table[last - 1, PLACE] :]
    log_det = 0.0
    for i in range(len(places)):
        _dots(params, table[last], (2 * i, 2 * i + 2), known[last, i], deepest, out)
        x[i] = out[2 * i] + u[places[i]] * _exp(out[2 * i + 1])
        log_det += out[2 * i + 1]
        _add_columns(params, table[0], known[1, i], (i, i + 1), x, first)
        _activate(kind, first[known[1, i] : known[1, i + 1]])
        for index in range(1, last):
            below = space[table[index - 1, PLACE] :]
            h = space[table[index, PLACE] : table[index, PLACE] + table[index, WIDTH]]
            units = known[index + 1, i], known[index + 1, i + 1]
            _dots(params, table[index], units, known[index, i + 1], below, h)
            _activate(kind, h[units[0] : units[1]])
    return log_det


@_jit(
    types.void(
        types.Array(float64, 2, "C", readonly=True),
        types.Array(float32, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        int64,
        types.Array(float64, 2, "C", readonly=True),
        float64[:, ::1],
        float64[::1],
        float64[::1],
    )
)
def invert(rows, params, table, known, reach, places, kind, affine, noise, log_det, squares):
    """Data to noise.

    Args:
        rows: data.
        params: weights and biases, a line a layer of the flow.
        table: of the layers of a network, the same in all.
        known: units known with the first 0, 1, ... features: inputs, then layer by layer.
        reach: how many units below each unit sees, layer by layer.
        places: where a layer's noise, feature by feature, stands in what the next one reads; its
            first line is for the rows themselves.
        kind: of the activation.
        affine: four lines: mean and deviation of the data, and shift and scale of the noise.
        noise: results, or no columns.
        log_det: results: log|det du/dx|, constants left out.
        squares: results: the sum of the squares of the noise.
    """
    depth, dim = len(params), rows.shape[1]
    room = table[-1, PLACE] + table[-1, WIDTH] + LANES
    pad = (dim + LANES - 1) // LANES * LANES
    wide = LANES * VECTORS
    n = len(rows)
    single = n < TILE_FROM
    space = _aligned(room * (1 if single else wide if n > LANES else LANES))
    totals = np.zeros(wide)
    start = 0
    while start < n:
        if single:
            size = 1
        else:
            size = wide if n - start > LANES else LANES
        count = min(size, n - start)
        for i in range(dim):
            line = space[places[0, i] * size : (places[0, i] + 1) * size]
            for j in range(count):
                line[j] = (rows[start + j, i] - affine[0, i]) / affine[1, i]
            for j in range(count, size):
                line[j] = float32(0)
        total = totals[:size]
        for j in range(size):
            total[j] = 0
        source, target = int64(0), pad
        for layer in range(depth):
            to = places[layer + 1]
            if single:
                x, u = space[source : source + dim], space[target : target + dim]
                total[0] += _invert_row(params[layer], table, known, kind, space, x, u, to)
            else:
                _invert_layer(
                    params[layer], table, reach, kind, space, source, target, to, total
                )
            source, target = target, source
        for j in range(count):
            log_det[start + j] = total[j]
        for j in range(size):
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


@_jit(
    types.void(
        types.Array(float64, 2, "C", readonly=True),
        types.Array(float32, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        types.Array(int64, 2, "C", readonly=True),
        int64,
        types.Array(float64, 2, "C", readonly=True),
        int64,
        float64[:, ::1],
        float64[::1],
    )
)
def sample(noise, params, table, known, places, kind, affine, block, rows, log_det):
    """Noise to data.

    Args:
        noise: rows.
        params: as for `invert`, and so are those not named here.
        block: features that a tile takes at a time.
        rows: results.
        log_det: results: log|det dx/du|, constants left out.
    """
    depth, dim = len(params), noise.shape[1]
    room = table[-1, PLACE] + table[-1, WIDTH] + LANES
    pad = (dim + LANES - 1) // LANES * LANES
    wide = LANES * VECTORS
    n = len(noise)
    single = n < TILE_FROM
    space = _aligned(room * (1 if single else wide if n > LANES else LANES))
    totals = np.zeros(wide)
    start = 0
    while start < n:
        if single:
            size = 1
            for j in range(len(space)):
                space[j] = float32(0)
        else:
            size = wide if n - start > LANES else LANES
        count = min(size, n - start)
        for i in range(dim):
            line = space[i * size : (i + 1) * size]
            for j in range(count):
                line[j] = (noise[start + j, i] - affine[2, i]) / affine[3, i]
            for j in range(count, size):
                line[j] = float32(0)
        total = totals[:size]
        for j in range(size):
            total[j] = 0
        source, target = int64(0), pad
        for layer in range(depth - 1, -1, -1):
            to = places[layer + 1]
            if single:
                x, u = space[target : target + dim], space[source : source + dim]
                total[0] += _sample_row(params[layer], table, known, kind, space, u, x, to)
            else:
                _sample_layer(
                    params[layer], table, known, kind, space, source, target, to, total, block
                )
            source, target = target, source
        for j in range(count):
            log_det[start + j] = total[j]
        for i in range(dim):
            first = (source + places[0, i]) * size
            line = space[first : first + size]
            for j in range(count):
                rows[start + j, i] = affine[0, i] + affine[1, i] * line[j]
        start += count
