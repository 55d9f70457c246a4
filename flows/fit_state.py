"""Everything that training needs to go on where it stopped."""

from dataclasses import dataclass

from torch import Tensor

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, eq=False)
class FitState:
    """A training, stopped at the end of an epoch or between two batches.

    Attributes:
        tensors: weights, statistics and the optimiser's moments, now and at the best epoch.
        meta: the rest, as JSON: no value in it is NaN or infinite.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Json]
