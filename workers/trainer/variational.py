"""Work of one variational job: a plain function from a task to messages.

As with training, it writes durable files and nothing else, and what comes out does not depend on
how often it was killed and started again.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flows import (
    ElboDivergedError,
    FitError,
    FitInterrupted,
    FitState,
    Flow,
    LatentTarget,
    LinearRegression,
    LogisticRegression,
    Target,
    VariationalOptions,
    VariationalReport,
    build,
    compile_flow,
    diagnose,
    fit_variational,
    quadrature_kl,
    row_evidence,
)
from models_store.files.blobs import Blobs
from models_store.requests.training import Preprocessing
from models_store.requests.variational import (
    AcceptedVariational,
    LatentModel,
    LatentTarget as RequestedLatents,
    LinearPosterior,
    PosteriorTarget,
    closed_form,
)
from workers.errors import TrainingError
from workers.protocol import Send, VariationalTask
from workers.trainer.checkpoints import Checkpoints, finite, store
from workers.trainer.data import load_columns
from workers.trainer.devices import find_device
from workers.trainer.progress import Progress, Teller

_SAMPLES = 10_000
_LEAST_SAMPLES = 100
# Rows that a model with latent variables is judged by, and samples of the posterior of each.
_JUDGED_ROWS, _SAMPLES_A_ROW = 500, 100
# Products of samples, rows and coefficients that judging a logistic regression may take.
_WORK = 10**10
# Products of samples and rows of it, which take some minutes and which nothing interrupts.
_PRODUCTS = 2 * 10**9
_DIVERGED = (
    "The ELBO or its gradient stopped being a finite number in iteration {iteration}. A lower"
    " learning rate may help, or a target that is finite where a standard Gaussian has its mass."
)
_NOWHERE = "The target is not finite at any sample of the flow that was fitted to it."
_ILL_CONDITIONED = (
    "The posterior is too nearly singular to be computed: columns depend on each other, or scales"
    " differ by too much. Standardise the columns, leave some out or lower prior_scale."
)


def infer(task: VariationalTask, send: Send, *, interrupted: Callable[[], bool]) -> None:
    """Fit, judge and store the flow that `task` asks for.

    The last message is `Trained`, or `Interrupted` once `interrupted()` is true.

    Raises:
        TrainingError: The job cannot succeed.
        StorageFullError: A checkpoint or the model could not be written.
    """
    torch.set_num_threads(task.threads)
    request = AcceptedVariational.model_validate(task.request)
    device = find_device(task.device)
    blobs = Blobs(task.store)
    problem = _problem(task, request, blobs, device)
    flow, target, seed = problem.flow, problem.target, request.optimisation.seed
    teller = Teller(task, send, interrupted)
    checkpoints = Checkpoints(task, blobs, teller, unit="iteration")
    try:
        checkpoints.resume(
            flow, partial(_fit, flow, target, request.optimisation, teller, checkpoints)
        )
    except ElboDivergedError as error:
        detail = _DIVERGED.format(iteration=error.iteration)
        raise TrainingError("diverged", detail) from error
    except FitInterrupted as error:
        checkpoints.stop(error.state)
        return
    metrics = teller.metrics | {"iterations": teller.metrics["iteration"]} | problem.judged(seed)
    model = store(
        task,
        blobs,
        flow,
        spec=request.flow,
        columns=list(target.names),
        context_columns=problem.context_columns,
        preprocessing=Preprocessing(standardise=problem.starts_elsewhere, dequantise=None),
        seed=seed,
        metrics=metrics,
        target=request.target.model_dump(mode="json"),
    )
    send(model)


@dataclass(frozen=True)
class _Problem:
    """Flow to fit, and the target that it is fitted to.

    Attributes:
        flow: Flow that is not trained yet.
        target: Density that the flow is to approximate.
        starts_elsewhere: True if the flow starts at another place than a standard Gaussian.
        context_columns: Columns that the flow is conditioned on.
        judged_by: Rows that a model with latent variables is judged by.
    """

    flow: Flow
    target: Target | LatentTarget
    starts_elsewhere: bool = False
    context_columns: list[str] = field(default_factory=list)
    judged_by: Tensor | None = None

    def judged(self, seed: int) -> dict[str, Any]:
        """Return metrics of the fitted flow."""
        if isinstance(self.target, LatentTarget):
            assert self.judged_by is not None  # noqa: S101  as `_latents` made it
            return _judged_by_rows(self.flow, self.judged_by, seed=seed)
        return _judgement(self.flow, self.target, seed=seed)


def _problem(
    task: VariationalTask, request: AcceptedVariational, blobs: Blobs, device: torch.device
) -> _Problem:
    if isinstance(request.target, RequestedLatents):
        return _latents(task, request, request.target.latent, blobs, device)
    target = _target(task, request, blobs, device)
    start = _starting_point(target)
    flow = build(request.flow, target.dim, standardise=start, seed=request.optimisation.seed)
    return _Problem(flow.to(device), target, starts_elsewhere=start is not None)


def _latents(
    task: VariationalTask,
    request: AcceptedVariational,
    latent: LatentModel,
    blobs: Blobs,
    device: torch.device,
) -> _Problem:
    """Return the flow and decoder of latent variables, and the joint density of the rows."""
    if task.dataset is None or latent.columns is None:
        raise ValueError("accepted latent variables have a dataset, and columns by name")
    table, seed = load_columns(blobs, task.dataset, latent.columns), request.optimisation.seed
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(table)))
    held_out = int(len(table) * latent.held_out)
    rows, others = table[order[held_out:]], table[order[:held_out]]
    mean, std = rows.double().mean(dim=0), rows.double().std(dim=0)
    std = torch.where(std > 0, std, 1.0)  # a column may be constant in these rows
    if not bool((mean.isfinite() & std.isfinite()).all()):
        raise TrainingError("data_range", "The values of a column are too large.")
    flow = build(
        request.flow,
        latent.latents,
        context_dim=len(latent.columns),
        standardise_context=(mean, std),
        seed=seed,
    )
    assert flow.decoder is not None  # noqa: S101  as the accepted flow has one
    if latent.loadings is None:
        flow.decoder.standardise(mean, std)
    else:
        offset = latent.offset or [0.0] * len(latent.columns)
        flow.decoder.fix(torch.tensor(latent.loadings), torch.tensor(offset), latent.noise_scale)
    judged_by = (others if held_out else rows)[:_JUDGED_ROWS]
    flow = flow.to(device)
    return _Problem(
        flow,
        LatentTarget(flow, rows.to(device)),
        context_columns=latent.columns,
        judged_by=judged_by,
    )


def _judged_by_rows(flow: Flow, rows: Tensor, *, seed: int) -> dict[str, Any]:
    """Return the mean ELBO and evidence of rows that were not fitted to, if any are held out."""
    cpu = copy.deepcopy(flow).cpu()
    elbo, evidence = row_evidence(
        compile_flow(cpu), rows.numpy(), samples=_SAMPLES_A_ROW, seed=seed
    )
    if not (np.isfinite(elbo).all() and np.isfinite(evidence).all()):
        raise TrainingError("diverged", _NOWHERE)
    error = math.sqrt(len(rows))
    found = {
        "judged_rows": len(rows),
        "samples": _SAMPLES_A_ROW,
        "elbo": float(elbo.mean()),
        "elbo_standard_error": float(elbo.std()) / error,
        "log_evidence": float(evidence.mean()),
        "log_evidence_standard_error": float(evidence.std()) / error,
    }
    if cpu.decoder is not None and cpu.decoder.is_exact:
        with torch.no_grad():
            found["exact_log_evidence"] = float(cpu.decoder.posterior(rows)[2].mean())
    return found


def _fit(
    flow: Flow,
    target: Target | LatentTarget,
    options: VariationalOptions,
    teller: Teller,
    checkpoints: Checkpoints,
    state: FitState | None,
) -> None:
    """Fit a flow in place, from a state or from the beginning."""
    progress = Progress("iteration", options.iterations, max_seconds=options.max_seconds)
    if state is not None:
        done = state.counted("iteration")
        teller.position = progress.reached(done, best=done, seconds=state.seconds)

    def on_step(iteration: int, _total: int) -> None:
        if teller.is_due:
            teller.tick(progress.at(iteration))

    for report in fit_variational(
        flow,
        target,
        options=options,
        state=state,
        on_step=on_step,
        on_state=checkpoints.report_within,
        interrupted=teller.interrupted,
    ):
        teller.metrics = _metrics(report)
        teller.position = progress.reached(
            report.iteration, best=report.best_iteration, seconds=report.seconds
        )
        if report.stop_reason is None:
            checkpoints.report(report.snapshot)
        else:  # the model itself follows
            teller.report(None)


def _target(
    task: VariationalTask, request: AcceptedVariational, blobs: Blobs, device: torch.device
) -> Target:
    if isinstance(request.target, PosteriorTarget):
        return _regression(task, request.target, blobs, device)
    target = closed_form(request.target)
    if target is None:
        raise ValueError("an accepted target has a density")
    return target


def _regression(
    task: VariationalTask, wanted: PosteriorTarget, blobs: Blobs, device: torch.device
) -> Target:
    posterior = wanted.posterior
    if task.dataset is None or posterior.columns is None:
        raise ValueError("an accepted posterior has a dataset, and columns by name")
    columns = posterior.columns
    table = load_columns(blobs, task.dataset, [*columns, posterior.response]).to(device)
    x, y = table[:, :-1], table[:, -1]
    if isinstance(posterior, LinearPosterior):
        return LinearRegression(
            x,
            y,
            noise_scale=posterior.noise_scale,
            prior_scale=posterior.prior_scale,
            columns=columns,
        )
    return LogisticRegression(
        x,
        y,
        prior_scale=posterior.prior_scale,
        batch_rows=posterior.batch_rows,
        columns=columns,
    )


def _starting_point(target: Target) -> tuple[Tensor, Tensor] | None:
    """Return location and scale of the start: the posterior's; None for a standard Gaussian."""
    if not isinstance(target, LinearRegression | LogisticRegression):
        return None
    try:
        location, scale = (tensor.cpu() for tensor in target.starting_point())
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch names it so
        raise TrainingError("ill_conditioned", _ILL_CONDITIONED) from error
    if not bool(location.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
        raise TrainingError("ill_conditioned", _ILL_CONDITIONED)
    return location, scale


def _metrics(report: VariationalReport) -> dict[str, Any]:
    return {
        "iteration": report.iteration,
        "elbo": report.elbo,
        "elbo_standard_error": report.elbo_standard_error,
        "skipped": report.skipped,
        "best_iteration": report.best_iteration,
        "best_elbo": report.best_elbo,
        "samples_per_second": round(report.samples_per_second, 1),
        "seconds": round(report.seconds, 3),
        "stop_reason": report.stop_reason,
    }


def _judgement(flow: Flow, target: Target, *, seed: int) -> dict[str, Any]:
    """Return metrics of the best flow, by fresh samples and by quadrature on a window."""
    samples = _SAMPLES
    if isinstance(target, LogisticRegression):
        samples = samples_of(target.rows, target.dim)
    try:
        judged = asdict(diagnose(flow, target, samples=samples, seed=seed))
    except FitError as error:
        raise TrainingError("diverged", _NOWHERE) from error
    judged |= _by_quadrature(flow, target)
    if isinstance(target, LinearRegression):
        judged["exact_log_evidence"] = finite(target.posterior().log_evidence)
    return judged


def samples_of(rows: int, dim: int) -> int:
    """Return the number of samples that a logistic regression is judged by."""
    most = min(_WORK // (rows * dim), _PRODUCTS // rows)
    return max(_LEAST_SAMPLES, min(_SAMPLES, most))


def _by_quadrature(flow: Flow, target: Target) -> dict[str, Any]:
    if target.window is None:
        return {}
    try:
        found = quadrature_kl(flow, target)
    except FitError:  # all of one density lies elsewhere
        return {}
    return {
        "kl": finite(found.kl),
        "kl_window": {"lower": list(found.window.lower), "upper": list(found.window.upper)},
        "mass_inside": found.mass_inside,
        "log_evidence_inside": found.log_evidence,
    }
