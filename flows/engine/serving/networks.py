"""Loops over one layer of a flow: its networks, and its features mapped at once or one after the other.

Products stop at the last weight that the masks let through. `space` is the work space of a tile, `cells`
its view of units by rows. Networks read from the offset `inputs` on. Values are at the offset `source`,
results at `target`; `read` and `write` are the position of each feature from there. `total` are the
log-determinants of the rows, which are added to.
"""

from numba import float32, int64

from flows.engine import fields
from flows.engine.blocks import (
    LANES,
    TOGETHER,
    UNITS,
    activate,
    block,
    row_blocks,
    stay_apart,
    word,
)
from flows.engine.loop_cache import jit
from flows.engine.maps.loops import call_map

# mypy: ignore-errors
# numba compiles these functions by its own types.

# Units computed before their activations are, so that these find them in the nearest cache.
HOT_UNITS = 64
# Start values of a product.
FROM_THERE, FROM_BIASES = range(2)
# Features that the sampler takes at a time, or more if they have fewer hidden units than this.
BLOCK_FEATURES, BLOCK_UNITS = 4, 32


@jit()
def compute_product(line, units, inputs, start, space, below, vectors):
    """Compute a range of units of a matrix from a range of its inputs, as far as they see it.

    The sums begin with the biases or with the present values. `below` is the offset of all inputs;
    there are so many vectors of rows in the tile, 0 of a single row.
    """
    stay_apart()
    panels, reach = word(line, fields.PANELS), word(line, fields.REACH)
    row = 4 * LANES * vectors if vectors > 0 else 4
    source = space + row * (below + inputs[0])
    place = space + row * word(line, fields.PLACE)
    biases = word(line, fields.BIASES) if start == FROM_BIASES else 0
    unit = units[0]
    while unit < units[1]:
        if vectors == 0:
            end = min(unit // fields.PANEL * fields.PANEL + TOGETHER * fields.PANEL, units[1])
            row_blocks(panels, reach, (unit, end), inputs, biases, source, place)
            unit = end
            continue
        lane = unit % fields.PANEL
        count = min(fields.PANEL - lane, units[1] - unit)
        count = UNITS if count >= UNITS else 4 if count >= 4 else 2 if count >= 2 else 1
        depth = min(inputs[1], word(reach, unit + count - 1)) - inputs[0]
        weight = word(panels, unit // fields.PANEL) + 4 * (fields.PANEL * inputs[0] + lane)
        bias = biases + 4 * unit if start == FROM_BIASES else 0
        out = place + row * unit
        block(count, vectors, weight, 4, 4 * fields.PANEL, depth, source, row, out, row, bias)
        unit += count


@jit()
def _run_network(lines, matrices, activation, space, size, source):
    """Compute all units of a network from the values at `source`; return its outputs' offset."""
    stay_apart()
    below = source
    for index in range(matrices):
        line = lines + fields.LINE_BYTES * index
        place, width = word(line, fields.PLACE), word(line, fields.WIDTH)
        for start in range(0, width, HOT_UNITS):
            stop = min(start + HOT_UNITS, width)
            inputs = int64(0), word(word(line, fields.REACH), stop - 1)
            address, vectors = space.ctypes.data, size // LANES
            compute_product(line, (start, stop), inputs, FROM_BIASES, address, below, vectors)
            if index < matrices - 1:
                activate(activation, address + 4 * (place + start) * size, (stop - start) * size)
        below = place
    return below


@jit()
def run_networks(layer, space, size, inputs):
    """Compute a layer's networks; return the offset of the first parameter, and the step to the next."""
    matrices = layer[fields.MATRICES]
    out = _run_network(layer[fields.LINES], matrices, layer[fields.ACTIVATION], space, size, inputs)
    if layer[fields.LINES_2] == 0:
        return out, 1
    second = _run_network(
        layer[fields.LINES_2], matrices, layer[fields.ACTIVATION_2], space, size, inputs
    )
    return out, second - out


@jit()
def _map(layer, direction, features, parameters, step, cells, source, read, target, write, total):
    """Map some features, by parameters at an offset, with the step from one to the next."""
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
        int64(0),
        int64(total.ctypes.data),
    )
    call_map(layer[fields.MAP], words)


@jit()
def _copy_others(layer, cells, source, target, read, write):
    """Copy the features that a layer does not map."""
    for i in range(len(read)):
        if i < layer[fields.FIRST] or i >= layer[fields.END]:
            x, y = source + read[i], target + write[i]
            for j in range(cells.shape[1]):
                cells[y, j] = cells[x, j]


@jit()
def map_at_once(layer, direction, space, cells, inputs, source, target, read, write, total):
    """Map all features by parameters that the networks compute at once."""
    stay_apart()
    _copy_others(layer, cells, source, target, read, write)
    out, step = run_networks(layer, space, cells.shape[1], inputs)
    features = layer[fields.FIRST], layer[fields.END]
    _map(layer, direction, features, out, step, cells, source, read, target, write, total)


@jit()
def map_one_by_one(layer, space, cells, inputs, source, target, read, in_order, total):
    """Map noise to data through a masked network; each hidden unit is computed once.

    Features are taken in blocks: large products bring in what finished features contribute to a
    whole block, small ones do the rest inside it. `in_order` are the numbers of the features.
    """
    stay_apart()
    size, dim = cells.shape[1], layer[fields.END]
    address, vectors = space.ctypes.data, size // LANES
    last, kind = layer[fields.MATRICES] - 1, layer[fields.ACTIVATION]
    end_line = layer[fields.LINES] + fields.LINE_BYTES * last
    out = word(end_line, fields.PLACE)
    deepest = word(end_line - fields.LINE_BYTES, fields.PLACE) if last > 0 else inputs
    width = word(layer[fields.LINES], fields.WIDTH)
    block = max(BLOCK_FEATURES, BLOCK_UNITS * dim // width)
    step = dim + 1
    for i in range(dim, len(read)):
        for j in range(size):
            cells[target + i, j] = cells[source + read[i], j]
    _known_first(layer, space, size, inputs)
    for begin in range(0, dim, block):
        end = min(begin + block, dim)
        below, line, known = inputs, layer[fields.LINES], layer[fields.KNOWN]
        for _ in range(last + 1):
            units = word(known, step + begin), word(known, step + end)
            compute_product(
                line, units, (int64(0), word(known, begin)), FROM_BIASES, address, below, vectors
            )
            below, line, known = (
                word(line, fields.PLACE),
                line + fields.LINE_BYTES,
                known + 8 * step,
            )
        known -= 8 * step
        for i in range(begin, end):
            seen = word(known, begin), word(known, i)
            units = word(known, step + i), word(known, step + i + 1)
            compute_product(end_line, units, seen, FROM_THERE, address, deepest, vectors)
            feature = int64(i), int64(i + 1)
            _map(
                layer, fields.FORWARD, feature, out, 1, cells, source, read, target, in_order, total
            )
            if layer[fields.LEVELS] != 0:
                mark_level(layer, cells, inputs, target, i)
            below, line, known = inputs, layer[fields.LINES], layer[fields.KNOWN]
            for _ in range(last):
                units = word(known, step + i), word(known, step + i + 1)
                seen = word(known, begin), word(known, i + 1)
                compute_product(line, units, seen, FROM_THERE, address, below, vectors)
                below, line, known = (
                    word(line, fields.PLACE),
                    line + fields.LINE_BYTES,
                    known + 8 * step,
                )
                place = address + 4 * (below + units[0]) * size
                activate(kind, place, (units[1] - units[0]) * size)


@jit()
def _known_first(layer, space, size, inputs):
    """Compute the hidden units that a context alone makes known."""
    below, line, known = inputs, layer[fields.LINES], layer[fields.KNOWN]
    step = layer[fields.END] + 1
    for _ in range(layer[fields.MATRICES] - 1):
        units = int64(0), word(known, step)
        seen = int64(0), word(known, 0)
        compute_product(line, units, seen, FROM_BIASES, space.ctypes.data, below, size // LANES)
        below, line, known = word(line, fields.PLACE), line + fields.LINE_BYTES, known + 8 * step
        place = space.ctypes.data + 4 * below * size
        activate(layer[fields.ACTIVATION], place, units[1] * size)


@jit()
def mark_level(layer, cells, inputs, indices, variable):
    """Set the input of a variable's level to 1, and those of its other levels to 0."""
    first, end = word(layer[fields.KNOWN], variable), word(layer[fields.KNOWN], variable + 1)
    for slot in range(first, end):
        level = float32(slot - first)
        for j in range(cells.shape[1]):
            is_level = cells[indices + variable, j] == level
            cells[inputs + slot, j] = float32(1) if is_level else float32(0)
