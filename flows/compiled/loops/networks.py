"""Loops over the networks of a layer: products that stop at the masks, and activations."""

from typing import no_type_check

from numba import int64

from flows.compiled.loops.activations import activate
from flows.compiled.loops.blocks import block
from flows.compiled.loops.functions import jit
from flows.compiled.loops.micro_kernels import (
    LANES,
    TOGETHER,
    UNITS,
    row_blocks,
    stay_apart,
    word,
)
from flows.compiled.packed_fields import (
    ACTIVATION,
    ACTIVATION_2,
    BIASES,
    LINE_BYTES,
    LINES,
    LINES_2,
    MATRICES,
    PANEL,
    PANELS,
    PLACE,
    REACH,
    WIDTH,
)

# mypy: ignore-errors
# numba compiles these functions by its own types.

# Units computed before their activations are, so that these find them in the nearest cache.
HOT_UNITS = 64
# Start values of a product.
FROM_THERE, FROM_BIASES = range(2)


@jit()
@no_type_check
def compute_product(line, units, inputs, start, space, below, vectors):
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
        out = place + row * unit
        block(count, vectors, weight, 4, 4 * PANEL, depth, source, row, out, row, bias)
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
            compute_product(line, (start, stop), inputs, FROM_BIASES, address, below, vectors)
            if index < matrices - 1:
                activate(activation, space[(place + start) * size : (place + stop) * size])
        below = place
    return below


@jit()
@no_type_check
def run_networks(layer, space, size, inputs):
    """Compute a layer's networks; return the offset of the first parameter, and the step to the next."""
    matrices = layer[MATRICES]
    out = _run_network(layer[LINES], matrices, layer[ACTIVATION], space, size, inputs)
    if layer[LINES_2] == 0:
        return out, 1
    second = _run_network(layer[LINES_2], matrices, layer[ACTIVATION_2], space, size, inputs)
    return out, second - out
