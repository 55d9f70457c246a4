"""Split of the rows of a table into training, validation and test rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_store.requests.training import AcceptedSplit

Rows = NDArray[np.integer[Any]]


def split_rows(rows: int, split: AcceptedSplit) -> tuple[Rows, Rows, Rows]:
    """Return the row numbers of training, validation and test; equal for equal seeds, on any machine.

    Rows that rounding leaves over go to training, unless the fractions leave some out anyway.
    """
    order: Rows = (
        np.random.default_rng(split.seed).permutation(rows) if split.shuffle else np.arange(rows)
    )
    validation, test = int(rows * split.validation), int(rows * split.test)
    everything = split.train + split.validation + split.test > 1 - 1e-9
    train = rows - validation - test if everything else int(rows * split.train)
    return (
        order[:train],
        order[train : train + validation],
        order[train + validation : train + validation + test],
    )
