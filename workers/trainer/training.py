"""Work of one training job: a plain function from a task to messages.

It writes durable files and nothing else, so it may be killed at any moment and started again;
what comes out is the same bit for bit on the same kind of CPU and number of threads.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flows import (
    Denoise,
    DivergedError,
    EpochReport,
    FitInterrupted,
    FitState,
    Flow,
    MixedSpec,
    build,
    compile_flow,
    evaluate,
    fit,
    fit_encoding,
    quantiles_of,
)
from flows.training.evaluate import default_chunk_rows
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import preprocessing_spec
from models_store.requests.training import AcceptedTraining
from models_store.requests.training_rows import choose_training
from workers.errors import TrainingError
from workers.protocol import EpochDone, Interrupted, Note, Send, Tick, TrainingTask
from workers.trainer.checkpoints import Checkpoints, Result, finite, store
from workers.trainer.data import SplitRows, load_parts, moments, sample
from workers.trainer.devices import find_device, memory_of
from workers.trainer.discrete import SAMPLE_ROWS, Noise, column_noise
from workers.trainer.progress import Evaluation, EvaluationEndedError, Progress
from workers.trainer.summary import summarise_training

_TICK_S = 0.5
# Chunks of a flow that a compiled one, which is faster, scores between two signs of life.
_SCORED_CHUNKS = 8
_RESTARTED = (
    "The likelihood stopped being a finite number before epoch {epoch} was done; training went"
    " back to the best state so far and continues with a tenth of the learning rate."
)
_SAMPLED = (
    "The training rows do not fit in a quarter of the memory of the trainer; it takes {kept:,} of"
    " {rows:,}, evenly spread. DENSITYD_TRAINER_MEMORY_BYTES allows more."
)
_DIVERGED = (
    "The likelihood stopped being a finite number in epoch {epoch}. A lower learning rate,"
    " standardised data or batch norm may help."
)


def train(task: TrainingTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Train, evaluate and store the flow that `task` asks for.

    The last message is `Trained`, or `Interrupted` once `interrupted()` is true.

    Args:
        task: Task of the trainer.
        send: Function that sends a message.
        interrupted: Function that returns True to stop, called between two batches, and between the
            chunks of an evaluation.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: A checkpoint or the model could not be written.
    """
    torch.set_num_threads(task.threads)
    request = AcceptedTraining.model_validate(task.request)
    device = find_device(task.device)
    blobs = Blobs(task.store)
    parts = load_parts(task, blobs, split=request.split, columns=request.column_types)
    parts = parts.to(device, memory_bytes=memory_of(device))
    if parts.left_out and not task.checkpoints:
        kept = len(parts.train)
        send(Note(text=_SAMPLED.format(kept=kept, rows=kept + parts.left_out)))
    request = choose_training(request, parts.sample)
    noise = denoise = None
    if request.preprocessing.dequantise == "auto" and not isinstance(request.flow, MixedSpec):
        rows = sample(parts.train[:, : len(request.columns)], SAMPLE_ROWS)
        noise = column_noise(rows)
        denoise = noise.denoise(rows)
        for text in noise.notes(request.columns) if not task.checkpoints else ():
            send(Note(text=text))
    flow = _build(request, parts, noise, denoise).to(device)
    run = _Run(task, request, blobs=blobs, send=send)
    try:
        metrics = run.fit(flow, parts, interrupted=interrupted)
    except DivergedError as error:
        raise TrainingError("diverged", _DIVERGED.format(epoch=error.epoch)) from error
    except FitInterrupted as error:
        run.interrupt(error.state)
        return
    metrics |= {"epochs": metrics["epoch"]}
    scored = run.evaluation(parts, interrupted=interrupted).scored
    try:
        metrics |= likelihoods(flow, parts, seed=request.optimisation.seed, scored=scored)
        held_out = held_out_quantiles(flow, parts, device, scored=scored)
    except EvaluationEndedError:
        run.interrupt()
        return
    metrics |= summarise_training(flow, parts, request=request, metrics=metrics)
    run.finish(flow, metrics, held_out=held_out)


