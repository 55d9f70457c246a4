"""State and reports of a training that can be resumed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from flows.errors import FlowError, StateMismatchError
from flows.specs.spec import Json


@dataclass(frozen=True, eq=False)
class FitState:
    """State of a training at the end of an epoch or between two batches.

    Attributes:
        tensors: Weights, statistics and the optimiser's moments, now and at the best epoch.
        meta: Rest of the state as JSON, without NaN or infinity.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Json]

    @property
    def step(self) -> int:
        """Optimiser steps so far; they order the states of one training."""
        if "iteration" in self._progress:
            return self.counted("iteration")
        batches, within = self.meta["batches"], self.counted("batches")
        if not isinstance(batches, int):
            raise TypeError("a state counts its batches")
        return (self.counted("epoch") - (within > 0)) * batches + within

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
        return float(self._number("seconds"))

    def counted(self, what: str) -> int:
        """Return a count of the training's progress, such as its ``epoch``.

        Raises:
            StateMismatchError: The state does not count it.
        """
        return int(self._number(what))

    def _number(self, what: str) -> float:
        value = self._progress.get(what)
        if not isinstance(value, int | float):
            raise StateMismatchError(f"the state does not count its {what}")
        return float(value)

    @property
    def _progress(self) -> dict[str, Json]:
        progress = self.meta.get("progress")
        if not isinstance(progress, dict):
            raise StateMismatchError("the state holds no progress")
        return progress


class FitInterrupted(FlowError):  # noqa: N818  a request that was honoured, not a fault
    """Interruption of a training between two batches at its caller's request.

    Attributes:
        state: State to resume from; the resumed training equals an undisturbed one bit for bit.
    """

    def __init__(self, state: FitState) -> None:
        super().__init__("training was interrupted")
        self.state = state


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached copies of named tensors."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def pack_state(groups: Mapping[str, Mapping[str, Tensor]], meta: dict[str, Json]) -> FitState:
    """Return the state whose tensors are those of the groups, named `group/name`."""
    tensors = {
        f"{group}/{name}": tensor
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    return FitState(tensors, meta)


# Values of training rows that samples alone depend on, which states of earlier releases lack, or have others.
_OF_SAMPLES = ("preprocessing.extent", "preprocessing.denoise.")


def unpack_state(
    state: FitState, flow: nn.Module, identity: Mapping[str, Json]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Json]]:
    """Return the groups of tensors and the progress of a state.

    Args:
        identity: Entries of `meta` that the state must share with the training.

    Raises:
        StateMismatchError: The state belongs to another flow or training.
    """
    # Earlier releases kept the scores of an evaluation that was interrupted, which is repeated.
    groups: dict[str, dict[str, Tensor]] = {
        group: {} for group in ("flow", "best", "optimiser", "average", "mixture", "scores")
    }
    for key, tensor in state.tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor
    progress = state.meta.get("progress")
    own = flow.state_dict()
    shapes = {name: tensor.shape for name, tensor in own.items()}
    for group in ("flow", "best"):
        groups[group] |= {name: own[name] for name in own if name.startswith(_OF_SAMPLES)}
        if {name: tensor.shape for name, tensor in groups[group].items()} != shapes:
            raise StateMismatchError("the state belongs to another flow")
    if any(state.meta.get(key) != value for key, value in identity.items()):
        raise StateMismatchError("the state belongs to a training with other rows or options")
    if not isinstance(progress, dict):
        raise StateMismatchError("the state holds no progress")
    return groups, progress


@contextmanager
def restoring() -> Iterator[None]:
    """Return a context that restores a state, and tells of one of another version of the code as such.

    Raises:
        StateMismatchError: The state lacks something, or has something else, or of another shape.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise StateMismatchError("the state belongs to another training") from error


OnStep = Callable[[int, int], None]
OnState = Callable[[Callable[[], FitState]], None]


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a caller, each of which may be missing.

    Attributes:
        on_step: Takes the number of finished steps and their total.
        on_state: Takes a function that returns the state of the training; valid until it returns.
        interrupted: Returns True if the training is to end.
    """

    on_step: OnStep | None
    on_state: OnState | None
    interrupted: Callable[[], bool] | None

    def step(self, done: int, total: int) -> None:
        """Report the number of finished steps."""
        if self.on_step is not None:
            self.on_step(done, total)

    def between_steps(self, state: Callable[[], FitState]) -> None:
        """Offer the state of the training, or end it.

        Raises:
            FitInterrupted: The training is to end.
        """
        if self.interrupted is not None and self.interrupted():
            raise FitInterrupted(state())
        if self.on_state is not None:
            self.on_state(state)


StopReason = Literal["patience", "max_epochs", "max_seconds", "converged"]


@dataclass(frozen=True)
class EpochReport:
    """Report of one epoch. Log-likelihoods are means over rows, in nats, in the data's units.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        train_log_likelihood: Mean over the epoch's batches, each before its own step.
        validation_log_likelihood: Validation mean after the epoch, in evaluation mode; -inf if the
            density of a row is 0.
        robust_validation_log_likelihood: Mean that single rows cannot ruin
            (`flows.training.robust`), used for early stopping; without `row_loss_bound` the plain
            mean.
        best_epoch: Epoch with the best robust validation likelihood so far.
        best_validation_log_likelihood: Plain validation likelihood of the best epoch.
        best_robust_validation_log_likelihood: Robust validation likelihood of the best epoch.
        rows_per_second: Training speed of the epoch, without evaluation.
        seconds: Time since the training began, earlier runs of a resumed one included.
        restarts: Number of times that the training went back to its best state after divergence.
        stop_reason: Reason why this epoch is the last one; None if it is not.
        expected_gain: Gain of the robust validation likelihood that as much training again is expected to
            give; None unless a limit ended the training while it rose.
    """

    epoch: int
    train_log_likelihood: float
    validation_log_likelihood: float
    robust_validation_log_likelihood: float
    best_epoch: int
    best_validation_log_likelihood: float
    best_robust_validation_log_likelihood: float
    rows_per_second: float
    seconds: float
    restarts: int
    stop_reason: StopReason | None
    expected_gain: float | None = field(default=None, kw_only=True)
    _state: Callable[[], FitState] = field(repr=False, compare=False)

    def snapshot(self) -> FitState:
        """Return the state from which training can resume after this epoch.

        Raises:
            FlowError: Training has already gone on.
        """
        return self._state()
