"""Callbacks that training calls between two steps."""

from collections.abc import Callable
from dataclasses import dataclass

from flows.training.state import FitInterrupted, FitState

OnStep = Callable[[int, int], None]
OnState = Callable[[Callable[[], FitState]], None]


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a caller, each of which may be missing.

    Attributes:
        on_step: Takes the number of finished steps and their total.
        on_state: Takes a function that returns the state of the training; valid until it returns.
        interrupted: Returns True if the training is to end.
    """

    on_step: OnStep | None
    on_state: OnState | None
    interrupted: Callable[[], bool] | None

    def step(self, done: int, total: int) -> None:
        """Report the number of finished steps."""
        if self.on_step is not None:
            self.on_step(done, total)

    def between_steps(self, state: Callable[[], FitState]) -> None:
        """Offer the state of the training, or end it.

        Raises:
            FitInterrupted: The training is to end.
        """
        if self.interrupted is not None and self.interrupted():
            raise FitInterrupted(state())
        if self.on_state is not None:
            self.on_state(state)
