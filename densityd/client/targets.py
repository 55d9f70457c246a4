"""Targets of variational jobs and ranges of sweeps as typed dictionaries."""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict


class PotentialTarget(TypedDict):
    """One of five densities of two coordinates."""

    potential: Literal["U1", "U2", "U3", "U4", "U5"]


class Window(TypedDict):
    """The box in which the KL divergence is computed, an interval for each coordinate."""

    lower: Sequence[float]
    upper: Sequence[float]


class FormulaTarget(TypedDict):
    """A formula of `z1` to `zD`: a log density up to a constant, in nats."""

    log_density: str
    dim: int
    window: NotRequired[Window | None]


class Posterior(TypedDict):
    """A Bayesian regression; `noise_scale` is of `linear`, `batch_rows` of `logistic`."""

    kind: Literal["linear", "logistic"]
    dataset_id: str
    response: str
    columns: NotRequired[Sequence[str] | None]
    prior_scale: NotRequired[float]
    noise_scale: NotRequired[float]
    batch_rows: NotRequired[int | None]


class PosteriorTarget(TypedDict):
    """The posterior of a regression on a dataset."""

    posterior: Posterior


class LatentModel(TypedDict):
    """A generative model of rows with latent variables.

    Its decoder is learnt, with `dim` latent variables and `hidden` layers, or linear and known, with
    `loadings`, `offset` and `noise_scale`.
    """

    dataset_id: str
    likelihood: Literal["bernoulli", "gaussian"]
    columns: NotRequired[Sequence[str] | None]
    dim: NotRequired[int | None]
    hidden: NotRequired[Sequence[int] | None]
    activation: NotRequired[str]
    loadings: NotRequired[Sequence[Sequence[float]] | None]
    offset: NotRequired[Sequence[float] | None]
    noise_scale: NotRequired[float | None]
    held_out: NotRequired[float]


class LatentTarget(TypedDict):
    """The latent variables of each row of a dataset, given the row."""

    latent: LatentModel


Target = PotentialTarget | FormulaTarget | PosteriorTarget | LatentTarget


class Interval(TypedDict):
    """The numbers from `low` to `high`: whole numbers if both are."""

    low: float
    high: float
    scale: NotRequired[Literal["linear", "log"]]


class Choices(TypedDict):
    """The values to choose from."""

    values: Sequence[object]


Range = Interval | Choices
