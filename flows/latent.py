"""Generative models with latent variables: a decoder beside the flow that approximates posteriors."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flows.bijections.base import LOG_TWO_PI, Batch, PerRow, standard_normal
from flows.bijections.linear import ACTIVATIONS, apply_network, network
from flows.errors import FlowError
from flows.specs.latent import LatentSpec

LEAST_LOG_NOISE = math.log(1e-3)
"""Least log scale of learnt noise, in deviations of the column: no column is explained exactly."""


class Decoder(nn.Module):
    """Generative model p(x, z) = N(z; 0, I) prod_j p(x_j | z), whose parameters a network gives.

    With o = network(z), x_j is 1 with probability sigmoid(o_j) (`bernoulli`), or
    x_j ~ N(mean_j + std_j o_j, (std_j exp(log_noise_j))^2) (`gaussian`), where mean and std
    standardise the data.

    Attributes:
        likelihood: Distribution of a column given z.
        is_linear: True if the network is one affine map.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: LatentSpec, dim: int, columns: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.likelihood = spec.likelihood
        self.is_linear = not spec.hidden
        self.layers = network([dim, *spec.hidden, columns], generator)
        self.activation = ACTIVATIONS[spec.activation]
        self.log_noise = None
        if spec.likelihood == "gaussian":
            self.log_noise = nn.Parameter(torch.zeros(columns))
            self.register_buffer("mean", torch.zeros(columns))
            self.register_buffer("std", torch.ones(columns))

    @property
    def is_exact(self) -> bool:
        """True if posterior and evidence are known in closed form: linear with Gaussian noise."""
        return self.is_linear and self.likelihood == "gaussian"

    @torch.no_grad()
    def standardise(self, mean: Float[Tensor, " columns"], std: Float[Tensor, " columns"]) -> None:
        """Let the network give values in units of the data.

        Args:
            std: Standard deviation of each column, above 0.
        """
        if self.likelihood == "gaussian":
            self.mean.copy_(mean)
            self.std.copy_(std)

    @torch.no_grad()
    def fix(
        self,
        loadings: Float[Tensor, "columns dim"],
        offset: Float[Tensor, " columns"],
        noise_scale: float | None,
    ) -> None:
        """Make the model a known linear one, which training leaves as it is.

        Args:
            loadings: Weight of each latent variable in each column.
            offset: Value of each column at z = 0, or its log-odds.
            noise_scale: Standard deviation of Gaussian noise; None for `bernoulli`.

        Raises:
            FlowError: The decoder has hidden layers.
        """
        if not self.is_linear:
            raise FlowError("a known model has a decoder without hidden layers")
        scale = 1.0 if noise_scale is None else noise_scale
        layer = self._first_layer
        layer.weight.copy_(loadings / scale)
        layer.bias.copy_(offset / scale)
        if self.likelihood == "gaussian":
            self.std.fill_(scale)
        self.requires_grad_(requires_grad=False)

    def log_joint(
        self, z: Float[Tensor, "batch dim"], x: Float[Tensor, "#batch columns"]
    ) -> PerRow:
        """Return log p(x, z) of each row in nats, in float64.

        Args:
            x: Rows of data; one row stands for all.
        """
        return standard_normal(z.double()) + self.log_likelihood(z, x)

    def log_likelihood(
        self, z: Float[Tensor, "batch dim"], x: Float[Tensor, "#batch columns"]
    ) -> PerRow:
        """Return log p(x | z) of each row in nats, in float64; -inf where x is impossible.

        Args:
            x: Rows of data; one row stands for all.
        """
        dtype = self._first_layer.weight.dtype
        out = apply_network(self.layers, z.to(dtype), self.activation).double()
        x = x.double()
        if self.log_noise is None:
            possible = ((x == 0) | (x == 1) | x.isnan()).all(dim=1)
            # log sigmoid(o) of a 1, log sigmoid(-o) of a 0.
            terms = F.logsigmoid((2 * x - 1) * out).sum(dim=1)
            return torch.where(possible, terms, -torch.inf)
        log_noise = self._noise()
        noise = ((x - self.mean.double()) / self.std.double() - out) * torch.exp(-log_noise)
        constant = 0.5 * LOG_TWO_PI + log_noise + self.std.double().log()
        return -(0.5 * noise.square() + constant).sum(dim=1)

    def posterior(
        self, x: Float[Tensor, "batch columns"]
    ) -> tuple[Batch, Float[Tensor, "dim dim"], PerRow]:
        """Return the exact posterior of each row: means, their covariance, and log evidences.

        Raises:
            FlowError: It is not known in closed form.
        """
        if not self.is_exact:
            raise FlowError("the posterior of this model is not known in closed form")
        layer, log_noise = self._first_layer, self._noise()
        scaled = layer.weight.double() * torch.exp(-log_noise)[:, None]
        residuals = (x.double() - self.mean.double()) / self.std.double() - layer.bias.double()
        residuals = residuals * torch.exp(-log_noise)
        precision = torch.eye(scaled.shape[1]).to(scaled) + scaled.t() @ scaled
        root = torch.linalg.cholesky(precision)
        covariance = torch.cholesky_inverse(root)
        projected = residuals @ scaled
        mean = projected @ covariance
        # The determinant lemma and Woodbury's identity: no matrix of columns by columns.
        squares = residuals.square().sum(dim=1) - (projected * mean).sum(dim=1)
        volume = (log_noise + self.std.double().log()).sum() + root.diagonal().log().sum()
        evidence = -0.5 * (squares + len(log_noise) * LOG_TWO_PI) - volume
        return mean, covariance, evidence

    @property
    def _first_layer(self) -> nn.Linear:
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)  # noqa: S101  as `network` makes them
        return layer

    def _noise(self) -> Float[Tensor, " columns"]:
        """Return the log scale of the noise of each column, in its deviations."""
        assert self.log_noise is not None  # noqa: S101  as the likelihood is Gaussian
        return self.log_noise.double().clamp(min=LEAST_LOG_NOISE)
