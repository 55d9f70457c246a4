"""Options of `fit` and `fit_variational`, and the learning rates that follow from them."""

import math
from dataclasses import dataclass
from typing import Literal

# Weight of the target in the first iteration of annealing.
ANNEALED_FROM = 0.01

Optimiser = Literal["adam", "adamw", "adagrad", "sgd"]


@dataclass(frozen=True)
class StepFactor:
    """Factor of the learning rate, applied after every `epochs` epochs.

    Attributes:
        epochs: Number of epochs from one step to the next.
        factor: Factor that each step multiplies the learning rate by.
    """

    epochs: int
    factor: float

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "a step schedule needs epochs of at least 1")
        _check(0 < self.factor <= 1, "a step schedule needs a factor above 0 and at most 1")


@dataclass(frozen=True)
class StepSchedule:
    """Schedule in which the learning rate falls in steps.

    Attributes:
        step: Length and factor of the steps.
    """

    step: StepFactor


Schedule = Literal["constant", "cosine"] | StepSchedule


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of one training on data.

    Attributes:
        optimiser: `adam` and the others of `torch.optim`; sgd is without momentum.
        learning_rate: Learning rate of the first epoch.
        weight_decay: L2 term added to the gradient; decoupled from it in `adamw`.
        max_gradient_norm: Norm that a longer gradient of all weights together is shortened to, so
            that one far outlier cannot throw the weights off; None leaves gradients as they are.
        batch_size: Most rows in one step.
        max_epochs: Epochs after which training ends.
        patience: Epochs without a better validation likelihood after which training ends; None
            continues to `max_epochs`.
        max_seconds: Training time, over all resumptions, after which it ends, within an epoch if
            need be.
        schedule: Change of the learning rate from epoch to epoch.
        row_loss_bound: Spreads over the median loss beyond which the losses of rows are bounded
            (`flows.training.robust`), in each step and in the robust mean that early stopping then
            watches; None takes plain means, as the papers do.
        weight_average: Decay of a moving average of the weights, which is what is evaluated
            and kept; None evaluates the weights themselves.
        noise: Noise on discrete columns: drawn `once`, or anew for each `epoch`.
        restarts: Times that a training whose likelihood is not finite goes back to its best state
            and on with a tenth of the learning rate, before it fails.
        mixed_precision: True to round factors of the matrix products of training steps on CUDA, where
            that is faster. Sums stay in float32, evaluation in full precision.
        seed: Seed of the order of the rows, and of the noise.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_gradient_norm: float | None = None
    batch_size: int = 100
    max_epochs: int = 1000
    patience: int | None = 30
    max_seconds: float | None = None
    schedule: Schedule = "constant"
    row_loss_bound: float | None = None
    weight_average: float | None = None
    noise: Literal["once", "epoch"] = "once"
    restarts: int = 0
    mixed_precision: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check_common(self)
        _check(0 <= self.weight_decay < math.inf, "weight_decay must be at least 0")
        _check(self.max_epochs >= 1, "max_epochs must be at least 1")
        _check(self.restarts >= 0, "restarts must be at least 0")
        bound, average = self.row_loss_bound, self.weight_average
        _check(bound is None or 0 < bound < math.inf, "row_loss_bound must be above 0")
        _check(average is None or 0 < average < 1, "weight_average must be between 0 and 1")
        _check(self.noise in ("once", "epoch"), "noise must be once or epoch")

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        if isinstance(self.schedule, StepSchedule):
            step = self.schedule.step
            return self.learning_rate * step.factor ** ((epoch - 1) // step.epochs)
        if self.schedule == "constant":
            return self.learning_rate
        return _cosine(self.learning_rate, (epoch - 1) / self.max_epochs)

    def largest_batch(self, rows: int) -> int:
        """Return the number of rows of the largest batch, of as few and as equal ones as `rows` allow."""
        return -(-rows // -(-rows // self.batch_size))


@dataclass(frozen=True, kw_only=True)
class VariationalOptions:
    """Options of one training on a target.

    Attributes:
        optimiser: `adam` and the others of `torch.optim`; sgd is without momentum.
        learning_rate: Learning rate of the first iteration.
        schedule: Constant, or a cosine that falls towards 0 over `iterations`.
        max_gradient_norm: Maximum norm of the gradient of all weights; larger ones are scaled down; None
            leaves gradients as they are. Far from the target they are huge, and Adam would take
            small steps for thousands of iterations after.
        batch_size: Samples of the flow in one iteration.
        iterations: Iterations after which training ends.
        report_every: Iterations of one report.
        annealing: Iterations over which the weight of the target's log density rises from 0.01
            to 1 (Rezende and Mohamed 2015, section 6.1); 0 leaves it at 1.
        patience: Reports without a better ELBO after which training ends; None continues to
            `iterations`.
        max_seconds: Training time, over all resumptions, after which it ends.
        seed: Seed of the noise.
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    max_gradient_norm: float | None = 10.0
    batch_size: int = 128
    iterations: int = 10_000
    report_every: int = 100
    annealing: int = 0
    patience: int | None = None
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_common(self)
        _check(self.iterations >= 1, "iterations must be at least 1")
        _check(self.report_every >= 1, "report_every must be at least 1")
        _check(self.annealing >= 0, "annealing must be at least 0")

    def learning_rate_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 1."""
        if self.schedule == "constant":
            return self.learning_rate
        return _cosine(self.learning_rate, (iteration - 1) / self.iterations)

    def target_weight_at(self, iteration: int) -> float:
        """Return the weight of the target's log density in an iteration, counted from 1."""
        if iteration > self.annealing:
            return 1.0
        return ANNEALED_FROM + (1 - ANNEALED_FROM) * (iteration - 1) / self.annealing


def _check_common(options: FitOptions | VariationalOptions) -> None:
    _check(0 < options.learning_rate < math.inf, "learning_rate must be above 0")
    norm = options.max_gradient_norm
    _check(norm is None or 0 < norm < math.inf, "max_gradient_norm must be above 0")
    _check(options.batch_size >= 1, "batch_size must be at least 1")
    _check(options.patience is None or options.patience >= 1, "patience must be at least 1")
    _check(options.max_seconds is None or options.max_seconds > 0, "max_seconds must be above 0")
    _check(options.seed >= 0, "seed must be at least 0")


def _cosine(first: float, done: float) -> float:
    return first * 0.5 * (1 + math.cos(math.pi * done))


def _check(holds: bool, otherwise: str) -> None:  # noqa: FBT001  the condition itself
    if not holds:
        raise ValueError(otherwise)
