"""Densities of single columns given those before them, of flows that have such."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import NO_CONDITIONALS, Batch, Bijection, Conditionals
from flows.bijections.compose import Permutation, Reverse
from flows.bijections.observed import Observed, of_features, only_observed
from flows.errors import FlowError
from flows.flow import Flow, complete_rows, without_nan
from flows.mixed.density import MixedDensity
from flows.mixed.hidden import fillings, later_fillings
from flows.specs.preprocessing import Space


def conditional_order(flow: Flow) -> list[int] | None:
    """Return the order in which `conditional_densities` gives each column those before it.

    Returns:
        Numbers of the columns, the first one first; None for a flow that has no such densities.
    """
    transform = flow.transform
    if not isinstance(transform, MixedDensity):
        return _order(transform)
    layout = transform.layout
    inner = [] if transform.flow is None else _order(transform.flow)
    if inner is None:
        return None
    levels = [variable.column for variable in layout.variables if not variable.is_state]
    return [*levels, *(layout.continuous[place] for place in inner)]


def conditional_densities(
    flow: Flow,
    x: Batch,
    context: Float[Tensor, "#batch context_dim"] | None = None,
    *,
    space: Space = "data",
) -> Conditionals:
    """Return log p(x_i | x_<i) and E(x_i | x_<i) of each column i: a MADE as an autoencoder of its input.

    The columns before one are those of `conditional_order`. The log densities of a row sum to its
    `log_prob`. Of columns of 0 and 1 under a Bernoulli MADE the mean is the probability of a 1, the
    reconstruction of the input (Germain et al. 2015, equations 2 and 3). The mean is NaN where a number
    is no affine function of noise or of a mixture, and of levels.

    In a mixed row all levels, gaps and spikes come before all values: a number that may be a gap or a
    spike has the sum of two terms, of its being a value, given the levels and states of the columns
    before it, and of the value given all of them; its mean is that of its values.

    Args:
        flow: Flow of one autoregressive layer, such as a `made` with one mask, a `maf` of one layer, a
            Gaussian, a mixture of Gaussians, or mixed rows with such a flow of the values or with none.
        context: Values that the density is conditioned on, in their own units; one row stands for
            all.
        space: `model` takes preprocessed rows, and gives their densities and means.

    Raises:
        FlowError: The flow has no such densities.
    """
    if conditional_order(flow) is None:
        raise FlowError(NO_CONDITIONALS)
    given = flow.features(context, len(x))
    if space == "model":
        found = _of_model(flow, x.to(flow.dtype), given)
        scores, means = found.log_probs.double(), found.means.double()
    else:
        rows, slopes = flow.preprocessing.encode(x)
        found = _of_model(flow, rows.to(flow.dtype), given)
        scores = found.log_probs.double() + slopes
        away = found.means.double() - _by_column(flow, rows, values_only=True)
        means = torch.where(
            flow.preprocessing.affine_columns().to(x.device),
            x.double() + away * torch.exp(-slopes),
            torch.nan,
        )

    def complete() -> Tensor:
        return complete_rows(flow.preprocessing, flow.context, x, context, space=space)

    return Conditionals(without_nan(scores, complete), means)


def _of_model(
    flow: Flow, rows: Float[Tensor, "batch model_dim"], context: Tensor | None
) -> Conditionals:
    """Return the densities and means of the columns of preprocessed rows."""
    transform = flow.transform
    if not isinstance(transform, MixedDensity):
        return _of_parts(transform.parts(), rows, context)
    if transform.sums_hidden:
        found = _summed(transform, rows, context)
    else:
        found = _of_mixed(transform, rows, context)
    means = _by_column(flow, found.means, values_only=True)
    return Conditionals(_by_column(flow, found.log_probs), means)


def _of_mixed(
    transform: MixedDensity, rows: Batch, context: Tensor | None, hidden: Tensor | None = None
) -> Conditionals:
    """Return the densities and means of the variables and values of rows of the model."""
    count = len(transform.layout.variables)
    terms = [transform.log_levels(rows[:, :count], context)]
    means = torch.full_like(rows, torch.nan)
    if transform.flow is not None:
        values, given, observed = transform.continuous_rows(rows, context, hidden)
        found = _of_parts(transform.flow.parts(), values, given, observed)
        terms.append(found.log_probs)
        means[:, count:] = found.means
    return Conditionals(torch.cat(terms, dim=1), means)


def _summed(transform: MixedDensity, rows: Batch, context: Tensor | None) -> Conditionals:
    """Return those of rows with hidden cells: quotients of sums over what these may be.

    The values of such a flow have the order of their columns.
    """
    layout = transform.layout
    log_probs, means = torch.empty_like(rows), torch.empty_like(rows)
    for filled in fillings(layout, rows, context):
        found = _of_mixed(transform, filled.rows, filled.context, filled.hidden)
        terms, own_means = filled.by_row(found.log_probs), filled.by_row(found.means)
        first = terms.cumsum(dim=2)
        # Fillings that differ in later variables alone have the same first terms.
        alike = [*later_fillings(layout, filled.summed), *[1] * len(layout.continuous)]
        totals = first.logsumexp(dim=1) - torch.tensor(alike).to(rows).log()
        before = F.pad(totals, (1, 0))[:, :-1]
        log_probs[filled.places] = totals - before
        shares = torch.softmax(F.pad(first, (1, 0))[:, :, :-1], dim=1)
        means[filled.places] = (shares * own_means).sum(dim=1)
    return Conditionals(log_probs, means)


def _by_column(
    flow: Flow, rows: Float[Tensor, "batch model_dim"], *, values_only: bool = False
) -> Batch:
    """Return the numbers of the rows of a model by columns of data, those of one column added.

    Args:
        rows: Numbers of each column of the model.
        values_only: True to leave out those of levels and states; NaN stands in columns of levels.
    """
    if not isinstance(flow.transform, MixedDensity):
        return rows
    layout = flow.transform.layout
    count = len(layout.variables)
    result = rows.new_zeros(len(rows), len(layout.columns))
    if values_only:
        result.fill_(torch.nan)
        result[:, layout.continuous] = rows[:, count:]
        return result
    result[:, [variable.column for variable in layout.variables]] = rows[:, :count]
    result[:, layout.continuous] += rows[:, count:]
    return result


def _order(transform: Bijection) -> list[int] | None:
    """Return the order of the features; None unless all reorderings come before all other layers."""
    if transform.dim == 1:
        return [0]
    parts = transform.parts()
    kinds = [isinstance(part, Permutation | Reverse) for part in parts]
    reorderings, layers = parts[: sum(kinds)], parts[sum(kinds) :]
    if any(kinds[len(reorderings) :]) or not all(layer.triangular for layer in layers):
        return None
    order = torch.arange(transform.dim, dtype=torch.float64)[None]
    for part in reorderings:
        order = part.inverse(order)[0]
    return [int(place) for place in order[0]]


def _of_parts(
    parts: list[Bijection], x: Batch, context: Tensor | None, observed: Observed = None
) -> Conditionals:
    """Return the densities and means of features, through the layers from the data to the noise."""
    *outer, last = parts
    u = x = only_observed(x, of_features(observed, x.shape[1]))
    slopes, is_affine, reorderings = torch.zeros_like(u), True, []
    for part in outer:
        if isinstance(part, Permutation | Reverse):
            u, x = part.inverse(u)[0], part.inverse(x)[0]
            reorderings.append(part)
        else:
            u, log_slopes = part.inverse_terms(u, context, observed)
            slopes, is_affine = slopes + log_slopes, is_affine and part.is_affine
        observed = part.noise_mask(observed)
    found = last.conditionals(u, context, observed)
    means = found.means
    if len(outer) > len(reorderings):
        means = x + (means - u) * torch.exp(-slopes) if is_affine else means * torch.nan
    scores = found.log_probs + slopes
    for part in reversed(reorderings):
        scores, means = part.forward(scores)[0], part.forward(means)[0]
    return Conditionals(scores, means)
