"""What training tells after each epoch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from flows.training.state import FitState

StopReason = Literal["patience", "max_epochs", "max_seconds"]


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave. Log-likelihoods are means over rows, in nats, in the data's units.

    Attributes:
        epoch: counted from 1.
        train_log_likelihood: the mean over the epoch's batches, each before its own step.
        validation_log_likelihood: after the epoch, in evaluation mode; -inf if the density of a row
            is 0.
        robust_validation_log_likelihood: a mean that single rows cannot ruin (`flows.training.robust`),
            which is what early stopping watches; without `row_loss_bound` the plain one.
        best_epoch: the epoch with the best robust validation likelihood so far.
        best_validation_log_likelihood: its plain validation likelihood.
        rows_per_second: of the epoch's training, evaluation left out.
        seconds: since the training began, earlier runs of a resumed one included.
        restarts: how often the training has gone back to its best state, as it had diverged.
        stop_reason: why this epoch is the last one; None if it is not.
    """

    epoch: int
    train_log_likelihood: float
    validation_log_likelihood: float
    robust_validation_log_likelihood: float
    best_epoch: int
    best_validation_log_likelihood: float
    rows_per_second: float
    seconds: float
    restarts: int
    stop_reason: StopReason | None
    _state: Callable[[], FitState] = field(repr=False, compare=False)

    def snapshot(self) -> FitState:
        """Where training can go on from after this epoch.

        Raises:
            FlowError: training has already gone on.
        """
        return self._state()
