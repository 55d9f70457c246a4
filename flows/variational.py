"""Variational inference: a generator that maximises the ELBO, reports and can resume."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from flows.fit_state import FitState
from flows.flow import Flow
from flows.options import Optimiser
from flows.targets import Target

VariationalStopReason = Literal["patience", "max_iterations", "max_seconds"]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class VariationalOptions:
    """The choices of one training.

    Attributes:
        optimiser: `adam` and the others of `torch.optim`; sgd is without momentum.
        learning_rate: of the first iteration.
        schedule: constant; cosine falls towards 0 over `max_iterations`.
        max_gradient_norm: a longer gradient of all weights together is shortened to this; None
            leaves gradients as they are.
        batch_size: samples of the flow in one iteration.
        max_iterations: iterations after which training ends, whatever happens.
        report_every: iterations of one report.
        patience: reports without a better ELBO after which training ends; None goes on to
            `max_iterations`.
        max_seconds: training time, over all resumptions, after which it ends.
        annealing: iterations over which the weight of the target's log density rises from 0.01
            to 1 (Rezende and Mohamed 2015, section 6.1); 0 leaves it at 1.
        seed: of the noise.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    max_gradient_norm: float | None = None
    batch_size: int = 128
    max_iterations: int = 10_000
    report_every: int = 100
    patience: int | None = None
    max_seconds: float | None = None
    annealing: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check(0 < self.learning_rate < math.inf, "learning_rate must be above 0")
        norm = self.max_gradient_norm
        self._check(norm is None or 0 < norm < math.inf, "max_gradient_norm must be above 0")
        self._check(self.batch_size >= 1, "batch_size must be at least 1")
        self._check(self.max_iterations >= 1, "max_iterations must be at least 1")
        self._check(self.report_every >= 1, "report_every must be at least 1")
        self._check(self.patience is None or self.patience >= 1, "patience must be at least 1")
        self._check(self.max_seconds is None or self.max_seconds > 0, "max_seconds must be above 0")
        self._check(self.annealing >= 0, "annealing must be at least 0")
        self._check(self.seed >= 0, "seed must be at least 0")

    @staticmethod
    def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001  the condition itself
        if not holds:
            raise ValueError(otherwise)


@dataclass(frozen=True)
class VariationalReport:
    """What the iterations since the last report gave. The ELBO is in nats, never annealed.

    Attributes:
        iteration: the last one, counted from 1.
        elbo: the mean over the samples of these iterations, each before its own step.
        elbo_standard_error: of that mean.
        skipped: samples left out because their log density or its gradient was not finite.
        best_iteration: the iteration of the report with the best ELBO so far.
        best_elbo: its ELBO.
        samples_per_second: of these iterations.
        seconds: since the training began, earlier runs of a resumed one included.
        stop_reason: why this report is the last one; None if it is not.
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
        """Where training can go on from after this report.

        Raises:
            FlowError: training has already gone on.
        """
        return self._state()


def fit_variational(
    flow: Flow,
    target: Target,
    *,
    options: VariationalOptions,
    state: FitState | None = None,
    on_step: OnStep | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> Iterator[VariationalReport]:
    """Trains a flow q towards a target p by maximising the ELBO, the mean of log p(z) - log q(z).

    With the last report the flow holds the weights of the best report and is in evaluation mode.

    Args:
        flow: trained in place, on the device where it is.
        target: of as many dimensions as the flow.
        options: how to train.
        state: a snapshot or an interruption of the same training.
        on_step: called after each iteration with the iterations done and `max_iterations`.
        interrupted: asked after each iteration; if true, training ends with `FitInterrupted`.

    Returns:
        One report every `options.report_every` iterations.

    Raises:
        ElboDivergedError: the ELBO stopped being finite and did not recover.
        FitError: target, options or state do not fit the flow.
        FitInterrupted: `interrupted` said so.
    """
    raise NotImplementedError
