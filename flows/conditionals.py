"""Densities of single features given those before them, as one masked network gives them."""

from jaxtyping import Float
from torch import Tensor

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.base import Batch
from flows.errors import FlowError
from flows.flow import Flow


def conditional_log_probs(
    flow: Flow, x: Batch, context: Float[Tensor, "#batch context_dim"] | None = None
) -> Batch:
    """Return log p(x_i | x_<i) of each feature i, in nats: a MADE as an autoencoder of its input.

    Of columns of 0 and 1 the probability of a 1, which is the reconstruction of the input, is `exp` of it
    where the input is 1, and 1 minus that where it is 0 (Germain et al. 2015, equations 2 and 3).
    The features before one are those of the network's order. The sum over the features is
    `flow.log_prob(x, context, space="model")`.

    Args:
        flow: Flow of one layer, such as a `made` with one mask.
        x: Preprocessed rows, as `space="model"` has them; without preprocessing, rows of data.
        context: Values that the density is conditioned on, in their own units; one row stands for
            all.

    Raises:
        FlowError: The flow is another one than one masked network.
    """
    *reorderings, layer = flow.transform.parts()
    moves = any(part.parameter_list() for part in reorderings)
    if moves or not isinstance(layer, Autoregressive):
        raise FlowError("only one masked network gives each feature a density of its own")
    given = flow.features(context, len(x))
    ordered = x.to(flow.dtype)
    for reordering in reorderings:
        ordered = reordering.inverse(ordered)[0]
    terms = layer.log_terms(ordered, given)
    for reordering in reversed(reorderings):
        terms = reordering.forward(terms)[0]
    return terms
