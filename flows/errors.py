"""What `flows` raises."""


class FlowError(Exception):
    """The base of every error of this package."""


class SpecError(FlowError):
    """A description that no flow can be built from.

    Attributes:
        code: what is wrong, for programs: `dimension-unsupported`, `flow-unsuitable`,
            `encoder-without-context`, `family-unknown` or `spec-invalid`.
        reason: what is wrong, for people.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class FitError(FlowError):
    """Data, options or a saved state that a flow cannot be trained with."""


class DivergedError(FlowError):
    """The likelihood stopped being a finite number.

    Attributes:
        epoch: the epoch, counted from 1, in which it happened.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the log-likelihood stopped being finite in epoch {epoch}")
        self.epoch = epoch


class ElboDivergedError(FlowError):
    """The ELBO, or its gradient, stopped being a finite number and did not recover.

    Attributes:
        iteration: the iteration, counted from 1, in which training was given up.
    """

    def __init__(self, iteration: int) -> None:
        super().__init__(
            f"the ELBO or its gradient was not finite for too long, until iteration {iteration}"
        )
        self.iteration = iteration
