"""The work of one training job: a plain function from a task to messages.

It writes durable files and nothing else, so it may be killed at any moment and started again;
what comes out is the same bit for bit on the same kind of CPU and number of threads.
"""

import math
import time
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch

from flows import (
    DivergedError,
    EpochReport,
    FitInterrupted,
    FitOptions,
    FitState,
    Flow,
    StepSchedule,
    build,
    count_parameters,
    evaluate,
    fit,
    spec_to_dict,
)
from models_store.blobs import BlobStore, StoredBlob, checkpoint_key, model_key
from models_store.checkpoints import load_state, save_model, save_state
from models_store.errors import BlobError, StorageFullError
from models_store.schemas import AcceptedOptimisation, AcceptedTraining, StepSchedule as StepRequest
from workers.data import Parts, load_parts, moments
from workers.discrete import Noise, column_noise
from workers.errors import TrainingError
from workers.progress import Progress
from workers.protocol import (
    CheckpointRef,
    EpochDone,
    Interrupted,
    Message,
    Note,
    Tick,
    Trained,
    TrainingTask,
)

Send = Callable[[Message], None]

_TICK_S = 0.5
_CHECKPOINT_SHARE = 0.02
_RESTARTED = (
    "The likelihood stopped being a finite number before epoch {epoch} was done; training went"
    " back to the best state so far and goes on with a tenth of the learning rate."
)
_DIVERGED = (
    "The likelihood stopped being a finite number in epoch {epoch}. A lower learning rate,"
    " standardised data or batch norm may help."
)


