"""Preprocessing between the data and the model, as it is chosen."""

from dataclasses import dataclass
from typing import Literal

Space = Literal["data", "model"]
"""Units of rows: those of the data, or those of the model behind its preprocessing."""

DENOISE_KNOTS = 130
"""Quantiles of a column with wide noise: evenly spread, and two around the value that most rows share."""


MOST_REPEATED = 512
"""The most values of a column of which samples have no others."""


@dataclass(frozen=True)
class PreprocessingSpec:
    """Choice of preprocessing layers; the moments of `standardise` come from the training rows.

    Attributes:
        levels: Number of levels of integer values 0 to levels - 1; values are divided by it after
            noise has been added. None leaves the layer out.
        logit: Lambda of the logit layer; None leaves the layer out.
    """

    levels: int | None = None
    logit: float | None = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError("levels must be at least 1")
        if self.logit is not None and not 0 < self.logit < 0.5:
            raise ValueError("the lambda of logit must be above 0 and below 0.5")
