"""Fit of a mixture of Gaussians: iterations of expectation maximisation, reported like epochs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from flows.cost import fitting_rows
from flows.errors import FitError
from flows.families.gaussian_mixture import MixtureOfGaussians
from flows.flow import Flow
from flows.specs.gaussian_mixture import MOST_COMPONENTS, START_ROWS
from flows.specs.spec import Json
from flows.training.evaluate import evaluate
from flows.training.expectation import (
    GAIN,
    ROWS_A_COMPONENT,
    Mixture,
    best_start,
    em_step,
    information_criterion,
    start,
)
from flows.training.options import FitOptions
from flows.training.rows import ModelRows, generator_of
from flows.training.state import (
    Callbacks,
    EpochReport,
    FitState,
    StopReason,
    copies,
    pack_state,
    restoring,
    unpack_state,
)

# Numbers of components that are tried until the criterion has risen this often.
COUNTS, PATIENCE = (1, 2, 3, 4, 6, 8, 12, MOST_COMPONENTS), 2
CHUNK_ROWS = 8192
# Criterion before a number is fitted; JSON has no infinity.
NO_CRITERION = 1e308
_NAMES = ("weights", "means", "covariances")


def has_mixture(flow: Flow) -> bool:
    """Return True if the continuous values of a flow have a mixture of Gaussians."""
    return isinstance(flow.transform.continuous(), MixtureOfGaussians)


def freeze_mixture(flow: Flow) -> None:
    """Leave the weights of a mixture of Gaussians out of gradients, if a flow has one."""
    bijection = flow.transform.continuous()
    if isinstance(bijection, MixtureOfGaussians):
        bijection.requires_grad_(requires_grad=False)


def is_mixture(flow: Flow) -> bool:
    """Return True if the weights of a flow are those of a mixture of Gaussians alone."""
    bijection = flow.transform.continuous()
    if not isinstance(bijection, MixtureOfGaussians):
        return False
    return len(list(flow.parameters())) == len(list(bijection.parameters()))


def fit_continuous(  # noqa: PLR0913  what to fit, how, from where, until when
    flow: Flow,
    rows: ModelRows,
    *,
    options: FitOptions,
    callbacks: Callbacks,
    state: Callable[[], FitState],
    out_of_time: Callable[[], bool],
    before: FitState | None = None,
) -> None:
    """Fit the mixture of the continuous values of a mixed flow to the rows that lack none of them.

    Args:
        flow: Flow of family `mixed` whose continuous values have a mixture of Gaussians.
        rows: Training rows in the model's space.
        state: Function that returns the state of the training, to which that of the fit is added.
        out_of_time: Function that tells when the best mixture so far is to do, after an iteration at least.
        before: State with which an earlier fit was interrupted.

    Raises:
        FitError: Too few rows lack nothing.
        FitInterrupted: The training is to end.
    """
    search = _Search(flow, rows, options)
    if before is not None and isinstance(before.meta["mixture"], dict):
        kept = {
            name.removeprefix("mixture/"): tensor
            for name, tensor in before.tensors.items()
            if name.startswith("mixture/")
        }
        search.resume(kept, before.meta["mixture"])

    def whole() -> FitState:
        training = state()
        tensors = {f"mixture/{name}": tensor for name, tensor in search.tensors().items()}
        meta = training.meta | {"mixture": asdict(search.progress)}
        return FitState(training.tensors | tensors, meta)

    while not search.progress.done and not (search.progress.epoch and out_of_time()):
        search.advance(callbacks)
        callbacks.between_steps(whole)
    search.keep(search.best)


class MixtureFitter:
    """Fit of one flow that is a mixture of Gaussians."""

    def __init__(
        self, flow: Flow, train: Tensor, validation: Tensor, *, options: FitOptions
    ) -> None:
        self._flow, self._options = flow, options
        self._train = ModelRows(flow, train, seed=options.seed, name="training")
        self._validation = ModelRows(flow, validation, seed=options.seed + 1, name="validation")
        self._search = _Search(flow, self._train, options)
        self._best = copies(flow.state_dict())
        self._began = time.monotonic()

    def run(self, state: FitState | None, callbacks: Callbacks) -> Iterator[EpochReport]:
        """Yield a report an iteration, as `flows.training.fit.fit` describes."""
        if state is not None:
            self._restore(state)
        self._began = time.monotonic() - self._search.progress.seconds
        progress = self._search.progress
        while progress.epoch == 0 or self._stop_reason() is None:
            self._iterate(callbacks)
            if self._stop_reason() is None:
                now = self._state()
                yield self._report(now)
                callbacks.between_steps(lambda now=now: now)  # type: ignore[misc]  # its own state
        last = self._state()
        self._flow.load_state_dict(self._best)
        self._flow.eval()
        yield self._report(last)

    def _iterate(self, callbacks: Callbacks) -> None:
        search, progress = self._search, self._search.progress
        began = time.monotonic()
        search.advance(callbacks)
        progress.rows_per_second = len(self._train) / max(time.monotonic() - began, 1e-9)
        search.keep(search.now)
        self._flow.eval()
        reached = evaluate(
            self._flow,
            self._validation,
            space="model",
            row_loss_bound=self._options.row_loss_bound,
            chunk_rows=search.chunk_rows,
            on_chunk=lambda: callbacks.step(1, 1),
        )
        progress.robust = reached.robust_mean
        progress.validation = reached.mean if math.isfinite(reached.mean) else None
        ended = self._ended_early()
        # The model is the mixture of the best criterion; until one is fitted, the present one.
        unfitted = progress.criterion == NO_CRITERION
        if search.is_best or progress.best_epoch == 0 or (ended and unfitted):
            progress.best_epoch, progress.best_validation = progress.epoch, progress.validation
            progress.best = progress.robust
            self._best = copies(self._flow.state_dict())
        progress.seconds = time.monotonic() - self._began

    def _stop_reason(self) -> StopReason | None:
        return "converged" if self._search.progress.done else self._ended_early()

    def _ended_early(self) -> StopReason | None:
        options, progress = self._options, self._search.progress
        if progress.epoch >= options.max_epochs:
            return "max_epochs"
        if options.max_seconds is not None and progress.seconds >= options.max_seconds:
            return "max_seconds"
        return None

    def _report(self, state: FitState) -> EpochReport:
        progress, constant = self._search.progress, self._validation.constant
        plain, best = (
            -math.inf if value is None else value + constant
            for value in (progress.validation, progress.best_validation)
        )
        return EpochReport(
            epoch=progress.epoch,
            train_log_likelihood=progress.train + self._train.constant,
            validation_log_likelihood=plain,
            robust_validation_log_likelihood=progress.robust + constant,
            best_epoch=progress.best_epoch,
            best_validation_log_likelihood=best,
            best_robust_validation_log_likelihood=progress.best + constant,
            rows_per_second=progress.rows_per_second,
            seconds=progress.seconds,
            restarts=0,
            stop_reason=self._stop_reason(),
            _state=lambda: state,
        )

    def _identity(self) -> dict[str, Json]:
        return {"rows": len(self._train), "batches": 1, "seed": self._options.seed}

    def _state(self) -> FitState:
        search = self._search
        groups = {
            "flow": copies(self._flow.state_dict()),
            "best": self._best,
            "optimiser": search.tensors(),
        }
        return pack_state(groups, {"progress": asdict(search.progress), **self._identity()})

    @restoring()
    def _restore(self, state: FitState) -> None:
        groups, progress = unpack_state(state, self._flow, self._identity())
        if groups["scores"]:
            raise ValueError("an iteration of an earlier release that was not evaluated")
        self._flow.load_state_dict(groups["flow"])
        self._best = copies(groups["best"])
        self._search.resume(groups["optimiser"], progress)


@dataclass
class _Progress:
    """State of a search without its tensors. Likelihoods are in the model's space.

    Attributes:
        epoch: Iterations so far.
        batches: Always 0: a state lies between two iterations.
        candidate: Place of the number of components that is being fitted.
        begun: True once that number has a start.
        train: Mean log density of the training rows before the last iteration.
        criterion: Least information criterion of a number that was fitted.
        worse: Numbers in a row with a higher criterion.
        done: True once no number is left to fit.
    """

    epoch: int = 0
    batches: int = 0
    candidate: int = 0
    begun: bool = False
    train: float = 0.0
    criterion: float = NO_CRITERION
    worse: int = 0
    done: bool = False
    validation: float | None = 0.0
    robust: float = 0.0
    best_epoch: int = 0
    best: float = 0.0
    best_validation: float | None = 0.0
    rows_per_second: float = 0.0
    seconds: float = 0.0


class _Search:
    """Search for the number of components: each is fitted, more of them until that is worse.

    Attributes:
        now: Mixture that is being fitted.
        best: Fitted mixture of the least criterion.
        is_best: True if the last iteration ended with the best mixture so far.
        chunk_rows: Rows that are computed at a time.
    """

    def __init__(self, flow: Flow, rows: ModelRows, options: FitOptions) -> None:
        bijection = flow.transform.continuous()
        if not isinstance(bijection, MixtureOfGaussians):
            raise TypeError("only a mixture of Gaussians is fitted so")
        self._flow, self._rows, self._options = flow, rows, options
        self._bijection, self._spec = bijection, bijection.spec
        self.progress, self.is_best = _Progress(), False
        self.chunk_rows = fitting_rows(CHUNK_ROWS, flow.row_bytes)
        self._sample = self._sampled()
        variance = self._sample.var(dim=0, unbiased=False)
        # A column of one value has no variance to add a part of.
        self._added = self._spec.regularisation * torch.where(variance > 0, variance, 1.0)
        most = max(1, len(self._sample) // ROWS_A_COMPONENT)
        chosen = self._spec.components
        self._counts = [n for n in COUNTS if n <= most] if chosen is None else [chosen]
        if len(self._sample) < self._counts[0]:
            raise FitError(f"a mixture of {chosen} components needs as many whole rows at least")
        self.now = self.best = start(self._sample, 1, self._added, generator_of(options.seed))

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of both mixtures by their names in a state."""
        return {
            f"{kind}.{name}": getattr(mixture, name).clone()
            for kind, mixture in (("now", self.now), ("fitted", self.best))
            for name in _NAMES
        }

    def resume(self, kept: Mapping[str, Tensor], progress: dict[str, Json]) -> None:
        """Go on from the tensors and the progress of a state."""
        self.now, self.best = (
            Mixture(*(kept[f"{kind}.{name}"].double().cpu() for name in _NAMES))
            for kind in ("now", "fitted")
        )
        self.progress = _Progress(**progress)  # type: ignore[arg-type]  # as a state has it

    def advance(self, callbacks: Callbacks) -> None:
        """Take one iteration; if it gains nothing, compare the mixture and take the next number."""
        progress = self.progress
        if not progress.begun:
            self.now = self._started(self._counts[progress.candidate])
        before = progress.train if progress.begun else -math.inf
        self.now, progress.train = em_step(self.now, self._whole_rows(callbacks), self._added)
        progress.begun = True
        progress.epoch += 1
        self.is_best = False
        if progress.train - before < GAIN:
            self._compare()

    def keep(self, mixture: Mixture) -> None:
        """Set the weights of the flow."""
        self._bijection.set_components(mixture.weights, mixture.means, mixture.covariances)

    def _compare(self) -> None:
        progress, rows = self.progress, len(self._rows)
        found = information_criterion(self.now, progress.train, rows)
        self.is_best = found < progress.criterion
        if self.is_best:
            self.best, progress.criterion, progress.worse = self.now, found, 0
        else:
            progress.worse += 1
        progress.candidate, progress.begun = progress.candidate + 1, False
        progress.done = progress.candidate == len(self._counts) or progress.worse == PATIENCE

    def _started(self, count: int) -> Mixture:
        return best_start(
            self._sample,
            count,
            self._added,
            seed=self._options.seed,
            chunk_rows=self.chunk_rows,
        )

    def _whole_rows(self, callbacks: Callbacks | None = None) -> Iterator[Tensor]:
        """Yield the context and the features of the rows that lack no feature, and tell of each chunk."""
        flow, done, total = self._flow, 0, len(self._rows)
        with torch.no_grad():
            for rows in self._rows.chunks(self.chunk_rows):
                context = flow.model_features(rows[:, flow.model_dim :])
                parts = flow.transform.continuous_rows(rows[:, : flow.model_dim], context)
                values, given, observed = parts
                joint = values if given is None else torch.cat([given, values], dim=1)
                if observed is not None:
                    joint = joint[(observed == 1).all(dim=1)]
                done += len(rows)
                if callbacks is not None:
                    callbacks.step(done, total)
                yield joint.double().cpu()

    def _sampled(self) -> Tensor:
        """Return at most `START_ROWS` whole rows, evenly spread.

        Raises:
            FitError: There are fewer than two.
        """
        every = -(-len(self._rows) // START_ROWS)
        rows = torch.cat([chunk[::every] for chunk in self._whole_rows()])
        if len(rows) < 2:
            raise FitError("a mixture of Gaussians needs rows that lack no value")
        return rows
