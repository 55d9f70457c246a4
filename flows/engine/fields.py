"""Fields of the integers that encode a flow, so that compiled loops count no references."""

# A layer, as both engines and the maps know it: the address of its map; the first feature that it maps,
# and the one after the last; the addresses of the offset of the first parameter of each of these, and of
# the map's numbers, and the bytes from those of a feature to the next; the address of the masks' offsets,
# 0 if all features are observed; the offset of units that a map may write to; the number of matrices in
# each of its networks.
MAP, FIRST, END, OFFSETS, NUMBERS, NUMBER_BYTES, MASKS, SCRATCH, MATRICES = range(9)
# What serving knows more: whether it is masked; whether its directions are swapped; how many context
# values its networks read before the features; for either network the address of the lines, 0 if there
# is none, and the activation; for a masked layer, how many units of the inputs and of each layer are known
# with the first 0, 1, ... features; whether the map has a density; whether it maps levels.
(
    MASKED,
    INVERTED,
    CONTEXT,
    LINES,
    ACTIVATION,
    LINES_2,
    ACTIVATION_2,
    KNOWN,
    HAS_DENSITY,
    LEVELS,
) = range(9, 19)
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
# Those whose gradient follows from their results come first: training knows them alone.
ACTIVATIONS = ("relu", "tanh", "elu", "gelu")
RELU, TANH, ELU, GELU = range(4)
# Directions of a map: data to noise, noise to data, and data to their own log density, whose noise is 0.
INVERSE, FORWARD, DENSITY = range(3)