class _Run:
    """Run of a training: its messages and its files."""

    def __init__(
        self, task: TrainingTask, request: AcceptedTraining, *, blobs: Blobs, send: Send
    ) -> None:
        self._task = task
        self._request = request
        self._blobs = blobs
        self._send = send
        self._checkpoints = Checkpoints(task, blobs, send=send, unit="epoch")
        self._progress = Progress(request.optimisation)
        self._metrics: dict[str, Any] = {}
        self._position: dict[str, Any] = {}
        self._trained: FitState | None = None
        now = time.monotonic()
        self._epoch_began_at = now
        self._ticked_at = now

    def fit(
        self, flow: Flow, parts: SplitRows, *, interrupted: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fit `flow` in place, from the newest whole checkpoint; return the final metrics."""
        fit_from = partial(self._fit_from, flow, parts, interrupted=interrupted)
        return self._checkpoints.resume(flow, fit_from)

    def _fit_from(
        self,
        flow: Flow,
        parts: SplitRows,
        state: FitState | None,
        *,
        interrupted: Callable[[], bool],
    ) -> dict[str, Any]:
        self._position = {} if state is None else self._progress.resumed(state)
        request = self._request
        reports = fit(
            flow,
            parts.train,
            parts.validation,
            options=request.optimisation,
            state=state,
            on_batch=self._on_batch,
            on_state=self._on_state,
            interrupted=interrupted,
        )
        for report in reports:
            self._on_epoch(report)
        return {**self._metrics}

    def interrupt(self, state: FitState | None = None) -> None:
        """Store the state of training between two batches; None: after the last epoch."""
        state = state or self._trained
        checkpoint = None if state is None else self._checkpoints.save_last(state)
        self._send(
            Interrupted(metrics=self._metrics, progress=self._position, checkpoint=checkpoint)
        )

    def finish(self, flow: Flow, metrics: dict[str, Any], *, held_out: dict[str, Any]) -> None:
        """Store the model and send the message that describes it."""
        request = self._request
        result = Result(
            flow=flow,
            spec=request.flow,
            columns=request.columns,
            context_columns=request.context_columns,
            types=request.types,
            preprocessing=request.preprocessing,
            seed=request.optimisation.seed,
            metrics=metrics,
            held_out=held_out,
        )
        self._send(store(result, self._task, self._blobs))

    def evaluation(self, parts: SplitRows, *, interrupted: Callable[[], bool]) -> Evaluation:
        """Return the evaluation of the trained flow, which follows the last epoch."""
        return Evaluation(
            rows_to_score(parts), self._send, interrupted=interrupted, trained=self._position
        )

    def _on_state(self, snapshot: Callable[[], FitState]) -> None:
        checkpoint = self._checkpoints.save_within(snapshot)
        if checkpoint is not None:
            self._send(
                EpochDone(metrics=self._metrics, progress=self._position, checkpoint=checkpoint)
            )

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
        self._epoch_began_at = self._ticked_at = time.monotonic()
        if report.restarts > self._metrics.get("restarts", 0):
            self._send(Note(text=_RESTARTED.format(epoch=report.epoch)))
        self._metrics = _epoch_metrics(report)
        self._position = self._progress.epoch_done(
            report.epoch, best_epoch=report.best_epoch, seconds=report.seconds
        )
        checkpoint = self._checkpoints.save_if_due(report.snapshot)
        if report.stop_reason is not None:
            self._trained = report.snapshot()
        self._send(EpochDone(metrics=self._metrics, progress=self._position, checkpoint=checkpoint))


def _build(
    request: AcceptedTraining, parts: SplitRows, noise: Noise | None, denoise: Denoise | None
) -> Flow:
    dim, context_dim = len(request.columns), len(request.context_columns)
    if isinstance(request.flow, MixedSpec):
        flow = build(request.flow, dim, context_dim=context_dim, seed=request.optimisation.seed)
        fit_encoding(flow, parts.train)
        return flow
    rows, context = parts.train.tensor_split([dim], dim=1)
    build_with = partial(
        build,
        request.flow,
        dim,
        preprocessing=preprocessing_spec(request.preprocessing),
        steps=None if noise is None else noise.steps,
        widths=None if noise is None else noise.widths,
        denoise=denoise,
        context_dim=context_dim,
        standardise_context=moments(context, request.context_columns) if context_dim else None,
        seed=request.optimisation.seed,
    )
    if not request.preprocessing.standardise:
        return build_with()
    outer = build_with().preprocessing
    generator = torch.Generator().manual_seed(request.optimisation.seed)

    def preprocessed(chunk: Tensor) -> Tensor:
        return outer.inverse(outer.spread(chunk, generator=generator))[0].double()

    return build_with(standardise=moments(rows, request.columns, preprocessed))


def _epoch_metrics(report: EpochReport) -> dict[str, Any]:
    return {
        "epoch": report.epoch,
        "train_log_likelihood": report.train_log_likelihood,
        "validation_log_likelihood": finite(report.validation_log_likelihood),
        "robust_validation_log_likelihood": report.robust_validation_log_likelihood,
        "best_epoch": report.best_epoch,
        "best_validation_log_likelihood": finite(report.best_validation_log_likelihood),
        "best_robust_validation_log_likelihood": report.best_robust_validation_log_likelihood,
        "rows_per_second": round(report.rows_per_second, 1),
        "seconds": round(report.seconds, 3),
        "restarts": report.restarts,
        "stop_reason": report.stop_reason,
        **({} if report.expected_gain is None else {"expected_gain": report.expected_gain}),
    }


def rows_to_score(parts: SplitRows) -> int:
    """Return the number of rows that `likelihoods` and `held_out_quantiles` score together."""
    held_out = parts.validation if parts.test is None else parts.test
    all_parts = parts.train, parts.validation, parts.test, held_out
    return sum(len(rows) for rows in all_parts if rows is not None)


def likelihoods(
    flow: Flow, parts: SplitRows, *, seed: int, scored: Callable[[int], None]
) -> dict[str, Any]:
    """Return the likelihoods of the best model on each part: means and their standard errors.

    Discrete columns have their noise, as in training.

    Args:
        flow: Trained flow.
        parts: Rows of the training.
        seed: Seed of that noise.
        scored: Function that takes a number of rows as soon as they are scored; it may raise.
    """
    chunk_rows = default_chunk_rows(flow)
    metrics: dict[str, Any] = {}
    for name, rows in (
        ("train", parts.train),
        ("validation", parts.validation),
        ("test", parts.test),
    ):
        if rows is not None:
            reached = evaluate(
                flow,
                rows,
                chunk_rows=chunk_rows,
                noise_seed=seed,
                on_chunk=partial(scored, min(chunk_rows, len(rows))),
            )
            metrics |= {
                f"{name}_log_likelihood": finite(reached.mean),
                f"{name}_standard_error": finite(reached.two_standard_errors / 2),
                f"{name}_rows": len(rows),
            }
    return metrics


def held_out_quantiles(
    flow: Flow, parts: SplitRows, device: torch.device, *, scored: Callable[[int], None]
) -> dict[str, Any]:
    """Return quantiles of held-out log densities, by which scores are calibrated.

    Those of the test part, or else of the validation part, computed as rows are scored later:
    discrete values without noise.

    Args:
        flow: Trained flow.
        parts: Rows of the training.
        device: Device that computes.
        scored: Function as for `likelihoods`.
    """
    rows = parts.validation if parts.test is None else parts.test
    compiled = compile_flow(flow, device=device)
    scores: list[Tensor] = []
    most = _SCORED_CHUNKS * default_chunk_rows(flow)
    for some in torch.split(rows, most):
        scores.append(torch.from_numpy(compiled.log_prob(some.cpu().numpy())))
        scored(len(some))
    return {"rows": len(rows), "quantiles": quantiles_of(torch.cat(scores).numpy()).tolist()}
