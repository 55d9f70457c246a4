"""Progress of jobs, and the time that is left."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flows import FitOptions, FitState, Table, VariationalOptions
from flows.table import in_order_of
from workers.protocol import EpochDone, Interrupted, Send, Tick
from workers.trainer.checkpoints import Checkpoints

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
    """Evaluation of trained flows: what is scored, checkpoints of it, and signs of life with its progress.

    Attributes:
        rows: Number of rows to score; one that several flows score counts as several.
        flows: Number of flows that score each row from now on.
        finished: Metrics of the parts that are scored.

    Args:
        rows: Number of rows to score, as above.
        send: Function that sends a message.
        interrupted: Function that returns True once the trainer is to end.
        checkpoints: Checkpoints of the attempt.
        state: State of what is evaluated, to which scores are added; `state.meta` counts an epoch.
        before: State of an earlier attempt, in which this evaluation goes on.
        trained: Metrics and progress of the training before it; None: there was none.
    """

    def __init__(  # noqa: PLR0913 - the work has all of it
        self,
        rows: int,
        send: Send,
        *,
        interrupted: Callable[[], bool],
        checkpoints: Checkpoints,
        state: FitState,
        before: FitState | None = None,
        trained: tuple[dict[str, Any], dict[str, Any]] | None = None,
    ) -> None:
        self.rows, self.flows = rows, 1
        self.finished: dict[str, Any] = {}
        self._scores: dict[str, list[Tensor]] = {}
        self._before: dict[str, Tensor] = {}
        self._send = send
        self._interrupted = interrupted
        self._checkpoints = checkpoints
        self._state = state
        self._trained = trained
        self._done = self._done_before = 0
        if before is not None:
            self._resume(before)
        self._began_at = self._ticked_at = time.monotonic()

    def scores(self, name: str) -> list[Tensor]:
        """Return the scores of the first rows of a part, to which those of the next ones are appended."""
        if name not in self._scores:
            before = self._before.pop(name, None)
            self._scores[name] = [] if before is None else [before]
            self._skip(0 if before is None else len(before))
        return self._scores[name]

    def finish(self, name: str, metrics: dict[str, Any], *, rows: Table) -> None:
        """Keep the metrics of a part with these rows, and no scores of it any more."""
        self.finished |= {**metrics, f"{name}_rows": len(rows)}
        del self._scores[in_order_of(rows, name)]

    def is_finished(self, name: str) -> bool:
        """Return whether an earlier attempt, or this one, has the metrics of a part."""
        return f"{name}_rows" in self.finished

    def scored(self, rows: int) -> None:
        """Count rows that were scored; store a checkpoint and tell of them now and then.

        Raises:
            EvaluationEndedError: The trainer is to end; the last message is sent.
            StorageFullError: A checkpoint could not be written.
        """
        self._done = min(self.rows, self._done + rows * self.flows)
        metrics, progress = self._trained or ({}, {})
        if self._interrupted():
            last = self._checkpoints.save_last(self._now())
            self._send(Interrupted(metrics=metrics, progress=progress, checkpoint=last))
            raise EvaluationEndedError
        saved = self._checkpoints.save_within(self._now)
        if saved is not None:
            self._send(EpochDone(metrics=metrics, progress=progress, checkpoint=saved))
        now = time.monotonic()
        if now - self._ticked_at >= _TICK_S:
            self._ticked_at = now
            self._send(Tick(progress=self._progress(now - self._began_at)))

    def _resume(self, before: FitState) -> None:
        for name, tensor in before.tensors.items():
            group, _, part = name.partition("/")
            if group == "scores":
                self._before[part] = tensor
        finished = before.meta["finished"]
        if not isinstance(finished, dict):
            raise TypeError("a state holds the metrics of the parts that are scored")
        self.finished = dict(finished)
        for name, value in finished.items():
            if name.endswith("_rows") and isinstance(value, int):
                self._skip(value)

    def _skip(self, rows: int) -> None:
        self._done = min(self.rows, self._done + rows * self.flows)
        self._done_before = min(self.rows, self._done_before + rows * self.flows)

    def _now(self) -> FitState:
        scores = {
            f"scores/{name}": torch.cat(pieces) for name, pieces in self._scores.items() if pieces
        }
        before = {f"scores/{name}": tensor for name, tensor in self._before.items()}
        meta = self._state.meta | {"finished": self.finished}
        return FitState(self._state.tensors | before | scores, meta)

    def _progress(self, seconds: float) -> dict[str, Any]:
        done = self._done - self._done_before
        left = round((self.rows - self._done) * seconds / max(1, done), 1)
        if self._trained is not None:
            return {**self._trained[1], "eta_seconds": left}
        return {
            "rows": self._done,
            "total_rows": self.rows,
            "fraction": round(self._done / max(1, self.rows), 4),
            "eta_seconds": left,
        }
