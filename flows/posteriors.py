"""Bayesian linear and logistic regression: posteriors over coefficients as targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flows.targets import Target


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """A posterior in closed form, in float64.

    Attributes:
        mean: of the coefficients.
        covariance: of the coefficients.
        log_evidence: log of the density of y given x, the coefficients integrated out.
    """

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]
    log_evidence: float


class LinearRegression(Target):
    """y = intercept + x . slopes + noise_scale * standard Gaussian noise.

    The coordinates are the intercept and the slopes, all with the prior N(0, prior_scale^2). The
    rows are reduced once to a triangular factor, so a density costs O(dim^2), exactly.
    """

    def __init__(
        self,
        x: Float[Tensor, "rows columns"],
        y: Float[Tensor, " rows"],
        *,
        noise_scale: float = 1.0,
        prior_scale: float = 10.0,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Reduces the rows.

        Args:
            x: the regressors, without the intercept's column.
            y: the responses.
            noise_scale: the known standard deviation of the noise.
            prior_scale: the standard deviation of each coefficient before the data.
            columns: names of the regressors; x1, x2, ... by default.

        Raises:
            FitError: rows, scales or names that do not fit.
        """
        raise NotImplementedError

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log prior plus log likelihood of all rows, in float64."""
        raise NotImplementedError

    def posterior(self) -> GaussianPosterior:
        """The exact posterior and the log evidence."""
        raise NotImplementedError

    def starting_point(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """The posterior's means and standard deviations: where a flow may start (`standardise`)."""
        raise NotImplementedError


class LogisticRegression(Target):
    """P(y = 1) = sigmoid(intercept + x . slopes), coefficients with the prior N(0, prior_scale^2)."""

    def __init__(
        self,
        x: Float[Tensor, "rows columns"],
        y: Float[Tensor, " rows"],
        *,
        prior_scale: float = 10.0,
        batch_rows: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Checks and keeps the rows.

        Args:
            x: the regressors, without the intercept's column.
            y: 0 or 1 each.
            prior_scale: the standard deviation of each coefficient before the data.
            batch_rows: rows drawn, with replacement, for each estimate in training; None takes all.
            columns: names of the regressors; x1, x2, ... by default.

        Raises:
            FitError: rows, scales or names that do not fit.
        """
        raise NotImplementedError

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log prior plus log likelihood of all rows, in float64 and bounded memory."""
        raise NotImplementedError

    def estimate(
        self, z: Float[Tensor, "batch dim"], *, generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        """The same from `batch_rows` rows, their likelihood scaled up to all rows."""
        raise NotImplementedError

    def starting_point(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """Mode and standard deviations of the Laplace approximation (`standardise`)."""
        raise NotImplementedError
