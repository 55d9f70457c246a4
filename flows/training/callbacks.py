"""Functions that a training calls between two steps."""

from collections.abc import Callable
from dataclasses import dataclass

from flows.training.state import FitInterrupted, FitState

OnStep = Callable[[int, int], None]
OnState = Callable[[Callable[[], FitState]], None]


@dataclass(frozen=True)
class Callbacks:
    """Functions of a caller, each of which may be missing.

    Attributes:
        on_step: takes the steps that are done and how many there will be.
        on_state: takes a function that gives the state of the training, until it returns.
        interrupted: tells that the training is to end.
    """

    on_step: OnStep | None
    on_state: OnState | None
    interrupted: Callable[[], bool] | None

    def step(self, done: int, total: int) -> None:
        """Tell how many steps are done."""
        if self.on_step is not None:
            self.on_step(done, total)

    def between_steps(self, state: Callable[[], FitState]) -> None:
        """Offer the state of the training, or end it.

        Raises:
            FitInterrupted: the training is to end.
        """
        if self.interrupted is not None and self.interrupted():
            raise FitInterrupted(state())
        if self.on_state is not None:
            self.on_state(state)
