"""Bayesian linear and logistic regression: posteriors over coefficients as targets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from flows.bijections.base import LOG_TWO_PI
from flows.errors import FitError
from flows.variational.targets import Target

# Most values of a chunk of rows, or of its product with samples.
CHUNK_SIZE = 2**22

NEWTON_STEPS, NEWTON_TOLERANCE = 100, 1e-9


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """Posterior in closed form, in float64.

    Attributes:
        mean: Mean of the coefficients.
        covariance: Covariance of the coefficients.
        log_evidence: Log density of y given x, the coefficients integrated out.
    """

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]
    log_evidence: float


class LinearRegression(Target):
    """Linear regression y = intercept + x . slopes + noise_scale * standard Gaussian noise.

    The coordinates are the intercept and the slopes, all with the prior N(0, prior_scale^2). The
    rows are reduced once to a triangular factor, so that an exact density costs O(dim^2):
    with the QR factorisation (X, y) = Q R, `|y - X z|^2` is `|R (-z, 1)|^2`.
    """

    def __init__(
        self,
        x: Float[Tensor, "rows columns"],
        y: Float[Tensor, " responses"],
        *,
        noise_scale: float = 1.0,
        prior_scale: float = 10.0,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Reduce the rows to a triangular factor.

        Args:
            x: Regressors, without the intercept's column.
            noise_scale: Known standard deviation of the noise.
            prior_scale: Prior standard deviation of each coefficient.
            columns: Names of the regressors; x1, x2, ... by default.

        Raises:
            FitError: Rows, scales or names that do not fit.
        """
        self.names = _check_regression(x, y, columns)
        self.dim = len(self.names)
        self.window = None
        self._noise_scale = _check_scale("noise_scale", noise_scale)
        self._prior_scale = _check_scale("prior_scale", prior_scale)
        self._rows = len(y)
        self._factor = _triangular_factor(x, y)

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        z = z.to(self._factor)
        residuals = self._factor[:, -1] - z @ self._factor[:, :-1].t()
        squares = (residuals / self._noise_scale).square().sum(dim=1)
        constant = self._rows * (0.5 * LOG_TWO_PI + math.log(self._noise_scale))
        return _log_prior(z, self._prior_scale) - 0.5 * squares - constant

    def posterior(self) -> GaussianPosterior:
        """Return the exact posterior and the log evidence (Bishop 2006, section 3.5)."""
        weights = self._factor / self._noise_scale
        prior = torch.eye(self.dim, dtype=weights.dtype, device=weights.device) / self._prior_scale
        prior = F.pad(prior, (0, 1))
        both = torch.linalg.qr(torch.cat([weights, prior]), mode="r")[1]
        triangle, right = both[: self.dim, : self.dim], both[: self.dim, self.dim :]
        mean = torch.linalg.solve_triangular(triangle, right, upper=True)[:, 0]
        precision_root = triangle * triangle.diagonal().sign()[:, None]
        covariance = torch.cholesky_inverse(precision_root, upper=True)
        volume = 0.5 * self.dim * LOG_TWO_PI - float(precision_root.diagonal().log().sum())
        log_evidence = float(self.log_density(mean[None])) + volume
        return GaussianPosterior(mean, covariance, log_evidence)

    def starting_point(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """Return mean and deviations of the posterior, to initialise a flow (`standardise`)."""
        posterior = self.posterior()
        return posterior.mean, posterior.covariance.diagonal().sqrt()


class LogisticRegression(Target):
    """Logistic regression P(y = 1) = sigmoid(intercept + x . slopes), prior N(0, prior_scale^2).

    A density and its gradient are computed together, rows in chunks, so that memory does not
    grow with the rows; there is no second derivative.
    """

    def __init__(
        self,
        x: Float[Tensor, "rows columns"],
        y: Float[Tensor, " responses"],
        *,
        prior_scale: float = 10.0,
        batch_rows: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Check the rows and keep a copy in float64, on their device.

        Args:
            x: Regressors, without the intercept's column.
            prior_scale: Prior standard deviation of each coefficient.
            batch_rows: Rows drawn, with replacement, for each estimate in training; None takes all.
            columns: Names of the regressors; x1, x2, ... by default.

        Raises:
            FitError: Rows, scales or names that do not fit.
        """
        self.names = _check_regression(x, y, columns)
        if not bool(((y == 0) | (y == 1)).all()):
            raise FitError("the responses of a logistic regression must be 0 or 1")
        if batch_rows is not None and batch_rows < 1:
            raise FitError("batch_rows must be at least 1")
        self.dim = len(self.names)
        self.rows = len(y)
        self.window = None
        self._prior_scale = _check_scale("prior_scale", prior_scale)
        self._batch_rows = batch_rows
        self._x = F.pad(x.double(), (1, 0), value=1.0)
        self._y = y.double()

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        z = z.to(self._x)
        return _log_prior(z, self._prior_scale) + _log_likelihood(z, self._x, self._y)

    def estimate(
        self, z: Float[Tensor, "batch dim"], *, generator: torch.Generator
    ) -> Float[Tensor, " batch"]:
        if self._batch_rows is None:
            return self.log_density(z)
        z = z.to(self._x)
        drawn = torch.randint(len(self._y), (self._batch_rows,), generator=generator)
        drawn = drawn.to(self._x.device)
        part = _log_likelihood(z, self._x[drawn], self._y[drawn])
        return _log_prior(z, self._prior_scale) + part * (len(self._y) / self._batch_rows)

    def starting_point(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """Return mode and standard deviations of the Laplace approximation (`standardise`).

        Computed by Newton's method with step halving; the log density is concave.
        """
        z = self._x.new_zeros(self.dim)
        for _ in range(NEWTON_STEPS):
            gradient, precision = self._derivatives(z)
            step = torch.linalg.solve(precision, gradient)
            gain = float(gradient @ step)
            if gain < NEWTON_TOLERANCE:
                break
            z = self._line_search(z, step, gain)
        return z, torch.linalg.inv(self._derivatives(z)[1]).diagonal().sqrt()

    def _line_search(self, z: Tensor, step: Tensor, gain: float) -> Tensor:
        """Return the first of z + step, z + step / 2, ... that rises as concavity requires."""
        before = self.log_density(z[None])
        for halvings in range(30):  # mostly the first one rises, and each looks at all rows
            share = 0.5**halvings
            candidate = z + share * step
            if float(self.log_density(candidate[None]) - before) >= 0.25 * share * gain:
                return candidate
        return z

    def _derivatives(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient and minus the second derivative of the log density."""
        gradient = -z / self._prior_scale**2
        precision = torch.eye(self.dim, dtype=z.dtype, device=z.device) / self._prior_scale**2
        for rows, y in _chunks(self._x, self._y, CHUNK_SIZE // self.dim):
            chance = torch.sigmoid(rows @ z)
            gradient = gradient + (y - chance) @ rows
            precision = precision + (rows * (chance * (1 - chance))[:, None]).t() @ rows
        return gradient, precision


class _LogLikelihood(torch.autograd.Function):
    """Log likelihood of a logistic regression, with its gradient computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        z: Tensor,
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        total, gradient = z.new_zeros(len(z)), torch.zeros_like(z)
        for rows, responses in _chunks(x, y, CHUNK_SIZE // max(len(z), 1)):
            logits = z @ rows.t()
            total += logits @ responses - F.softplus(logits).sum(dim=1)
            if ctx.needs_input_grad[0]:
                gradient += (responses - torch.sigmoid(logits)) @ rows
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401  as above
        (gradient,) = ctx.saved_tensors
        return grad[:, None] * gradient, None, None


def _log_likelihood(z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    result: Tensor = _LogLikelihood.apply(z, x, y)  # type: ignore[no-untyped-call]  # torch's own
    return result


def _log_prior(z: Tensor, scale: float) -> Tensor:
    constant = z.shape[1] * (0.5 * LOG_TWO_PI + math.log(scale))
    return -0.5 * (z / scale).square().sum(dim=1) - constant


def _triangular_factor(x: Tensor, y: Tensor) -> Tensor:
    """Return R of the QR factorisation of (1, x, y), rows in chunks, in float64."""
    width = x.shape[1] + 2
    factor = x.new_zeros(0, width, dtype=torch.float64)
    for rows, responses in _chunks(x, y, max(CHUNK_SIZE // width, width)):
        table = torch.cat([F.pad(rows.double(), (1, 0), value=1.0), responses[:, None]], dim=1)
        factor = torch.linalg.qr(torch.cat([factor, table]), mode="r")[1]
    return factor


def _chunks(x: Tensor, y: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    size = max(rows, 1)
    return list(zip(torch.split(x, size), torch.split(y, size), strict=True))


def _check_regression(x: Tensor, y: Tensor, columns: Sequence[str] | None) -> tuple[str, ...]:
    """Check the rows and return the names of the coefficients."""
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or len(y) == 0:
        raise FitError("a regression needs a table of regressors and as many responses, not empty")
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise FitError("the rows of a regression hold values that are not finite")
    names = [f"x{i}" for i in range(1, x.shape[1] + 1)] if columns is None else list(columns)
    if len(names) != x.shape[1]:
        raise FitError(f"there are {len(names)} names for {x.shape[1]} columns")
    return ("intercept", *names)


def _check_scale(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise FitError(f"{name} must be above 0 and finite")
    return value
