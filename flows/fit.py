"""Maximum likelihood: a generator that yields one report an epoch and can resume."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.batch_norm import BatchNorm, set_dataset_statistics
from flows.errors import DivergedError, FitError, FitInterrupted, FlowError
from flows.evaluate import default_chunk_rows, evaluate
from flows.fit_state import FitState, Json
from flows.flow import Flow
from flows.optimiser import make_optimiser, optimiser_tensors, restore_optimiser, set_learning_rate
from flows.options import FitOptions

StopReason = Literal["patience", "max_epochs", "max_seconds"]
OnBatch = Callable[[int, int], None]

# A likelihood that is not finite stays so in the running sum: looking at it now and then, and at
# the end of the epoch, finds it, without making a GPU wait for each batch.
CHECK_EVERY = 16

COPY_ROWS = 65_536


@dataclass(frozen=True)
class EpochReport:
    """What one epoch gave. Log-likelihoods are means over rows, in nats, in the data's units.

    Attributes:
        epoch: counted from 1.
        train_log_likelihood: the mean over the epoch's batches, each before its own step.
        validation_log_likelihood: after the epoch, in evaluation mode.
        best_epoch: the epoch with the best validation likelihood so far.
        best_validation_log_likelihood: its validation likelihood.
        rows_per_second: of the epoch's training, evaluation left out.
        seconds: since the training began, earlier runs of a resumed one included.
        stop_reason: why this epoch is the last one; None if it is not.
    """

    epoch: int
    train_log_likelihood: float
    validation_log_likelihood: float
    best_epoch: int
    best_validation_log_likelihood: float
    rows_per_second: float
    seconds: float
    stop_reason: StopReason | None
    _state: Callable[[], FitState] = field(repr=False, compare=False)

    def snapshot(self) -> FitState:
        """Where training can go on from after this epoch.

        Raises:
            FlowError: training has already gone on.
        """
        return self._state()


def fit(  # noqa: PLR0913  what to train, how, from where, and two callbacks
    flow: Flow,
    train: Float[Tensor, "rows columns"],
    validation: Float[Tensor, "validation_rows columns"],
    *,
    options: FitOptions,
    state: FitState | None = None,
    on_batch: OnBatch | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Iterator[EpochReport]:
    """Trains a flow by maximum likelihood with early stopping on the validation likelihood.

    Each epoch sees all rows once, in an order drawn from the seed and the epoch, spread as evenly
    as can be over the fewest batches of at most `options.batch_size` rows: no batch is left with
    a row or two, whose statistics would mean nothing. With the last report the flow holds the
    weights and statistics of the best epoch and is in evaluation mode.

    Args:
        flow: trained in place, on the device where it is.
        train: rows in the data's units, features first, then the columns of a context; kept on
            that device, preprocessed. Discrete columns get their noise once, from the seed.
        validation: rows in the data's units.
        options: how to train.
        state: a snapshot or an interruption of the same training, with the same rows and options.
        on_batch: called after each batch with the batches done and those of the whole epoch.
        interrupted: asked after each batch; if true, the training ends with `FitInterrupted`.

    Returns:
        One report an epoch. The state after the last epoch gives that epoch's report once more.

    Raises:
        DivergedError: a likelihood is not finite.
        FitError: rows, options or state do not fit the flow.
        FitInterrupted: `interrupted` said so.
    """
    fitter = _Fitter(flow, train, validation, options=options)
    return fitter.run(state, on_batch, interrupted)


@dataclass
class _Progress:
    """The part of a training's state that is not tensors. Likelihoods are in the model's space.

    Attributes:
        epoch: the epoch that is being trained, or the last one that was.
        batches: how many of its batches are done; 0 once it is evaluated.
        total: the sum of the log densities of its rows so far.
    """

    epoch: int = 0
    batches: int = 0
    total: float = 0.0
    train: float = 0.0
    validation: float = 0.0
    best_epoch: int = 0
    best: float = 0.0
    rows_per_second: float = 0.0
    seconds: float = 0.0


class _Fitter:
    """One training."""

    def __init__(
        self, flow: Flow, train: Tensor, validation: Tensor, *, options: FitOptions
    ) -> None:
        self._flow = flow
        self._options = options
        noise = torch.Generator().manual_seed(options.seed)
        self._train, self._constant = _to_model_space(flow, train, noise, name="training")
        self._validation, self._validation_constant = _to_model_space(
            flow, validation, noise, name="validation"
        )
        batches = -(-len(train) // options.batch_size)
        self._bounds = [len(train) * batch // batches for batch in range(batches + 1)]
        self._check_batches()
        self._optimiser = make_optimiser(
            flow.parameters(),
            options.optimiser,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
        )
        self._progress = _Progress()
        self._best: dict[str, Tensor] = {}
        self._started = 0.0

    def run(
        self,
        state: FitState | None,
        on_batch: OnBatch | None,
        interrupted: Callable[[], bool] | None,
    ) -> Iterator[EpochReport]:
        if state is not None:
            self._restore(state)
        self._started = time.monotonic() - self._progress.seconds
        evaluated = self._progress.epoch > 0 and self._progress.batches == 0
        while not (evaluated and self._stop_reason() is not None):
            self._train_epoch(on_batch, interrupted)
            self._evaluate_epoch()
            evaluated = True
            if self._stop_reason() is None:
                yield self._report(self._snapshot_of(self._progress.epoch))
        last = self._state()
        self._flow.load_state_dict(self._best)
        self._flow.eval()
        yield self._report(lambda: last)

    def _train_epoch(
        self, on_batch: OnBatch | None, interrupted: Callable[[], bool] | None
    ) -> None:
        """Trains what is left of an epoch, or of the time."""
        progress, batches = self._progress, len(self._bounds) - 1
        if progress.batches == 0:
            progress.epoch += 1
            progress.total = 0.0
        self._flow.train()
        set_learning_rate(self._optimiser, self._options.learning_rate_at(progress.epoch))
        order = self._order(progress.epoch)
        total = torch.tensor(progress.total, dtype=torch.float64, device=self._flow.device)
        first, began = self._bounds[progress.batches], time.monotonic()
        while progress.batches < batches and not (progress.batches and self._out_of_time()):
            start, end = self._bounds[progress.batches : progress.batches + 2]
            total += self._step(self._train.index_select(0, order[start:end]))
            progress.batches += 1
            if progress.batches % CHECK_EVERY == 0:
                self._check_finite(total)
            if on_batch is not None:
                on_batch(progress.batches, batches)
            if interrupted is not None and interrupted():
                progress.total = self._check_finite(total)
                progress.seconds = time.monotonic() - self._started
                raise FitInterrupted(self._state())
        progress.total = self._check_finite(total)
        rows = self._bounds[progress.batches]
        progress.train = progress.total / rows
        progress.rows_per_second = (rows - first) / max(time.monotonic() - began, 1e-9)

    def _step(self, rows: Tensor) -> Tensor:
        """One step of the optimiser; returns the sum of the rows' log densities before it."""
        self._optimiser.zero_grad()
        scores = self._flow.log_prob_of_table(rows, space="model")
        loss = -scores.mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        if self._options.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self._flow.parameters(), self._options.max_gradient_norm)
        self._optimiser.step()
        return scores.detach().sum(dtype=torch.float64)

    def _evaluate_epoch(self) -> None:
        """Sets the exact statistics, scores the validation rows and keeps the best weights."""
        flow, progress = self._flow, self._progress
        flow.eval()
        chunk_rows = default_chunk_rows(flow.device)
        self._set_statistics(chunk_rows)
        value = evaluate(flow, self._validation, space="model").mean
        if not math.isfinite(value):
            raise DivergedError(progress.epoch)
        progress.batches, progress.validation = 0, value
        if progress.best_epoch == 0 or value > progress.best:
            progress.best_epoch, progress.best = progress.epoch, value
            self._best = _copies(flow.state_dict())
        progress.seconds = time.monotonic() - self._started

    def _set_statistics(self, chunk_rows: int) -> None:
        flow, rows = self._flow, self._train
        context = None
        if flow.context_dim:
            with torch.no_grad():
                context = flow.features(rows[:, flow.dim :], len(rows))
        set_dataset_statistics(flow.transform, rows[:, : flow.dim], context, chunk_rows=chunk_rows)

    def _report(self, state: Callable[[], FitState]) -> EpochReport:
        progress, constant = self._progress, self._validation_constant
        return EpochReport(
            epoch=progress.epoch,
            train_log_likelihood=progress.train + self._constant,
            validation_log_likelihood=progress.validation + constant,
            best_epoch=progress.best_epoch,
            best_validation_log_likelihood=progress.best + constant,
            rows_per_second=progress.rows_per_second,
            seconds=progress.seconds,
            stop_reason=self._stop_reason(),
            _state=state,
        )

    def _stop_reason(self) -> StopReason | None:
        """Why the epoch that was just evaluated is the last one."""
        options, progress = self._options, self._progress
        stale = progress.epoch - progress.best_epoch
        if options.patience is not None and stale >= options.patience:
            return "patience"
        if progress.epoch >= options.max_epochs:
            return "max_epochs"
        if options.max_seconds is not None and progress.seconds >= options.max_seconds:
            return "max_seconds"
        return None

    def _out_of_time(self) -> bool:
        limit = self._options.max_seconds
        return limit is not None and time.monotonic() - self._started >= limit

    def _order(self, epoch: int) -> Tensor:
        """The order of the rows, from the seed and the epoch alone: resuming needs no more."""
        mixed = np.random.SeedSequence([self._options.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return torch.randperm(len(self._train), generator=generator).to(self._flow.device)

    def _check_finite(self, total: Tensor) -> float:
        value = float(total)
        if not math.isfinite(value):
            raise DivergedError(self._progress.epoch)
        return value

    def _check_batches(self) -> None:
        smallest = min(end - start for start, end in pairwise(self._bounds))
        if smallest < 2 and any(
            isinstance(part, BatchNorm) for part in self._flow.transform.parts()
        ):
            raise FitError("batch norm needs batches of at least 2 rows")

    def _snapshot_of(self, epoch: int) -> Callable[[], FitState]:
        def snapshot() -> FitState:
            if (self._progress.epoch, self._progress.batches) != (epoch, 0):
                raise FlowError(f"training has gone on after epoch {epoch}")
            return self._state()

        return snapshot

    def _state(self) -> FitState:
        tensors = {f"flow/{k}": v for k, v in _copies(self._flow.state_dict()).items()}
        tensors |= {f"best/{k}": v for k, v in self._best.items()}
        tensors |= {f"optimiser/{k}": v for k, v in optimiser_tensors(self._optimiser).items()}
        return FitState(tensors, {"progress": asdict(self._progress), **self._identity()})

    def _identity(self) -> dict[str, Json]:
        """What a state must share with the training that it is for."""
        return {
            "rows": len(self._train),
            "batches": len(self._bounds) - 1,
            "optimiser": self._options.optimiser,
            "seed": self._options.seed,
        }

    def _restore(self, state: FitState) -> None:
        groups: dict[str, dict[str, Tensor]] = {"flow": {}, "best": {}, "optimiser": {}}
        for key, tensor in state.tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = tensor
        progress = state.meta["progress"]
        names = set(self._flow.state_dict())
        if set(groups["flow"]) != names or not isinstance(progress, dict):
            raise FitError("the state belongs to another flow")
        if any(state.meta[key] != value for key, value in self._identity().items()):
            raise FitError("the state belongs to a training with other rows or options")
        self._flow.load_state_dict(groups["flow"])
        self._best = _copies(groups["best"])
        restore_optimiser(self._optimiser, groups["optimiser"])
        self._progress = _Progress(**progress)  # type: ignore[arg-type]  # as _state wrote it


def _to_model_space(
    flow: Flow, x: Tensor, noise: torch.Generator, *, name: str
) -> tuple[Tensor, float]:
    """A copy of the rows as the transform takes them, on the flow's device.

    Returns:
        The rows, and what the model's space lacks to a mean log density in the data's units.
    """
    columns = flow.dim + flow.context_dim
    if x.ndim != 2 or x.shape[1] != columns or len(x) == 0:
        raise FitError(f"the {name} rows must be a table of {columns} columns, not empty")
    result = torch.empty(x.shape, dtype=flow.dtype, device=flow.device)
    total = 0.0
    for target, rows in zip(torch.split(result, COPY_ROWS), torch.split(x, COPY_ROWS), strict=True):
        placed = rows.to(flow.device)
        spread = flow.preprocessing.spread(placed[:, : flow.dim], generator=noise)
        target[:, : flow.dim], log_det = flow.preprocessing.inverse(spread)
        target[:, flow.dim :] = placed[:, flow.dim :]
        total += float(log_det.sum())
        if not torch.isfinite(target).all():
            raise FitError(f"the {name} rows hold values that are not finite")
    return result, total / len(x)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
