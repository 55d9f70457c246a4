"""Fields of the lines of a program (`flows.engine.training.program`), and constants of its loops."""

import numpy as np

from flows.engine.fields import END, FIRST, MAP, MASKS, MATRICES, NUMBER_BYTES, RELU, TANH  # noqa: F401  known with these

# Panels whose values should stay in the second cache while the weights of a layer pass.
TILE_PANELS = 8

MAPPED, NORM = range(2)
# A layer, after what its maps know of it (`flows.engine.fields`): its kind; places of its input and
# output, and the features of either; the addresses of the place of each feature in the input and in the
# output; places of the gradients of both.
KIND, SOURCE, TARGET, WIDTH, READ, WRITE, GRAD_SOURCE, GRAD_TARGET = range(9, 17)
# A layer of maps: places of the networks' outputs and of their gradients, and how many these are; the
# step from a parameter of a map to the next; its first matrix, and the number of its networks; whether
# the gradients of what these read are wanted.
OUT, GRAD_OUT, OUTS, STEP, MATRIX, NETWORKS, WIDE = range(17, 24)
# A batch norm: its parameters, in the flat vector; its statistics.
GAIN, OFFSET, STATISTICS = range(17, 20)
LAYER_FIELDS = 24
# A matrix: units and inputs; weights, their line and biases in the flat vector; the block of the
# inputs with its width; the block of the outputs with its width and first unit; blocks of their
# gradients; activation; in the index, the inputs that each unit sees, and the first unit of a group
# that sees each input; groups; the weights of the context and their line, and the first value of the
# context that they are for, and how many these are.
# fmt: off
(UNITS_OUT, UNITS_IN, WEIGHT, LINE, BIAS, IN, IN_WIDTH, UP, UP_WIDTH, UP_FIRST,
 GRAD_IN, GRAD_UP, ACTIVATION, REACH, FROM, GROUPS, CONTEXT, CONTEXT_LINE, GIVEN, GIVENS) = range(20)
# fmt: on
MATRIX_FIELDS = 20
# The blocks of a batch: context, rows, levels and masks, and the lines of the masks, of which the last
# is 1 in every row; and the address of the place of each feature in the first layer.
CONTEXTS, ROW_BLOCK, LEVEL_BLOCK, MASK_BLOCK, MASK_LINES, PLACES = range(6)

FORTH, BACK = range(2)
# What batch norms normalise a batch by: the statistics that they hold, or those of the batch, which they
# follow.
HELD, OWN = range(2)
EPS = np.float32(1e-5)
LEAST_OBSERVED = 32
LEAST_SPREAD = np.float32(1.0)
LARGEST = np.finfo(np.float32).max
