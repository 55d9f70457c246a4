"""Errors that `flows` raises."""

from typing import Literal


class FlowError(Exception):
    """Base of every error of this package."""


SpecCode = Literal[
    "dimension-unsupported",
    "encoder-without-context",
    "family-unknown",
    "flow-unsuitable",
    "spec-invalid",
]


class SpecError(FlowError):
    """Specification that no flow can be built from.

    Attributes:
        code: Kind of fault, for programs.
        reason: Explanation for people.
    """

    def __init__(self, code: SpecCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FitError(FlowError):
    """Data, options or a saved state that a flow cannot be trained with."""


class StateMismatchError(FitError):
    """Saved state that belongs to another flow or training, or to another version of the code."""


class DivergedError(FlowError):
    """Log-likelihood that stopped being a finite number.

    Attributes:
        epoch: Epoch in which training diverged, counted from 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the log-likelihood stopped being finite in epoch {epoch}")
        self.epoch = epoch


class ElboDivergedError(FlowError):
    """ELBO, or gradient of it, that stopped being a finite number and did not recover.

    Attributes:
        iteration: Iteration at which training was given up, counted from 1.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(
            f"the ELBO or its gradient was not finite for too long, until iteration {iteration}"
        )
        self.iteration = iteration
