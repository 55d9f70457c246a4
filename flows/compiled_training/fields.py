"""Fields of the lines of a program (`flows.compiled_training.program`), and constants of its loops."""

import numpy as np

from flows.compiled.loops.micro_kernels import LANES, VECTORS

ROWS = LANES * VECTORS
# Panels whose values should stay in the second cache while the weights of a layer pass.
TILE_PANELS = 8

MAPPED, NORM, CATEGORICAL = range(3)
# A layer: its kind; places of its input and output; features of a row; in the index, the place of
# each feature in the output, and the line of its mask.
KIND, SOURCE, TARGET, WIDTH, PLACES, SEEN, GRAD_SOURCE, GRAD_TARGET = range(8)
# A layer of maps: its moved features as first, step and number; the kept ones in the index, and
# their number; places of the networks' outputs and of their gradients; parameters of a map; its
# first matrix, and their number in each of its networks; its kind of map, as `writer.MAPS` counts
# them, and where the numbers are that all its maps share.
FIRST, STEP, MOVED, KEPT, KEPTS, OUT, GRAD_OUT, OUTPUTS, MATRIX, MATRICES, NETWORKS = range(8, 19)
MAP, NUMBERS = range(19, 21)
# Categorical variables: their number and the block of their levels; in the index, the first output,
# number of levels and openness of each; where the logarithms are that these add; and, as for an
# affine layer, the outputs, their gradients, their number, and the matrices.
VARIABLES, LEVELS, STARTS, LOGS, OUTS = range(8, 13)
# A batch norm: its parameters, in the flat vector; its statistics; whether these follow batches.
GAIN, OFFSET, STATISTICS, RUNNING = range(8, 12)
# A matrix: units and inputs; weights, their line and biases in the flat vector; the block of the
# inputs with its width, first unit and step; the block of the outputs with its width and first
# unit; blocks of their gradients; activation; in the index, the inputs that each unit sees, and the
# first unit of a group that sees each input; groups; the weights of the context and their line, and
# the first value of the context that they are for, and how many these are.
# fmt: off
(UNITS_OUT, UNITS_IN, WEIGHT, LINE, BIAS, IN, IN_WIDTH, IN_FIRST, IN_STEP, UP, UP_WIDTH, UP_FIRST,
 GRAD_IN, GRAD_UP, ACTIVATION, REACH, FROM, GROUPS, CONTEXT, CONTEXT_LINE, GIVEN, GIVENS) = range(22)
# fmt: on
MATRIX_FIELDS = 22

FORTH, BACK = range(2)
# What batch norms normalise a batch by: the statistics that they hold; those of the batch; or those of
# the batch, which they hold afterwards.
HELD, OWN, SETTLED = range(3)
EPS = np.float32(1e-5)
LEAST_OBSERVED = 32
LEAST_SPREAD = np.float32(1.0)
LARGEST = np.finfo(np.float32).max
UNSEEN = -1
# Adam's decay of the moments.
BETA1, BETA2 = 0.9, 0.999
