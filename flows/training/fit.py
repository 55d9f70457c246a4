"""Maximum likelihood training: a generator that yields one report per epoch and can resume."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from flows.bijections.batch_norm import BatchNorm
from flows.errors import DivergedError, FitError, FlowError
from flows.flow import Flow
from flows.mixed.density import MixedDensity
from flows.specs.spec import Json
from flows.training.denormals import denormals_as_zero
from flows.training.evaluate import Evaluation, default_chunk_rows, evaluate
from flows.training.fit_mixture import (
    MixtureFitter,
    fit_continuous,
    freeze_mixture,
    has_mixture,
    is_mixture,
)
from flows.training.options import FitOptions
from flows.training.robust import robust_mean
from flows.training.rows import ModelRows
from flows.training.state import (
    Callbacks,
    EpochReport,
    FitState,
    OnState,
    OnStep,
    StopReason,
    copies,
    pack_state,
    restoring,
    unpack_state,
)
from flows.training.steps import choose_steps

# A likelihood that is not finite stays so in the running sum: checking it now and then, and at the
# end of the epoch, finds it without making a GPU wait for each batch.
CHECK_EVERY = 16

# Rows whose statistics batch norms of kind `dataset` have in the evaluations between epochs.
STATISTICS_ROWS = 1024

# Gain over its start that an epoch of P(d) needs, times the root of the validation rows: about a standard
# error of the difference.
LEAST_GAIN = 0.5
# Names of the parameters of P(d) in a mixed density, and a mean log density below all others.
DISCRETE, LOWEST = "transform.made.", 1e300

# Factor of the learning rate after a restart.
RESTART_FACTOR = 0.1
# A training whose best epoch is beyond this part of it was still rising.
_LATE = 0.9


def fit(  # noqa: PLR0913  what to train, how, from where, with whom, and three callbacks
    flow: Flow,
    train: Tensor,
    validation: Tensor,
    *,
    options: FitOptions,
    state: FitState | None = None,
    on_batch: OnStep | None = None,
    on_state: OnState | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Iterator[EpochReport]:
    """Train a flow by maximum likelihood with early stopping on the validation likelihood.

    Each epoch takes all rows once, in an order drawn from the seed and the epoch, spread as evenly
    as possible over the fewest batches of at most `options.batch_size` rows: no batch is left with
    one or two rows, whose statistics would mean nothing. Batch norms of kind `dataset` have the statistics
    of some rows between epochs. After the last report the flow holds the weights of the best epoch, with
    the exact statistics of all rows in these norms, and is in evaluation mode. A mixture of Gaussians is fitted by expectation maximisation, of which an iteration
    counts as an epoch.

    Args:
        flow: Flow, trained in place on its device.
        train: Rows in the data's units, features first, then the columns of a context. A tensor
            is kept on its own device, preprocessed, from where batches go to the flow's.
            Discrete columns get noise from the seed.
        state: Snapshot or interruption of the same training, with the same rows and options.
        on_batch: Called after each batch with the finished batches and those of the whole epoch,
            and repeatedly with all of them while validation and statistics are computed.
        on_state: Called after each batch with a function that returns the state of the training there;
            valid until the callback returns.
        interrupted: Checked after each batch; if it returns True, the training ends with
            `FitInterrupted`. An evaluation that was under way is repeated when it is resumed.

    Returns:
        One report per epoch. The state after the last epoch gives that epoch's report once more.

    Raises:
        DivergedError: A likelihood is not finite.
        FitError: Rows, options or state do not fit the flow.
        FitInterrupted: The callback `interrupted` returned True.
    """
    callbacks = Callbacks(on_batch, on_state, interrupted)
    if is_mixture(flow):
        return MixtureFitter(flow, train, validation, options=options).run(state, callbacks)
    fitter = _Fitter(flow, train, validation, options=options)
    return fitter.run(state, callbacks)


@dataclass
class _Progress:
    """State of a training without its tensors. Likelihoods are in the model's space.

    Attributes:
        epoch: Epoch that is being trained, or the last one that was.
        batches: Number of finished batches of the epoch; 0 once it is evaluated.
        total: Sum of the log densities of the epoch's rows so far.
        train: Mean over the rows of the last epoch.
        validation: Plain validation mean; None stands for -inf, which JSON lacks.
        robust: Robust validation mean.
        best_epoch: Epoch with the best robust mean.
        best_validation: Plain mean of the best epoch.
        best: Robust mean of the best epoch.
        restarts: Number of times that training went back to the best state.
        restart_epoch: Epoch before the one in which it diverged last.
        halfway: Best robust mean of the first half of the training's limits; None if it is not known.
        parts: Best plain and robust means of log P(d), then of the continuous values given d, of a mixed
            density: their parameters are disjoint, and each keeps its own best epoch. Behind them is what
            an epoch must gain to be better. None elsewhere.
    """

    epoch: int = 0
    batches: int = 0
    total: float = 0.0
    train: float = 0.0
    validation: float | None = 0.0
    robust: float = 0.0
    best_epoch: int = 0
    best_validation: float | None = 0.0
    best: float = 0.0
    restarts: int = 0
    restart_epoch: int = 0
    halfway: float | None = None
    parts: list[list[float]] | None = None
    rows_per_second: float = 0.0
    seconds: float = 0.0


def _has_parts(flow: Flow) -> bool:
    """Return whether a density has probabilities of levels beside any densities of values."""
    return isinstance(flow.transform, MixedDensity) and flow.transform.made is not None


class _Fitter:
    """Training run of one flow."""

    def __init__(
        self,
        flow: Flow,
        train: Tensor,
        validation: Tensor,
        *,
        options: FitOptions,
    ) -> None:
        self._flow = flow
        self._options = options
        self._train = ModelRows(flow, train, seed=options.seed, name="training")
        self._validation = ModelRows(flow, validation, seed=options.seed + 1, name="validation")
        batches = -(-len(train) // options.batch_size)
        self._bounds = [len(train) * batch // batches for batch in range(batches + 1)]
        self._check_batches()
        freeze_mixture(flow)
        self._steps = choose_steps(flow, options, batch_size=options.largest_batch(len(train)))
        self._progress = _Progress()
        # Until the first epoch is evaluated, the initial state is the best one.
        self._best = copies(flow.state_dict())
        self._parts: list[Tensor] | None = [] if _has_parts(flow) else None
        self._started = 0.0

    def run(self, state: FitState | None, callbacks: Callbacks) -> Iterator[EpochReport]:
        if state is not None:
            self._restore(state)
        before = state if state is not None and "mixture" in state.meta else None
        self._started = time.monotonic() - self._progress.seconds
        if has_mixture(self._flow) and (state is None or before is not None):
            fit_continuous(
                self._flow,
                self._train,
                options=self._options,
                callbacks=callbacks,
                state=self._state_before,
                out_of_time=self._out_of_time,
                before=before,
            )
            self._best = copies(self._flow.state_dict())
            self._steps.restart()
        if self._parts is not None and self._progress.epoch == 0:
            self._keep_start()
        evaluated = self._progress.epoch > 0 and self._progress.batches == 0
        while not (evaluated and self._stop_reason() is not None):
            self._run_epoch(callbacks)
            evaluated = True
            if self._stop_reason() is None:
                yield self._report(self._snapshot_of(self._progress.epoch))
        last = self._state()
        self._flow.load_state_dict(self._best)
        self._flow.eval()
        if self._has_norms("dataset"):
            self._set_statistics(callbacks)
        yield self._report(lambda: last)

    def _run_epoch(self, callbacks: Callbacks) -> None:
        """Train and evaluate an epoch; if it diverges, once more from the best state."""
        while True:
            try:
                with denormals_as_zero():
                    self._train_epoch(callbacks)
                    self._evaluate_epoch(callbacks)
            except DivergedError:
                if self._progress.restarts >= self._options.restarts:
                    raise
                self._restart()
            else:
                return

    def _restart(self) -> None:
        """Go back to the best state and forget the optimiser's moments."""
        progress = self._progress
        progress.epoch, progress.batches = progress.epoch - 1, 0
        progress.restarts, progress.restart_epoch = progress.restarts + 1, progress.epoch
        self._flow.load_state_dict(self._best)
        self._steps.restart()

    def _train_epoch(self, callbacks: Callbacks) -> None:
        """Train the rest of an epoch, or of the time limit."""
        progress, batches = self._progress, len(self._bounds) - 1
        if progress.batches == 0:
            progress.epoch += 1
            progress.total = 0.0
        self._flow.train()
        rate = self._options.learning_rate_at(progress.epoch) * RESTART_FACTOR**progress.restarts
        self._steps.learning_rate = rate
        self._draw_noise(progress.epoch)
        self._train.order(self._options.seed, progress.epoch)
        total = torch.tensor(progress.total, dtype=torch.float64, device=self._flow.device)
        first, began = self._bounds[progress.batches], time.monotonic()
        while progress.batches < batches and not (progress.batches and self._out_of_time()):
            start, end = self._bounds[progress.batches : progress.batches + 2]
            progress.batches += 1
            number = (progress.epoch - 1) * batches + progress.batches
            total += self._steps.take(self._train.batch(start, end), number)
            if progress.batches % CHECK_EVERY == 0:
                self._check_finite(total)
            callbacks.step(progress.batches, batches)
            callbacks.between_steps(partial(self._state_within, total))
        progress.total = self._check_finite(total)
        rows = self._bounds[progress.batches]
        progress.train = progress.total / rows + self._train.constant
        if rows > first:  # else the evaluation alone is repeated
            progress.rows_per_second = (rows - first) / max(time.monotonic() - began, 1e-9)

    def _evaluate_epoch(self, callbacks: Callbacks) -> None:
        """Score the validation rows and keep the best weights."""
        flow, progress = self._flow, self._progress
        flow.eval()
        with self._steps.averaged():
            if self._has_norms("dataset"):
                self._steps.settle(self._train.sample(STATISTICS_ROWS))
            reached = self._evaluate(callbacks)
            if not math.isfinite(reached.robust_mean):
                raise DivergedError(progress.epoch)
            progress.batches, progress.robust = 0, reached.robust_mean
            progress.validation = reached.mean if math.isfinite(reached.mean) else None
            if self._parts is not None and (progress.parts is not None or not progress.best_epoch):
                self._keep_parts()
            elif progress.best_epoch == 0 or progress.robust > progress.best:
                progress.best_epoch, progress.best = progress.epoch, progress.robust
                progress.best_validation = progress.validation
                self._best = copies(flow.state_dict())
        progress.seconds = time.monotonic() - self._started
        if self._is_first_half():
            progress.halfway = progress.best

    def _evaluate(self, callbacks: Callbacks) -> Evaluation:
        if self._parts is not None:
            self._parts.clear()
        return evaluate(
            self._flow,
            self._validation,
            space="model",
            row_loss_bound=self._options.row_loss_bound,
            score=self._score,
            on_chunk=self._on_chunk(callbacks),
        )

    def _score(self, rows: Tensor) -> Tensor:
        scores = self._steps.score(rows)
        if self._parts is not None:
            discrete = self._log_levels(rows)
            self._parts.append(torch.stack([discrete, scores - discrete]).double().cpu())
        return scores

    def _log_levels(self, rows: Tensor) -> Tensor:
        """Return log P(d) of rows of the model."""
        transform, dim = self._flow.transform, self._flow.model_dim
        assert isinstance(transform, MixedDensity)  # noqa: S101  as it has parts
        context = self._flow.model_features(rows[:, dim:])
        levels = rows[:, : len(transform.layout.variables)].to(self._flow.dtype)
        return transform.log_levels(levels, context).sum(dim=1)

    def _keep_parts(self) -> None:
        """Keep the weights of each part that is better than before."""
        progress, bound = self._progress, self._options.row_loss_bound
        assert self._parts is not None  # noqa: S101  as the caller knows
        discrete, continuous = torch.cat(self._parts, dim=1)
        robust = continuous.mean() if bound is None else robust_mean(continuous, bound)
        found = [
            [float(discrete.mean())] * 2 + [0.0],
            [float(continuous.mean()), float(robust), 0.0],
        ]
        best = progress.parts or [[-LOWEST, -LOWEST, 0.0]] * 2
        better = [new[1] > old[1] + old[2] for new, old in zip(found, best, strict=True)]
        progress.parts = [
            [max(one, -LOWEST) for one in (new if wins else old)]
            for new, old, wins in zip(found, best, better, strict=True)
        ]
        if any(better):
            progress.best_epoch = progress.epoch
            for name, tensor in copies(self._flow.state_dict()).items():
                if better[0 if name.startswith(DISCRETE) else 1]:
                    self._best[name] = tensor
        plain, progress.best = (sum(part[which] for part in progress.parts) for which in (0, 1))
        progress.best_validation = plain if plain > -LOWEST else None

    @torch.no_grad()
    def _keep_start(self) -> None:
        """Let P(d) begin as the best one that it is so far: a tree of smoothed tables may be hard to beat.

        What few validation rows find a little better is so by chance.
        """
        self._flow.eval()
        scores = [self._log_levels(rows) for rows in self._validation.chunks(STATISTICS_ROWS)]
        mean, margin = (
            float(torch.cat(scores).double().mean()),
            LEAST_GAIN / len(self._validation) ** 0.5,
        )
        self._progress.parts = [[mean, mean, margin], [-LOWEST, -LOWEST, 0.0]]

    def _on_chunk(self, callbacks: Callbacks) -> Callable[[], None]:
        batches = len(self._bounds) - 1
        return partial(callbacks.step, batches, batches)

    def _set_statistics(self, callbacks: Callbacks) -> None:
        """Set the exact statistics of all rows for the best weights, and score the validation rows again."""
        progress = self._progress
        if progress.best_epoch > 0:
            self._draw_noise(progress.best_epoch)
        with denormals_as_zero():
            self._train.set_statistics(
                chunk_rows=default_chunk_rows(self._flow), on_chunk=self._on_chunk(callbacks)
            )
            reached = self._evaluate(callbacks)
        progress.best = reached.robust_mean
        progress.best_validation = reached.mean if math.isfinite(reached.mean) else None

    def _draw_noise(self, epoch: int) -> None:
        outer = self._flow.preprocessing
        if outer.hides or (self._options.noise == "epoch" and outer.spreads):
            self._train.draw_noise(self._options.seed, epoch, 1)

    def _report(self, state: Callable[[], FitState]) -> EpochReport:
        progress, constant = self._progress, self._validation.constant
        plain, best = (
            -math.inf if value is None else value + constant
            for value in (progress.validation, progress.best_validation)
        )
        return EpochReport(
            epoch=progress.epoch,
            train_log_likelihood=progress.train,
            validation_log_likelihood=plain,
            robust_validation_log_likelihood=progress.robust + constant,
            best_epoch=progress.best_epoch,
            best_validation_log_likelihood=best,
            best_robust_validation_log_likelihood=progress.best + constant,
            rows_per_second=progress.rows_per_second,
            seconds=progress.seconds,
            restarts=progress.restarts,
            stop_reason=self._stop_reason(),
            expected_gain=self._expected_gain(),
            _state=state,
        )

    def _stop_reason(self) -> StopReason | None:
        """Return the reason why the epoch that was just evaluated is the last one, if it is."""
        options, progress = self._options, self._progress
        stale = progress.epoch - max(progress.best_epoch, progress.restart_epoch)
        if options.patience is not None and stale >= options.patience:
            return "patience"
        if progress.epoch >= options.max_epochs:
            return "max_epochs"
        if options.max_seconds is not None and progress.seconds >= options.max_seconds:
            return "max_seconds"
        return None

    def _is_first_half(self) -> bool:
        """Return True for an epoch that more than half of the limits is left after."""
        progress, options = self._progress, self._options
        limit = options.max_seconds
        in_time = limit is None or 2 * progress.seconds <= limit
        return in_time and 2 * progress.epoch <= options.max_epochs

    def _expected_gain(self) -> float | None:
        """Return what as much training again is expected to gain; None if a limit did not end it rising.

        It is half of what the second half gained: likelihoods approach their limit like 1 / epochs at most.
        """
        progress = self._progress
        if self._stop_reason() not in ("max_epochs", "max_seconds") or progress.halfway is None:
            return None
        rises = progress.best_epoch > _LATE * progress.epoch
        return (progress.best - progress.halfway) / 2 if rises else None

    def _out_of_time(self) -> bool:
        limit = self._options.max_seconds
        return limit is not None and time.monotonic() - self._started >= limit

    def _check_finite(self, total: Tensor) -> float:
        value = float(total)
        if not math.isfinite(value):
            raise DivergedError(self._progress.epoch)
        return value

    def _check_batches(self) -> None:
        smallest = min(end - start for start, end in pairwise(self._bounds))
        if smallest < 2 and self._has_norms("dataset", "running"):
            raise FitError("batch norm needs batches of at least 2 rows")

    def _has_norms(self, *kinds: str) -> bool:
        """Return True if the flow has batch norms of these kinds."""
        parts = self._flow.transform.modules()
        return any(isinstance(part, BatchNorm) and part.spec.statistics in kinds for part in parts)

    def _snapshot_of(self, epoch: int) -> Callable[[], FitState]:
        def snapshot() -> FitState:
            if (self._progress.epoch, self._progress.batches) != (epoch, 0):
                raise FlowError(f"training has gone on after epoch {epoch}")
            return self._state()

        return snapshot

    def _state_within(self, total: Tensor) -> FitState:
        """Return the state after some batches of an epoch, whose log densities sum to `total`."""
        self._progress.total = self._check_finite(total)
        self._progress.seconds = time.monotonic() - self._started
        return self._state()

    def _state_before(self) -> FitState:
        """Return the state before the first epoch, while the mixture of the continuous values is fitted."""
        self._progress.seconds = time.monotonic() - self._started
        return self._state()

    def _state(self) -> FitState:
        groups = {
            "flow": copies(self._flow.state_dict()),
            "best": self._best,
            **self._steps.tensors(),
        }
        return pack_state(groups, {"progress": asdict(self._progress), **self._identity()})

    def _identity(self) -> dict[str, Json]:
        """Return the properties that a state must share with the training that resumes it."""
        return {
            "rows": len(self._train),
            "batches": len(self._bounds) - 1,
            "optimiser": self._options.optimiser,
            "seed": self._options.seed,
            "weight_average": self._options.weight_average,
        }

    @restoring()
    def _restore(self, state: FitState) -> None:
        groups, progress = unpack_state(state, self._flow, self._identity())
        self._flow.load_state_dict(groups["flow"])
        self._best = copies(groups["best"])
        self._steps.restore(groups)
        self._progress = _Progress(**progress)  # type: ignore[arg-type]  # as _state wrote it
