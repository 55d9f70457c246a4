"""Places of values in panels of `ROWS` rows, features first, a row in each lane of the vector unit.

A block of values is an array [panel, unit, row]; its place is counted in units, of `ROWS` numbers
for each panel.
"""

from typing import no_type_check

from flows.compiled.loops.functions import jit
from flows.compiled_training.fields import FORTH, KEPT, KEPTS, PLACES, ROWS, WIDTH

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def place_of(panels, block, width, unit, panel):
    """Return where the rows of a unit begin."""
    return (block * panels + panel * width + unit) * ROWS


@jit()
@no_type_check
def mask_at(shown, panels, line, panel):
    """Return where the mask of a feature begins; one line stands for all if none is missing."""
    lines = len(shown) // (panels * ROWS)
    return place_of(panels, 0, lines, min(line, lines - 1), panel)


@jit()
@no_type_check
def keep(layer, index, values, panels, blocks, way):
    """Copy the kept features from a layer's input to its output, or back."""
    width = layer[WIDTH]
    for panel in range(panels):
        for k in range(layer[KEPTS]):
            i = index[layer[KEPT] + k]
            x = place_of(panels, blocks[0], width, i, panel)
            u = place_of(panels, blocks[1], width, index[layer[PLACES] + i], panel)
            source, target = (x, u) if way == FORTH else (u, x)
            for j in range(ROWS):
                values[target + j] = values[source + j]
