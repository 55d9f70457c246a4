"""Progress of jobs, and the time that is left."""

import math
import time
from collections.abc import Callable
from typing import Any

from flows import FitOptions, FitState, VariationalOptions
from workers.protocol import Send, Tick

_TICK_S = 0.5


class Progress:
    """Progress of a training, in epochs and batches.

    Training ends `patience` epochs after the best one, or at `max_epochs`, or after
    `max_seconds`, whichever is first. As long as the model gets better that end moves away, and
    fraction and time left move with it.

    Args:
        options: Options of the training.
    """

    def __init__(self, options: FitOptions) -> None:
        self._max_epochs = options.max_epochs
        self._patience = options.patience or options.max_epochs
        self._max_seconds = options.max_seconds
        self._epoch = 0
        self._best_epoch = 0
        self._seconds = 0.0

    def resumed(self, state: FitState) -> dict[str, Any]:
        """Return the progress where an earlier attempt left its state, perhaps within an epoch."""
        whole = state.counted("epoch") - (state.counted("batches") > 0)
        return self.epoch_done(whole, best_epoch=state.counted("best_epoch"), seconds=state.seconds)

    def epoch_done(self, epoch: int, *, best_epoch: int, seconds: float) -> dict[str, Any]:
        """Return the progress after a whole epoch, `seconds` of training into the job."""
        self._epoch, self._best_epoch, self._seconds = epoch, best_epoch, seconds
        return self._at(0.0, seconds)

    def batch_done(self, done: int, total: int, *, since_epoch_s: float) -> dict[str, Any]:
        """Return the progress within an epoch."""
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
    """Progress of a variational job, in iterations; the time left follows from this attempt's pace.

    Args:
        options: Options of the training.
    """

    def __init__(self, options: VariationalOptions) -> None:
        self._iterations = options.iterations
        self._max_seconds = options.max_seconds
        self._first: int | None = None
        self._seconds_before = 0.0

    def reported(self, *, seconds: float, attempt_s: float) -> None:
        """Record the training time so far, over all attempts and of this one."""
        self._seconds_before = max(0.0, seconds - attempt_s)

    def at(self, iteration: int, *, attempt_s: float) -> dict[str, Any]:
        """Return the progress after an iteration, `attempt_s` seconds into this attempt."""
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
    """Progress of a bulk job, in rows that are computed first and then written to a file.

    The time left follows from the pace of this attempt. How long writing takes is a guess until it
    has begun; it can be longer than computing.

    Args:
        rows: Number of rows of the result.
        write_s: Estimated seconds of writing.
    """

    def __init__(self, *, rows: int, write_s: float) -> None:
        self._rows = rows
        self._first = 0
        self._write_s = write_s
        self._compute_s: float | None = None  # of all rows, at the pace of this attempt
        self._fraction = 0.0

    def resumed(self, first: int) -> dict[str, Any]:
        """Return the progress when earlier attempts have computed `first` rows."""
        self._first = first
        return self.at(first, attempt_s=0.0)

    def at(self, done: int, *, attempt_s: float) -> dict[str, Any]:
        """Return the progress after `done` rows are computed, `attempt_s` seconds into this attempt."""
        fresh = done - self._first
        if fresh > 0:
            self._compute_s = self._rows * attempt_s / fresh
        left = self._write_s if done == self._rows else None
        if left is None and self._compute_s is not None:
            left = (1 - done / self._rows) * self._compute_s + self._write_s
        return self._view(done, self._computing * done / self._rows, left)

    def written(self, written: int, *, writing_s: float) -> dict[str, Any]:
        """Return the progress after `written` rows are in the file, `writing_s` seconds into writing."""
        share = written / self._rows
        left = self._write_s if written == 0 else (1 - share) * writing_s / share
        return self._view(self._rows, self._computing + (1 - self._computing) * share, left)

    @property
    def _computing(self) -> float:
        """Return the share of computing in the whole."""
        # An attempt that found all rows computed does not know how long that took.
        compute_s = self._write_s if self._compute_s is None else self._compute_s
        return compute_s / (compute_s + self._write_s)

    def _view(self, done: int, fraction: float, left: float | None) -> dict[str, Any]:
        self._fraction = max(self._fraction, fraction)  # the guess may change, but never goes back
        return {
            "rows": done,
            "total_rows": self._rows,
            "fraction": round(self._fraction, 4),
            "eta_seconds": None if left is None else round(left, 1),
        }


class EvaluationEndedError(Exception):
    """Evaluation that was ended since its trainer was asked to end."""


class Evaluation:
    """Evaluation of trained flows: signs of life with its progress. One that is interrupted is repeated.

    Attributes:
        rows: Number of rows to score; one that several flows score counts as several.
        flows: Number of flows that score each row from now on.

    Args:
        rows: Number of rows to score, as above.
        send: Function that sends a message.
        interrupted: Function that returns True once the trainer is to end.
        trained: Progress of the training before it; None: there was none.
    """

    def __init__(
        self,
        rows: int,
        send: Send,
        *,
        interrupted: Callable[[], bool],
        trained: dict[str, Any] | None = None,
    ) -> None:
        self.rows, self.flows = rows, 1
        self._send = send
        self._interrupted = interrupted
        self._trained = trained
        self._done = 0
        self._began_at = self._ticked_at = time.monotonic()

    def scored(self, rows: int) -> None:
        """Count rows that were scored, and tell of them now and then.

        Raises:
            EvaluationEndedError: The trainer is to end.
        """
        self._done = min(self.rows, self._done + rows * self.flows)
        if self._interrupted():
            raise EvaluationEndedError
        now = time.monotonic()
        if now - self._ticked_at >= _TICK_S:
            self._ticked_at = now
            self._send(Tick(progress=self._progress(now - self._began_at)))

    def _progress(self, seconds: float) -> dict[str, Any]:
        left = round((self.rows - self._done) * seconds / max(1, self._done), 1)
        if self._trained is not None:
            return {**self._trained, "eta_seconds": left}
        return {
            "rows": self._done,
            "total_rows": self.rows,
            "fraction": round(self._done / max(1, self.rows), 4),
            "eta_seconds": left,
        }
