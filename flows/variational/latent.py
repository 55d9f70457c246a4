"""Joint density of a generative model with latent variables: amortised inference over rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.errors import FitError
from flows.flow import Flow
from flows.variational.targets import ConditionalTarget


class LatentTarget(ConditionalTarget):
    """Joint density p(x, z) of a flow's own decoder, for rows of data x and latent variables z.

    The contexts are the rows. `fit_variational` of the flow then maximises the mean ELBO of the
    rows, in the flow and in the decoder's weights, as far as those are not fixed (Kingma and
    Welling 2014, with a flow for the posterior: Rezende and Mohamed 2015).
    """

    def __init__(self, flow: Flow, rows: Float[Tensor, "rows columns"]) -> None:
        """Choose the model and the rows.

        Args:
            flow: Flow of a `LatentSpec`.
            rows: Rows of data to draw from, on any device.

        Raises:
            FitError: The flow has no decoder, or there are no rows of its context.
        """
        if flow.decoder is None:
            raise FitError("the flow has no decoder")
        if len(rows) == 0 or rows.shape[1] != flow.context_dim:
            raise FitError(f"there must be rows of {flow.context_dim} columns")
        self.dim, self.context_dim = flow.dim, flow.context_dim
        self.names = latent_names(flow.dim)
        self._decoder = flow.decoder
        self._rows = rows

    def log_density(
        self, z: Float[Tensor, "batch dim"], context: Float[Tensor, "batch context_dim"]
    ) -> Float[Tensor, " batch"]:
        """Return log p(x, z) of each row, in float64."""
        return self._decoder.log_joint(z, context)

    def sample_context(
        self, n: int, *, generator: torch.Generator
    ) -> Float[Tensor, "batch context_dim"]:
        """Draw rows, with replacement."""
        drawn = torch.randint(len(self._rows), (n,), generator=generator)
        return self._rows[drawn.to(self._rows.device)]


def latent_names(dim: int) -> tuple[str, ...]:
    """Return the names of latent variables.

    Args:
        dim: Number of latent variables.
    """
    return tuple(f"z{number + 1}" for number in range(dim))
