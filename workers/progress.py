"""How far a training is and when it may end."""

import math
from typing import Any


class Progress:
    """Counts epochs and batches against the end that is in sight.

    Training ends `patience` epochs after the best one, or at `max_epochs`, or after
    `max_seconds`, whichever is first. As long as the model gets better that end moves away, and
    fraction and time left move with it.

    Args:
        max_epochs: the last epoch there can be.
        patience: epochs without a better one after which training ends.
        max_seconds: training time after which it ends, None for no limit.
    """

    def __init__(self, *, max_epochs: int, patience: int, max_seconds: float | None) -> None:
        self._max_epochs = max_epochs
        self._patience = patience
        self._max_seconds = max_seconds
        self._epoch = 0
        self._best_epoch = 0
        self._seconds = 0.0

    def epoch_done(self, epoch: int, *, best_epoch: int, seconds: float) -> dict[str, Any]:
        """The progress after a whole epoch, `seconds` of training into the job."""
        self._epoch, self._best_epoch, self._seconds = epoch, best_epoch, seconds
        return self._at(0.0, seconds)

    def batch_done(self, done: int, total: int, *, since_epoch_s: float) -> dict[str, Any]:
        """The progress within an epoch."""
        return self._at(done / total, self._seconds + since_epoch_s)

    def _at(self, part: float, seconds: float) -> dict[str, Any]:
        end = min(self._max_epochs, self._best_epoch + self._patience)
        done = self._epoch + part
        fraction = done / max(end, done, 1e-9)
        left: float | None = None
        if done > 0:
            left = max(0.0, end - done) * seconds / done
        if self._max_seconds is not None:
            fraction = max(fraction, min(1.0, seconds / self._max_seconds))
            left = min(math.inf if left is None else left, max(0.0, self._max_seconds - seconds))
        return {
            "epoch": self._epoch,
            "max_epochs": self._max_epochs,
            "fraction": round(fraction, 4),
            "eta_seconds": None if left is None else round(left, 1),
        }


class IterationProgress:
    """Counts iterations; the time left follows from the pace of this attempt.

    Args:
        iterations: the last one there can be.
        max_seconds: training time, over all attempts, after which it ends; None for no limit.
    """

    def __init__(self, *, iterations: int, max_seconds: float | None) -> None:
        self._iterations = iterations
        self._max_seconds = max_seconds
        self._first: int | None = None
        self._seconds_before = 0.0

    def reported(self, *, seconds: float, attempt_s: float) -> None:
        """Takes note of the training time so far, over all attempts and of this one."""
        self._seconds_before = max(0.0, seconds - attempt_s)

    def at(self, iteration: int, *, attempt_s: float) -> dict[str, Any]:
        """The progress after an iteration, so many seconds into this attempt."""
        if self._first is None:
            self._first = iteration - 1
        left = (self._iterations - iteration) * attempt_s / (iteration - self._first)
        fraction = iteration / self._iterations
        if self._max_seconds is not None:
            seconds = self._seconds_before + attempt_s
            fraction = max(fraction, min(1.0, seconds / self._max_seconds))
            left = min(left, max(0.0, self._max_seconds - seconds))
        return {
            "iteration": iteration,
            "max_iterations": self._iterations,
            "fraction": round(fraction, 4),
            "eta_seconds": round(left, 1),
        }


class RowProgress:
    """Counts rows; the time left follows from the pace of this attempt.

    Args:
        rows: how many there will be.
        first: those that earlier attempts have done.
    """

    def __init__(self, *, rows: int, first: int) -> None:
        self._rows = rows
        self._first = first

    def at(self, done: int, *, attempt_s: float) -> dict[str, Any]:
        """The progress after so many rows, so many seconds into this attempt."""
        fresh = done - self._first
        left = (self._rows - done) * attempt_s / fresh if fresh > 0 else None
        if done == self._rows:
            left = 0.0
        return {
            "rows": done,
            "total_rows": self._rows,
            "fraction": round(done / self._rows, 4),
            "eta_seconds": None if left is None else round(left, 1),
        }