def train(task: TrainingTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Train, evaluate and store the flow that `task` asks for.

    The last message is `Trained`, or `Interrupted` once `interrupted()` is true.

    Args:
        task: what to do.
        send: takes each message.
        interrupted: asked between two batches.

    Raises:
        TrainingError: the job cannot succeed.
        StorageFullError: a checkpoint or the model could not be written.
    """
    torch.set_num_threads(task.threads)
    request = AcceptedTraining.model_validate(task.request)
    device = find_device(task.device)
    blobs = BlobStore(Path(task.blob_root))
    parts = load_parts(task, blobs, split=request.split, columns=request.columns).to(device)
    noise = None
    if request.preprocessing.dequantise == "auto":
        noise = column_noise(parts.train[:, : len(request.columns)])
        for text in noise.notes(request.columns) if not task.checkpoints else ():
            send(Note(text=text))
    flow = _build(request, parts, noise).to(device)
    run = _Run(task, request, blobs=blobs, send=send)
    try:
        metrics = run.fit(flow, parts, interrupted=interrupted)
    except DivergedError as error:
        raise TrainingError("diverged", _DIVERGED.format(epoch=error.epoch)) from error
    except FitInterrupted as error:
        run.interrupt(error.state)
        return
    reached = _likelihoods(flow, parts, on_chunk=run.tick)
    run.finish(flow, metrics | {"epochs": metrics["epoch"]} | reached)


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one.

    Raises:
        TrainingError: there is no such device; another is never taken instead.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError("device_unavailable", f"This worker has no device {name}.")
    return device


class _Run:
    """One training under way: its messages and its files."""

    def __init__(
        self, task: TrainingTask, request: AcceptedTraining, *, blobs: BlobStore, send: Send
    ) -> None:
        choices = request.optimisation
        self._task = task
        self._request = request
        self._blobs = blobs
        self._send = send
        self._progress = Progress(
            max_epochs=choices.max_epochs,
            patience=choices.patience,
            max_seconds=choices.max_seconds,
        )
        self._metrics: dict[str, Any] = {}
        self._position: dict[str, Any] = {}
        now = time.monotonic()
        self._epoch_began_at = now
        self._ticked_at = now
        self._saved_at = -math.inf
        self._pause_s = task.checkpoint_interval_s

    def fit(self, flow: Flow, parts: Parts, *, interrupted: Callable[[], bool]) -> dict[str, Any]:
        """Fit `flow` in place, from the newest checkpoint that is whole; the final metrics."""
        reports = fit(
            flow,
            parts.train,
            parts.validation,
            options=_options(self._request.optimisation),
            state=self._newest_state(),
            on_batch=self._on_batch,
            interrupted=interrupted,
        )
        for report in reports:
            self._on_epoch(report)
        return self._metrics

    def interrupt(self, state: FitState) -> None:
        """Store where training stands, between two batches."""
        try:
            checkpoint = self._save(state, epoch=self._metrics.get("epoch", 0) + 1)
        except StorageFullError:
            # The checkpoint of the last whole epoch is still good.
            checkpoint = None
        self._send(
            Interrupted(metrics=self._metrics, progress=self._position, checkpoint=checkpoint)
        )

    def finish(self, flow: Flow, metrics: dict[str, Any]) -> None:
        """Store the model and say what it is."""
        request = self._request
        stored = save_model(
            self._blobs,
            model_key(self._task.job_id, self._task.attempt),
            flow,
            spec=request.flow,
            columns=request.columns,
            preprocessing=request.preprocessing.model_dump(),
        )
        version = self._version(stored, metrics)
        self._send(Trained(metrics=metrics, version=version))

    def tick(self) -> None:
        """Say that the trainer is alive, where it was last."""
        if self._tick_is_due():
            self._send(Tick(progress=self._position))

    def _on_batch(self, done: int, total: int) -> None:
        if self._tick_is_due():
            self._position = self._progress.batch_done(
                done, total, since_epoch_s=self._ticked_at - self._epoch_began_at
            )
            self._send(Tick(progress=self._position))

    def _tick_is_due(self) -> bool:
        now = time.monotonic()
        if now - self._ticked_at < _TICK_S:
            return False
        self._ticked_at = now
        return True

    def _on_epoch(self, report: EpochReport) -> None:
        now = self._epoch_began_at = self._ticked_at = time.monotonic()
        if report.restarts > self._metrics.get("restarts", 0):
            self._send(Note(text=_RESTARTED.format(epoch=report.epoch)))
        self._metrics = _epoch_metrics(report)
        self._position = self._progress.epoch_done(
            report.epoch, best_epoch=report.best_epoch, seconds=report.seconds
        )
        checkpoint = None
        # None after the last epoch: the model itself follows.
        if report.stop_reason is None and now - self._saved_at >= self._pause_s:
            checkpoint = self._save(report.snapshot(), epoch=report.epoch)
            self._saved_at = time.monotonic()
            self._pause_s = _pause_s(self._task.checkpoint_interval_s, self._saved_at - now)
        self._send(EpochDone(metrics=self._metrics, progress=self._position, checkpoint=checkpoint))

    def _save(self, state: FitState, *, epoch: int) -> CheckpointRef:
        key = checkpoint_key(self._task.job_id, self._task.attempt, epoch=epoch)
        stored = save_state(self._blobs, key, state)
        return CheckpointRef(key=stored.key, sha256=stored.sha256, epoch=epoch)

    def _newest_state(self) -> FitState | None:
        for at in self._task.checkpoints:
            try:
                state = load_state(self._blobs, at.key, at.sha256)
            except BlobError as error:
                self._send(Note(text=f"The checkpoint of epoch {at.epoch} is unusable: {error}"))
            else:
                return state
        if self._task.checkpoints:
            self._send(Note(text="No checkpoint is usable; training starts from the beginning."))
        return None

    def _version(self, stored: StoredBlob, metrics: dict[str, Any]) -> dict[str, Any]:
        request = self._request
        return {
            "family": request.flow.family,
            "dim": len(request.columns),
            "columns": request.columns,
            "flow": spec_to_dict(request.flow),
            "preprocessing": request.preprocessing.model_dump(),
            "parameters": count_parameters(request.flow, len(request.columns)),
            "metrics": metrics,
            "dataset_id": self._task.dataset.id,
            "dataset_sha256": self._task.dataset.sha256,
            "seed": request.optimisation.seed,
            "code_version": installed_version("densityd"),
            "checkpoint_key": stored.key,
            "checkpoint_sha256": stored.sha256,
            "checkpoint_bytes": stored.bytes,
        }


def _build(request: AcceptedTraining, parts: Parts, noise: Noise | None) -> Flow:
    standardise = (
        moments(parts.train, request.columns) if request.preprocessing.standardise else None
    )
    return build(
        request.flow,
        len(request.columns),
        standardise=standardise,
        steps=None if noise is None else noise.steps,
        widths=None if noise is None else noise.widths,
        seed=request.optimisation.seed,
    )


def _options(choices: AcceptedOptimisation) -> FitOptions:
    schedule = choices.schedule
    return FitOptions(
        optimiser=choices.optimiser,
        learning_rate=choices.learning_rate,
        weight_decay=choices.weight_decay,
        max_gradient_norm=choices.max_gradient_norm,
        batch_size=choices.batch_size,
        max_epochs=choices.max_epochs,
        patience=choices.patience,
        max_seconds=choices.max_seconds,
        schedule=StepSchedule(schedule.step.epochs, schedule.step.factor)
        if isinstance(schedule, StepRequest)
        else schedule,
        row_loss_bound=choices.row_loss_bound,
        weight_average=choices.weight_average,
        noise=choices.noise,
        restarts=choices.restarts,
        seed=choices.seed,
    )


def _epoch_metrics(report: EpochReport) -> dict[str, Any]:
    return {
        "epoch": report.epoch,
        "train_log_likelihood": report.train_log_likelihood,
        "validation_log_likelihood": _finite(report.validation_log_likelihood),
        "robust_validation_log_likelihood": report.robust_validation_log_likelihood,
        "best_epoch": report.best_epoch,
        "best_validation_log_likelihood": _finite(report.best_validation_log_likelihood),
        "rows_per_second": round(report.rows_per_second, 1),
        "seconds": round(report.seconds, 3),
        "restarts": report.restarts,
        "stop_reason": report.stop_reason,
    }


def _likelihoods(flow: Flow, parts: Parts, *, on_chunk: Callable[[], None]) -> dict[str, Any]:
    """What the best model reaches on each part, as means and their standard errors."""
    metrics: dict[str, Any] = {}
    for name, rows in (
        ("train", parts.train),
        ("validation", parts.validation),
        ("test", parts.test),
    ):
        if rows is not None:
            reached = evaluate(flow, rows, on_chunk=on_chunk)
            metrics[f"{name}_log_likelihood"] = _finite(reached.mean)
            metrics[f"{name}_standard_error"] = _finite(reached.two_standard_errors / 2)
            metrics[f"{name}_rows"] = reached.rows
    return metrics


def _pause_s(least_s: float, took_s: float) -> float:
    """Until the next checkpoint: those of a large flow take a small share of the time, too."""
    return max(least_s, took_s / _CHECKPOINT_SHARE) if least_s > 0 else 0.0


def _finite(value: float) -> float | None:
    """The value, or None for what JSON has no number for: one row outside the support."""
    return value if math.isfinite(value) else None
