"""Fields of the integers that encode a layer and a flow for `flows.compiled.kernels`."""

# The structure of a flow is encoded in integers, so that the loops count no references. A layer:
# whether it is masked; whether its directions are swapped; how many context values its networks read
# before the features; the first feature that it maps, and the one after the last; the number of
# matrices in each of its networks, and for either network the address of the lines, 0 if there is
# none, and the activation; for a masked layer, how many units of the inputs and of each layer are
# known with the first 0, 1, ... features; the offset of the first parameter of each mapped feature; the
# addresses of the map and of its numbers, and the bytes from those of a feature to the next; whether
# the map has a density; whether it maps levels; the offsets of the masks of the features, 0 if all
# are observed; the offset of units that a map may write to.
(
    MASKED,
    INVERTED,
    CONTEXT,
    FIRST,
    END,
    MATRICES,
    LINES,
    ACTIVATION,
    LINES_2,
    ACTIVATION_2,
    KNOWN,
    OFFSETS,
    MAP,
    NUMBERS,
    NUMBER_BYTES,
    HAS_DENSITY,
    LEVELS,
    MASKS,
    SCRATCH,
) = range(19)
LAYER_SIZE = 19
# The shape of a flow: the units of a tile; the numbers of discrete variables, of features, of context
# values and, of these, of values that are no levels; the addresses of the variable whose index 0 says
# that a feature is observed, -1 for none, and of the masks of the noise; 0 if all are observed.
TILE_UNITS, VARIABLES, DIM, CONTEXT_DIM, GIVEN, STATES, NOISE_MASKS = range(7)
# A matrix: its number of units; the offset of their values in a work space, counted in units; and the
# addresses of the biases, of the panels' addresses, and of how many units of the layer below each
# unit sees. A panel holds the weights of `PANEL` units, which are contiguous.
WIDTH, PLACE, BIASES, PANELS, REACH = range(5)
LINE_BYTES = 40
PANEL = 8
ACTIVATIONS = ("relu", "tanh", "elu", "gelu")
RELU, TANH, ELU, GELU = range(4)
# Directions of a map: data to noise, noise to data, and data to their own log density, whose noise is 0.
INVERSE, FORWARD, DENSITY = range(3)
