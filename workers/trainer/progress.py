"""What a trainer tells of its work: signs of life, its progress, and the time that is left."""

import math
import time
from collections.abc import Callable
from typing import Any

from workers.protocol import CheckpointRef, EpochDone, Interrupted, Note, Send, Task, Tick


class Teller:
    """Sender of signs of life and reports.

    Attributes:
        metrics: Metrics of the last report.
        position: Progress at the last report or sign of life.
    """

    def __init__(self, task: Task, send: Send, interrupted: Callable[[], bool]) -> None:
        self.send = send
        self.interrupted = interrupted
        self.metrics: dict[str, Any] = {}
        self.position: dict[str, Any] = {}
        self._tick_s = task.tick_s
        self._told_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Return whether the last message was a moment ago."""
        return time.monotonic() - self._told_at >= self._tick_s

    def tick(self, position: dict[str, Any] | None = None) -> None:
        """Tell the progress, if it is due; None: it is that of before."""
        if position is not None:
            self.position = position
        if self.is_due:
            self._told_at = time.monotonic()
            self.send(Tick(progress=self.position))

    def note(self, text: str) -> None:
        """Tell what the caller should read."""
        self.send(Note(text=text))

    def report(self, checkpoint: CheckpointRef | None) -> None:
        """Tell metrics and progress, with a checkpoint that is on disk."""
        self._told_at = time.monotonic()
        self.send(EpochDone(metrics=self.metrics, progress=self.position, checkpoint=checkpoint))

    def stop(self, checkpoint: CheckpointRef | None = None) -> None:
        """Tell that the work was interrupted."""
        self.send(Interrupted(metrics=self.metrics, progress=self.position, checkpoint=checkpoint))


class Progress:
    """Progress of a training, in epochs or iterations.

    Training ends `patience` epochs after the best one, or at `end`, or after `max_seconds`, whichever is
    first. As long as the model gets better that end moves away, and fraction and time left move with it.

    Args:
        unit: `epoch` or `iteration`.
        end: Most of them.
        patience: Those after the best one; None: all.
        max_seconds: Longest time over all attempts; None: any.
    """

    def __init__(
        self, unit: str, end: int, *, patience: int | None = None, max_seconds: float | None
    ) -> None:
        self._unit, self._end, self._patience = unit, end, patience or end
        self._max_seconds = max_seconds
        self._best = 0
        self._seconds, self._since = 0.0, time.monotonic()

    def reached(self, done: int, *, best: int, seconds: float) -> dict[str, Any]:
        """Return the progress after whole epochs, `seconds` of training into the job."""
        self._best, self._seconds, self._since = best, seconds, time.monotonic()
        return self.at(done)

    def at(self, done: float) -> dict[str, Any]:
        """Return the progress now, after some epochs and perhaps a part of one."""
        seconds = self._seconds + time.monotonic() - self._since
        end = min(self._end, self._best + self._patience)
        fraction = done / max(end, done, 1e-9)
        left = max(0.0, end - done) * seconds / done if done > 0 else None
        if self._max_seconds is not None:
            fraction = max(fraction, min(1.0, seconds / self._max_seconds))
            left = min(math.inf if left is None else left, max(0.0, self._max_seconds - seconds))
        return {
            self._unit: int(done),
            f"max_{self._unit}s": self._end,
            "fraction": round(fraction, 4),
            "eta_seconds": None if left is None else round(left, 1),
        }


class RowProgress:
    """Progress of a bulk job, in rows that are computed first and then written to a file.

    The time left follows from the pace of this attempt. How long writing takes is a guess until it
    has begun; it can be longer than computing.

    Args:
        first: Number of rows that earlier attempts have computed.
        write_s: Estimated seconds of writing.
    """

    def __init__(self, *, rows: int, first: int = 0, write_s: float) -> None:
        self._rows, self._first, self._write_s = rows, first, write_s
        # Of all rows, at the pace of this attempt; one that found them all does not know how long that took.
        self._compute_s: float | None = None
        self._fraction = 0.0

    def at(self, done: int, *, attempt_s: float) -> dict[str, Any]:
        """Return the progress after `done` rows are computed, `attempt_s` seconds into this attempt."""
        if done > self._first:
            self._compute_s = self._rows * attempt_s / (done - self._first)
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
    """Evaluation that was ended since its trainer was asked to end; it is repeated."""


class Evaluation:
    """Evaluation of trained flows, with signs of life.

    Attributes:
        rows: Number of rows to score; one that several flows score counts as several.
        flows: Number of flows that score each row from now on.

    Args:
        rows: Number of rows to score, as above.
        teller: Sender of the signs of life, whose position is that of the training before, if there was one.
    """

    def __init__(self, rows: int, teller: Teller) -> None:
        self.rows, self.flows = rows, 1
        self._teller, self._trained = teller, teller.position
        self._done = 0
        self._began_at = time.monotonic()

    def scored(self, rows: int) -> None:
        """Count rows that were scored, and tell of them now and then.

        Raises:
            EvaluationEndedError: The trainer is to end.
        """
        self._done = min(self.rows, self._done + rows * self.flows)
        if self._teller.interrupted():
            raise EvaluationEndedError
        pace_s = (time.monotonic() - self._began_at) / max(1, self._done)
        counted = {
            "rows": self._done,
            "total_rows": self.rows,
            "fraction": round(self._done / max(1, self.rows), 4),
        }
        left = {"eta_seconds": round((self.rows - self._done) * pace_s, 1)}
        self._teller.tick((self._trained or counted) | left)
