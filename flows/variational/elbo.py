"""Variational inference: a generator that maximises the ELBO, reports and can resume."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from flows.bijections.base import standard_normal
from flows.errors import ElboDivergedError, FitError, FlowError
from flows.flow import Flow, base_noise
from flows.specs.spec import Json
from flows.training.denormals import denormals_as_zero
from flows.training.optimiser import make_optimiser, moments_of, restore_moments
from flows.training.options import VariationalOptions
from flows.training.state import (
    Callbacks,
    FitState,
    OnState,
    OnStep,
    copies,
    pack_state,
    restoring,
    unpack_state,
)
from flows.variational.targets import ConditionalTarget, Target

VariationalStopReason = Literal["patience", "max_iterations", "max_seconds"]

# Number of consecutive iterations without a step after which training is given up.
FAILURES_ALLOWED = 100

# Log densities beyond this count as not finite: their squares would not be.
LARGEST = 1e100


@dataclass(frozen=True)
class VariationalReport:
    """Report of the iterations since the last report. The ELBO is in nats, never annealed.

    Attributes:
        iteration: Last iteration, counted from 1.
        elbo: Mean over the samples of these iterations, each before its own step.
        elbo_standard_error: Standard error of that mean.
        skipped: Number of samples left out because their log density or its gradient was not
            finite. The ELBO is then that of q restricted to the rest, which is still a bound.
        best_iteration: Iteration of the report with the best ELBO so far; with contexts, which differ
            from report to report, of the last one that is not worse by two standard errors.
        best_elbo: Best ELBO so far.
        samples_per_second: Training speed of these iterations.
        seconds: Time since the training began, earlier runs of a resumed one included.
        stop_reason: Reason why this report is the last one; None if it is not.
    """

    iteration: int
    elbo: float
    elbo_standard_error: float
    skipped: int
    best_iteration: int
    best_elbo: float
    samples_per_second: float
    seconds: float
    stop_reason: VariationalStopReason | None
    _state: Callable[[], FitState] = field(repr=False, compare=False)

    def snapshot(self) -> FitState:
        """Return the state from which training can resume after this report.

        Raises:
            FlowError: Training has already gone on.
        """
        return self._state()


def fit_variational(  # noqa: PLR0913  what to train, how, from where, and three callbacks
    flow: Flow,
    target: Target | ConditionalTarget,
    *,
    options: VariationalOptions,
    state: FitState | None = None,
    on_step: OnStep | None = None,
    on_state: OnState | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Iterator[VariationalReport]:
    """Train a flow q towards a target p by maximising the ELBO, the mean of log p(z) - log q(z).

    z = f(u) for standard Gaussian u, so log q(z) = log N(u) - log|det dz/du| needs no inverse, and
    gradients pass through z (Rezende and Mohamed 2015, equation 15). The noise of an iteration
    follows from the seed and the iteration alone.

    A sample whose log density or gradient is not finite is left out of its iteration. An
    iteration with less than half of its samples left, or with a gradient that is not finite,
    makes no step; after `FAILURES_ALLOWED` of them in a row, or a report without a step, training
    is given up.

    After the last report the flow holds the weights of the best report and is in evaluation mode.
    It is also trained in that mode: its forward direction uses the stored statistics of a batch
    norm.

    Args:
        flow: Flow q, trained in place on its device.
        target: Target of as many dimensions as the flow; a `ConditionalTarget` gives every sample
            its own context, and the ELBO is a mean over contexts, too.
        state: Snapshot or interruption of the same training.
        on_step: Called after each iteration with the finished iterations and `iterations`.
        on_state: Called after each iteration with a function that returns the state of the training
            there; valid until the callback returns.
        interrupted: Checked after each iteration; if it returns True, training ends with
            `FitInterrupted`.

    Returns:
        One report every `options.report_every` iterations. The state after the last report gives
        that report once more.

    Raises:
        ElboDivergedError: The ELBO stopped being finite and did not recover.
        FitError: Target, options or state do not fit the flow.
        FitInterrupted: The callback `interrupted` returned True.
    """
    callbacks = Callbacks(on_step, on_state, interrupted)
    return _Trainer(flow, target, options=options).run(state, callbacks)


@dataclass
class _Progress:
    """State of a training without its tensors.

    Attributes:
        iteration: Last finished iteration.
        window: Number of iterations since the last report; 0 once that is made.
        steps: Number of these iterations that made a step.
        count: Number of samples of these iterations that were not left out.
        mean: Mean of their log p - log q.
        squares: Sum of the squared distances from that mean.
        failures: Number of the last consecutive iterations without a step.
        stale: Number of reports since the best one.
    """

    iteration: int = 0
    window: int = 0
    steps: int = 0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    skipped: int = 0
    failures: int = 0
    best_iteration: int = 0
    best: float = 0.0
    stale: int = 0
    samples_per_second: float = 0.0
    seconds: float = 0.0

    @property
    def elbo(self) -> float:
        """ELBO of q restricted to the samples that are not left out, always a bound."""
        return self.mean + math.log(self.count / (self.count + self.skipped))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.squares / max(self.count - 1, 1) / self.count)

    def add(self, values: Tensor, *, skipped: int) -> None:
        """Add the samples of one iteration (the parallel algorithm of Chan et al. 1979)."""
        self.skipped += skipped
        if len(values) == 0:
            return
        mean, total = float(values.mean()), self.count + len(values)
        distance = mean - self.mean
        self.squares += float((values - mean).square().sum())
        self.squares += distance**2 * self.count * len(values) / total
        self.mean += distance * len(values) / total
        self.count = total


class _Trainer:
    """Training run of one flow towards one target."""

    def __init__(
        self, flow: Flow, target: Target | ConditionalTarget, *, options: VariationalOptions
    ) -> None:
        context_dim = target.context_dim if isinstance(target, ConditionalTarget) else 0
        for what, wanted, given in (
            ("dimensions", target.dim, flow.dim),
            ("numbers of a context", context_dim, flow.context_dim),
        ):
            if wanted != given:
                raise FitError(f"the target has {wanted} {what}, the flow {given}")
        if not flow.has_noise:
            raise FitError("the flow must map noise to rows")
        self._flow = flow
        self._target = target
        weights = () if flow.decoder is None else flow.decoder.parameters()
        self._learns = any(one.requires_grad for one in weights)  # the target, too, by its ELBO
        self._options = options
        self._optimiser = make_optimiser(
            flow.parameters(),
            options.optimiser,
            learning_rate=options.learning_rate,
        )
        self._progress = _Progress()
        # Until the first report, the initial state is the best one.
        self._best = copies(flow.state_dict())
        self._started = 0.0

    def run(self, state: FitState | None, callbacks: Callbacks) -> Iterator[VariationalReport]:
        if state is not None:
            self._restore(state)
        self._started = time.monotonic() - self._progress.seconds
        self._flow.eval()
        reported = self._progress.iteration > 0 and self._progress.window == 0
        while not (reported and self._stop_reason() is not None):
            with denormals_as_zero():
                self._train_window(callbacks)
            self._close_window()
            reported = True
            if self._stop_reason() is None:
                yield self._report(self._snapshot_of(self._progress.iteration))
        last = self._state()
        self._flow.load_state_dict(self._best)
        yield self._report(lambda: last)

    def _train_window(self, callbacks: Callbacks) -> None:
        """Train until the next report, or the time limit."""
        progress, limit = self._progress, self._options.iterations
        if progress.window == 0:
            progress.steps = progress.count = progress.skipped = 0
            progress.mean = progress.squares = 0.0
        first, began = progress.iteration, time.monotonic()
        while not self._window_is_full():
            progress.iteration += 1
            progress.window += 1
            self._iterate(progress.iteration)
            callbacks.step(progress.iteration, limit)
            callbacks.between_steps(self._state_within)
        samples = (progress.iteration - first) * self._options.batch_size
        progress.samples_per_second = samples / max(time.monotonic() - began, 1e-9)

    def _window_is_full(self) -> bool:
        options, progress = self._options, self._progress
        if progress.window == 0:
            return False
        ends = progress.iteration % options.report_every == 0
        return ends or progress.iteration >= options.iterations or self._out_of_time()

    def _iterate(self, iteration: int) -> None:
        """Draw and count a batch of samples and take a step, if the batch allows one."""
        progress = self._progress
        generator = self._generator(iteration)
        u = base_noise(self._options.batch_size, self._flow.dim, generator=generator)
        u, context = u.to(self._flow.device), self._context(generator)
        z, log_det = self._flow.forward(u, context)
        value, slope = self._target_at(z, context, generator)
        log_q = standard_normal(u) - log_det.detach()
        gain = value.detach() - log_q.double()
        usable = (gain.abs() < LARGEST) & slope.isfinite().all(dim=1)
        kept = int(usable.sum())
        progress.add(gain[usable], skipped=len(u) - kept)
        weight = self._options.target_weight_at(iteration) / max(kept, 1)
        grad_z = -weight * slope.masked_fill(~usable[:, None], 0)
        grad_log_det = -usable.to(log_det.dtype) / max(kept, 1)
        # Of a scalar: to check given gradients PyTorch imports SymPy, over half a second of each job.
        loss = (z * grad_z).sum() + (log_det * grad_log_det).sum()
        if self._learns:
            loss = loss - weight * torch.where(usable, value, 0.0).sum()
        if 2 * kept >= len(u) and self._step(loss):
            progress.failures = 0
            progress.steps += 1
            return
        progress.failures += 1
        if progress.failures >= FAILURES_ALLOWED:
            raise ElboDivergedError(iteration)

    def _context(self, generator: torch.Generator) -> Tensor | None:
        if not isinstance(self._target, ConditionalTarget):
            return None
        context = self._target.sample_context(self._options.batch_size, generator=generator)
        return context.to(self._flow.device)

    def _target_at(
        self, z: Tensor, context: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the target's log density in float64, with its graph, and its gradient in z.

        The flow's weights get their gradients from these rows, so that a non-finite one can be
        left out, where a common graph would spread it to all weights.
        """
        rows = z.detach().double().requires_grad_()
        if isinstance(self._target, Target):
            value = self._target.estimate(rows, generator=generator)
        else:
            assert context is not None  # noqa: S101  as `_context` drew it
            value = self._target.log_density(rows, context)
        slope = torch.zeros_like(rows)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value.sum(), rows, retain_graph=self._learns)
        return value.to(z.device, torch.float64), slope.to(z.dtype)

    def _step(self, loss: Tensor) -> bool:
        """Take one optimiser step, if the gradient is finite; return True if it was taken."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        limit = self._options.max_gradient_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._flow.parameters(), limit)
        if not bool(norm.isfinite()):
            return False
        rate = self._options.learning_rate_at(self._progress.iteration)
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        return True

    def _close_window(self) -> None:
        """Keep the weights if they are the best; while the target is annealed the last ones are."""
        progress = self._progress
        if progress.steps == 0:
            raise ElboDivergedError(progress.iteration)
        progress.window = 0
        progress.stale += 1
        first = progress.best_iteration == 0 or progress.iteration <= self._options.annealing
        # Means over other contexts differ by more than the steps between them improve.
        slack = 2 * progress.standard_error if self._flow.context_dim else 0.0
        if first or progress.elbo > progress.best - slack:
            progress.best_iteration = progress.iteration
            self._best = copies(self._flow.state_dict())
        if first or progress.elbo > progress.best:
            progress.best, progress.stale = progress.elbo, 0
        progress.seconds = time.monotonic() - self._started

    def _report(self, state: Callable[[], FitState]) -> VariationalReport:
        progress = self._progress
        return VariationalReport(
            iteration=progress.iteration,
            elbo=progress.elbo,
            elbo_standard_error=progress.standard_error,
            skipped=progress.skipped,
            best_iteration=progress.best_iteration,
            best_elbo=progress.best,
            samples_per_second=progress.samples_per_second,
            seconds=progress.seconds,
            stop_reason=self._stop_reason(),
            _state=state,
        )

    def _stop_reason(self) -> VariationalStopReason | None:
        """Return the reason why the report that is being made is the last one, if it is."""
        options, progress = self._options, self._progress
        if options.patience is not None and progress.stale >= options.patience:
            return "patience"
        if progress.iteration >= options.iterations:
            return "max_iterations"
        if options.max_seconds is not None and progress.seconds >= options.max_seconds:
            return "max_seconds"
        return None

    def _out_of_time(self) -> bool:
        limit = self._options.max_seconds
        return limit is not None and time.monotonic() - self._started >= limit

    def _generator(self, iteration: int) -> torch.Generator:
        mixed = np.random.SeedSequence([self._options.seed, iteration])
        return torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0]))

    def _snapshot_of(self, iteration: int) -> Callable[[], FitState]:
        def snapshot() -> FitState:
            if self._progress.iteration != iteration:
                raise FlowError(f"training has gone on after iteration {iteration}")
            return self._state()

        return snapshot

    def _state_within(self) -> FitState:
        """Return the state between two reports."""
        self._progress.seconds = time.monotonic() - self._started
        return self._state()

    def _state(self) -> FitState:
        groups = {
            "flow": copies(self._flow.state_dict()),
            "best": self._best,
            "optimiser": moments_of(self._optimiser),
        }
        return pack_state(groups, {"progress": asdict(self._progress), **self._identity()})

    def _identity(self) -> dict[str, Json]:
        """Return the properties that a state must share with the training that resumes it."""
        return {
            "batch_size": self._options.batch_size,
            "optimiser": self._options.optimiser,
            "report_every": self._options.report_every,
            "seed": self._options.seed,
        }

    @restoring()
    def _restore(self, state: FitState) -> None:
        groups, progress = unpack_state(state, self._flow, self._identity())
        self._flow.load_state_dict(groups["flow"])
        self._best = copies(groups["best"])
        restore_moments(self._optimiser, groups["optimiser"])
        self._progress = _Progress(**progress)  # type: ignore[arg-type]  # as _state wrote it
