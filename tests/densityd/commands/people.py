"""Rows of the model `people`."""

import numpy as np

ROWS = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))
