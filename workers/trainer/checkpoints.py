"""Files of a trainer: a checkpoint now and then, and the model at the end."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version as installed_version
from typing import Any, TypeVar

from flows import (
    FitState,
    Flow,
    FlowSpec,
    StateMismatchError,
    count_parameters,
    spec_to_dict,
)
from models_store.errors import BlobDiskError, BlobError, StorageFullError
from models_store.files.blobs import Blobs, checkpoint_key, model_key
from models_store.files.checkpoints import load_state, save_model, save_state
from models_store.requests.training import Preprocessing
from workers.protocol import CheckpointRef, ModelTask, Trained
from workers.trainer.progress import Teller

_SHARE = 0.02
_OTHER_CODE = (
    "The checkpoint of {unit} {count} is of another version of the service ({error}); training starts"
    " from the beginning."
)

T = TypeVar("T")


class Checkpoints:
    """Checkpoints of one attempt, by epoch or iteration, each of which is told with a report."""

    def __init__(self, task: ModelTask, blobs: Blobs, teller: Teller, *, unit: str) -> None:
        self._task = task
        self._blobs = blobs
        self._teller = teller
        self._unit = unit
        self._number = 0
        self._saved_at = -math.inf
        self._within_at = time.monotonic() + task.long_epoch_s
        self._pause_s = task.checkpoint_interval_s

    def resume(self, flow: Flow, work: Callable[[FitState | None], T]) -> T:
        """Return the result of work on a flow, which goes on from the newest whole state that fits it."""
        state = self._newest()
        if state is None:
            return work(None)
        initial = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
        try:
            return work(state)
        except StateMismatchError as error:
            count = self._task.checkpoints[0].epoch
            text = _OTHER_CODE.format(unit=self._unit, count=count, error=error)
            self._teller.note(text)
        flow.load_state_dict(initial)
        return work(None)

    def _newest(self) -> FitState | None:
        """Return the newest state that is whole, or None to start from the beginning."""
        for at in self._task.checkpoints:
            try:
                return load_state(self._blobs, at.key, at.sha256)
            except BlobDiskError:
                raise
            except BlobError as error:
                text = f"The checkpoint of {self._unit} {at.epoch} is unusable: {error}"
                self._teller.note(text)
        if self._task.checkpoints:
            self._teller.note("No checkpoint is usable; training starts from the beginning.")
        return None

    def report(self, snapshot: Callable[[], FitState]) -> None:
        """Report an epoch, with the state of training unless the last time was a moment ago.

        Raises:
            StorageFullError: Nothing was stored.
        """
        is_due = time.monotonic() - self._saved_at >= self._pause_s
        self._teller.report(self._save_timed(snapshot) if is_due else None)

    def report_within(self, snapshot: Callable[[], FitState]) -> None:
        """Report the state of training within a long epoch, if the last time was long ago.

        Raises:
            StorageFullError: Nothing was stored.
        """
        if time.monotonic() >= self._within_at and (saved := self._save_timed(snapshot)):
            self._teller.report(saved)

    def stop(self, state: FitState) -> None:
        """Tell that training was interrupted, with its state if that can be stored."""
        saved = None
        with suppress(BlobError, StorageFullError):
            saved = self._save(state)
        self._teller.stop(saved)

    def _save_timed(self, snapshot: Callable[[], FitState]) -> CheckpointRef | None:
        """Store a state; a bucket that is unavailable costs checkpoints, not the training."""
        began = time.monotonic()
        try:
            saved = self._save(snapshot())
        except BlobError as error:
            if not self._blobs.is_remote:
                raise
            saved = None
            self._teller.note(f"A checkpoint could not be stored: {error}")
        self._saved_at = time.monotonic()
        took_s = self._saved_at - began
        self._pause_s = _pause_s(self._task.checkpoint_interval_s, took_s)
        self._within_at = self._saved_at + _pause_s(self._task.long_epoch_s, took_s)
        return saved and saved.model_copy(update={"seconds": took_s})

    def _save(self, state: FitState) -> CheckpointRef:
        self._number += 1
        key = checkpoint_key(self._task.job_id, self._task.attempt, number=self._number)
        stored = save_state(self._blobs, key, state)
        return CheckpointRef(
            key=stored.key,
            sha256=stored.sha256,
            epoch=state.counted(self._unit),
            step=state.step,
            bytes=stored.bytes,
        )


def _pause_s(wanted_s: float, took_s: float) -> float:
    """Return the seconds between checkpoints, so that those of a large flow take little time, too."""
    return max(wanted_s, took_s / _SHARE) if wanted_s > 0 else 0.0


def store(  # noqa: PLR0913  where to, the flow, and the other fields of its version
    task: ModelTask,
    blobs: Blobs,
    flow: Flow,
    *,
    spec: FlowSpec,
    columns: list[str],
    preprocessing: Preprocessing,
    seed: int,
    metrics: dict[str, Any],
    context_columns: Sequence[str] = (),
    types: list[dict[str, Any]] | None = None,
    target: dict[str, Any] | None = None,
    held_out: dict[str, Any] | None = None,
    unusual: dict[str, Any] | None = None,
) -> Trained:
    """Store the model of a trained flow and return the message that describes it; see `NewVersion`.

    Raises:
        StorageFullError: Nothing was stored.
    """
    described: dict[str, Any] = {
        "columns": columns,
        "context_columns": list(context_columns),
        "types": types,
        "preprocessing": preprocessing.model_dump(),
    }
    stored = save_model(blobs, model_key(task.job_id, task.attempt), flow, spec=spec, **described)
    dim, context_dim = len(columns), len(context_columns)
    version = described | {
        "family": spec.family,
        "dim": dim,
        "flow": spec_to_dict(spec),
        "parameters": count_parameters(spec, dim, context_dim),
        "metrics": metrics,
        "dataset_id": None if task.dataset is None else task.dataset.id,
        "dataset_sha256": None if task.dataset is None else task.dataset.sha256,
        "target": target,
        "held_out": held_out,
        "unusual": unusual,
        "seed": seed,
        "code_version": installed_version("densityd"),
        "checkpoint_key": stored.key,
        "checkpoint_sha256": stored.sha256,
        "checkpoint_bytes": stored.bytes,
    }
    return Trained(metrics=metrics, version=version)


def finite(value: float) -> float | None:
    """Return the value of a metric, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None
