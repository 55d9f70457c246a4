"""Work of one training job: a plain function from a task to messages.

It writes durable files and nothing else, so it may be killed at any moment and started again;
what comes out is the same bit for bit on the same kind of CPU and number of threads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flows import (
    DivergedError,
    EpochReport,
    FitInterrupted,
    FitOptions,
    FitState,
    Flow,
    MixedColumn,
    MixedSpec,
    build,
    compile_flow,
    evaluate,
    fit,
    fit_encoding,
    quantiles_of,
    with_tree,
)
from flows.compiled.calibration import companion_of
from flows.compiled.sampling import calibrate_samples
from flows.training.evaluate import default_chunk_rows
from models_store.files.blobs import Blobs
from models_store.files.model_header import preprocessing_spec
from models_store.requests.encoding import decide
from models_store.requests.training import AcceptedTraining
from workers.errors import TrainingError
from workers.protocol import Send, TrainingTask
from workers.trainer.checkpoints import Checkpoints, finite, store
from workers.trainer.data import SplitRows, load_parts, moments
from workers.trainer.devices import memory_of, training_device
from workers.trainer.progress import Evaluation, EvaluationEndedError, Progress, Teller
from workers.trainer.summary import summarise_training
from workers.trainer.unusual import unusual_rows

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

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: A checkpoint or the model could not be written.
    """
    torch.set_num_threads(task.threads)
    teller = Teller(task, send, interrupted)
    request = AcceptedTraining.model_validate(task.request)
    device = training_device(task.device, request)
    blobs = Blobs(task.store)
    parts = load_parts(task, blobs, split=request.split, columns=request.column_types)
    parts = parts.to(device, memory_bytes=memory_of(device))
    if parts.left_out and not task.checkpoints:
        kept = len(parts.train)
        teller.note(_SAMPLED.format(kept=kept, rows=kept + parts.left_out))
    request = decide(request, parts.sample)
    if isinstance(request.flow, MixedSpec):
        tree = with_tree(request.flow, parts.sample)
        request = request.model_copy(update={"flow": tree})
    flow = _build(request, parts).to(device)
    checkpoints = Checkpoints(task, blobs, teller, unit="epoch")
    try:
        trained = checkpoints.resume(
            flow, partial(_fit, flow, parts, request.optimisation, teller, checkpoints)
        )
    except DivergedError as error:
        raise TrainingError("diverged", _DIVERGED.format(epoch=error.epoch)) from error
    except FitInterrupted as error:
        checkpoints.stop(error.state)
        return
    metrics = teller.metrics | {"epochs": teller.metrics["epoch"]}
    scored = Evaluation(rows_to_score(parts), teller).scored
    try:
        metrics |= likelihoods(flow, parts, seed=request.optimisation.seed, scored=scored)
        held_out = held_out_quantiles(flow, parts, device, scored=scored)
        unusual = unusual_rows(
            flow,
            task,
            blobs,
            request=request,
            held_out=held_out,
            scored=scored,
        )
    except EvaluationEndedError:
        checkpoints.stop(trained)
        return
    flow.companion = companion_of(
        flow, parts.train, parts.validation, seed=request.optimisation.seed, alive=teller.tick
    )
    metrics |= summarise_training(flow, parts, request=request, metrics=metrics)
    model = store(
        task,
        blobs,
        flow,
        spec=request.flow,
        columns=request.columns,
        context_columns=request.context_columns,
        types=request.types,
        preprocessing=request.preprocessing,
        seed=request.optimisation.seed,
        metrics=metrics,
        held_out=held_out,
        unusual=unusual,
    )
    send(model)


def _fit(
    flow: Flow,
    parts: SplitRows,
    options: FitOptions,
    teller: Teller,
    checkpoints: Checkpoints,
    state: FitState | None,
) -> FitState:
    """Fit a flow in place, from a state or from the beginning; return the state after the last epoch."""
    progress = Progress(
        "epoch", options.max_epochs, patience=options.patience, max_seconds=options.max_seconds
    )
    epoch = 0  # the last whole one
    if state is not None:
        epoch = state.counted("epoch") - (state.counted("batches") > 0)
        best = state.counted("best_epoch")
        teller.position = progress.reached(epoch, best=best, seconds=state.seconds)

    def on_batch(done: int, total: int) -> None:
        if teller.is_due:
            teller.tick(progress.at(epoch + done / total))

    for report in fit(
        flow,
        parts.train,
        parts.validation,
        options=options,
        state=state,
        on_batch=on_batch,
        on_state=checkpoints.report_within,
        interrupted=teller.interrupted,
    ):
        epoch = report.epoch
        if report.restarts > teller.metrics.get("restarts", 0):
            teller.note(_RESTARTED.format(epoch=epoch))
        teller.metrics = _epoch_metrics(report)
        teller.position = progress.reached(epoch, best=report.best_epoch, seconds=report.seconds)
        checkpoints.report(report.snapshot)
    calibrate_samples(flow, parts.train, seed=options.seed, alive=teller.tick)
    return report.snapshot()


def _build(request: AcceptedTraining, parts: SplitRows) -> Flow:
    dim, context_dim = len(request.columns), len(request.context_columns)
    if isinstance(request.flow, MixedSpec):
        flow = build(request.flow, dim, context_dim=context_dim, seed=request.optimisation.seed)
        fit_encoding(flow, parts.train)
        return flow
    rows, context = parts.train.tensor_split([dim], dim=1)
    chosen = preprocessing_spec(request.preprocessing)
    as_stated = [MixedColumn(step=0.0 if chosen.levels is None else 1.0)] * dim
    build_with = partial(
        build,
        request.flow,
        dim,
        preprocessing=chosen,
        columns=request.encoding or as_stated,
        context_dim=context_dim,
        standardise_context=moments(context, request.context_columns) if context_dim else None,
        seed=request.optimisation.seed,
    )
    flow = build_with()
    if request.preprocessing.standardise:
        outer, generator = flow.preprocessing, torch.Generator()
        generator.manual_seed(request.optimisation.seed)

        def preprocessed(chunk: Tensor) -> Tensor:
            return outer.inverse(outer.spread(chunk, generator=generator))[0].double()

        flow = build_with(standardise=moments(rows, request.columns, preprocessed))
    fit_encoding(flow, parts.train)
    return flow


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
    """Return the number of rows that `likelihoods`, `held_out_quantiles` and `unusual_rows` score together."""
    held_out = parts.validation if parts.test is None else parts.test
    all_parts = parts.train, parts.validation, parts.test
    return 2 * sum(len(rows) for rows in all_parts if rows is not None) + len(held_out)


def likelihoods(
    flow: Flow, parts: SplitRows, *, seed: int, scored: Callable[[int], None]
) -> dict[str, Any]:
    """Return the likelihoods of the best model on each part: means and their standard errors.

    Discrete columns have their noise, as in training.
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
    """
    rows = parts.validation if parts.test is None else parts.test
    compiled = compile_flow(flow, device=device)
    scores: list[Tensor] = []
    most = _SCORED_CHUNKS * default_chunk_rows(flow)
    for some in torch.split(rows, most):
        scores.append(torch.from_numpy(compiled.log_prob(some.cpu().numpy())))
        scored(len(some))
    return {"rows": len(rows), "quantiles": quantiles_of(torch.cat(scores).numpy()).tolist()}
