"""Observation masks: the density of some features of a row, the others being absent.

A mask holds 1 for each feature that is observed and 0 for each that is not. A layer that acts on
the features one by one reads 0 in the place of a feature that is not observed, leaves it 0, and
adds nothing to the log-determinant for it. So it stays triangular in the observed features alone,
and its density of them integrates to 1, whichever they are.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.errors import FlowError

# Mask of a batch of rows, and of one with features first; None if all features are observed. One for a
# layer with exact marginals may say what of the context is observed, before the features.
Observed = Float[Tensor, "batch seen"] | None
ObservedColumns = Float[Tensor, "seen batch"] | None


def of_features(observed: Observed, dim: int) -> Tensor | None:
    """Return the mask of the features, of one that may have the context's before it."""
    return None if observed is None else observed[:, -dim:]


def only_observed(
    values: Float[Tensor, "..."], observed: Float[Tensor, "..."] | None
) -> Float[Tensor, "..."]:
    """Return the values that are observed, and 0 for all others, NaN and infinity too."""
    return values if observed is None else torch.where(observed > 0, values, 0.0)


def masked(
    values: Float[Tensor, "..."], observed: Float[Tensor, "..."] | None
) -> Float[Tensor, "..."]:
    """Return finite values that are observed, and 0 for all others: faster than `only_observed`."""
    return values if observed is None else values * observed


def refuse_mask(observed: Tensor | None) -> None:
    """Refuse a mask, in a layer that mixes the features.

    Raises:
        FlowError: There is a mask.
    """
    if observed is not None:
        raise FlowError(
            "this layer mixes the features, so that none of them may be missing; maf, iaf, nsf,"
            " naf, haf, realnvp, nice, made and a diagonal gaussian take rows with gaps"
        )
