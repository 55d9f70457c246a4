"""Density of mixed rows: log p(row) = log P(d) + log p(x_O | d)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, PerRow
from flows.bijections.linear import uniform
from flows.bijections.observed import Observed, refuse_mask
from flows.errors import FlowError
from flows.mixed.categorical import CategoricalMade, one_hot
from flows.mixed.hidden import summed_parts
from flows.specs.columns import HIDDEN, UNSEEN, Layout
from flows.specs.mixed import MAX_ONE_HOT, MixedSpec


class MixedDensity(Bijection):
    """P(d) of the discrete variables, and a flow of the observed continuous values given them.

    Rows are those of a `TableEncoding`. A level that no training row had has a probability that its
    column tells, the others share the rest. A hidden cell adds nothing; where the marginals of the flow
    are exact, the density is the sum over what hidden cells may be, but in training.

    Attributes:
        layout: Places of the columns.
        sums_hidden: True if the density sums over what hidden cells may be.
        log_seen: Logarithms of what the known levels of each variable share, 0 for a state.
        log_unseen: Logarithms of what a level gets that no training row had.
        made: Probabilities of the variables; None if there are none.
        flow: Flow of the continuous values; None if there are none.
    """

    has_noise = False
    own_density = True
    log_seen: Tensor
    log_unseen: Tensor
    state_places: Tensor

    def __init__(
        self,
        layout: Layout,
        made: CategoricalMade | None,
        flow: Bijection | None,
        *,
        context_dim: int,
        rows: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dim = layout.width
        self.context_dim = context_dim
        self.layout = layout
        self.sums_hidden = layout.hides and flow is not None and flow.exact_marginals
        self.made = made
        self.flow = flow
        self.projection = None
        if flow is not None and layout.slots > MAX_ONE_HOT:
            shape = (MAX_ONE_HOT, layout.slots)
            weight = uniform(shape, fan_in=len(layout.variables), generator=generator)
            self.projection = nn.Parameter(weight)
        known = [(v, layout.columns[v.column].unseen or 1 / (rows + 1)) for v in layout.variables]
        seen = torch.tensor([0.0 if v.is_state else math.log1p(-unseen) for v, unseen in known])
        self.register_buffer("log_seen", seen, persistent=False)
        unseen = torch.tensor([math.log(unseen) for _, unseen in known])
        self.register_buffer("log_unseen", unseen, persistent=False)
        places = {variable.column: place for place, variable in enumerate(layout.variables)}
        states = [places.get(column, len(places)) for column in layout.continuous]
        self.register_buffer("state_places", torch.tensor(states), persistent=False)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        count = len(self.layout.variables)
        indices, log_det = u[:, :count], u.new_zeros(u.shape[0])
        if self.made is not None:
            indices = self.made.sample(indices, context)
        if self.flow is None:
            return indices, log_det
        given, mask = self.given(indices, context), self.observed(indices)
        x, log_det = self.flow.forward(u[:, count:], given, mask)
        return torch.cat([indices, x], dim=1), log_det

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        raise FlowError("a density of categories has no noise that its rows could be mapped to")

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        refuse_mask(observed)
        return self.log_parts(x, context).sum(dim=1)

    def log_parts(self, x: Batch, context: Given = None) -> Float[Tensor, "batch 2"]:
        """Return log P(d) and log p(x_O | d) of each row."""
        if self.sums_hidden and not self.training:
            return summed_parts(self.layout, x, context, self._log_parts)
        return self._log_parts(x, context)

    def _log_parts(
        self, x: Batch, context: Given = None, hidden: Tensor | None = None
    ) -> Float[Tensor, "batch 2"]:
        """Return the parts of rows of which some hidden cells may be filled."""
        discrete = self.log_levels(x[:, : len(self.layout.variables)], context).sum(dim=1)
        continuous = torch.zeros_like(discrete)
        if self.flow is not None:
            continuous = self.flow.log_density(*self.continuous_rows(x, context, hidden))
        return torch.stack([discrete, continuous], dim=1)

    def continuous(self) -> Bijection | None:
        return self.flow

    def continuous_rows(
        self, x: Batch, context: Given = None, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the continuous values, what they are conditioned on, and which are observed.

        Args:
            x: Rows of the model.
            context: Context of the rows.
            hidden: Hidden variables of rows in which some of these are filled (`flows.mixed.hidden`); what
                is left of them is no context of the flow, either.
        """
        indices, values = x.tensor_split([len(self.layout.variables)], dim=1)
        given, observed = self.given(indices, context), self.observed(indices)
        if hidden is None or given is None or observed is None:
            return values, given, observed
        observed = observed * ~F.pad(hidden, (0, 1)).index_select(1, self.state_places)
        return values, given, self._with_context(observed, indices == HIDDEN, given)

    def _with_context(self, observed: Tensor, left: Tensor, given: Tensor) -> Tensor:
        """Return a mask with that of the context before it, if some of that is hidden."""
        if self.made is None or not bool(left.any()):
            return observed
        slots = left.repeat_interleave(self.made.sizes, dim=1)
        if self.projection is not None:  # each of its numbers is made of all variables
            slots = left.any(dim=1, keepdim=True).expand(-1, MAX_ONE_HOT)
        seen = (~slots).to(observed.dtype)
        return torch.cat([F.pad(seen, (0, given.shape[1] - seen.shape[1]), value=1.0), observed], 1)

    def log_levels(
        self, indices: Float[Tensor, "batch variables"], context: Given = None
    ) -> Float[Tensor, "batch variables"]:
        """Return log P(d_i | d_<i) of each variable."""
        if self.made is None:
            return indices
        terms = self.made.log_prob(indices, self._inputs(indices), context)
        terms = terms + torch.where(indices >= 0, self.log_seen, 0.0)
        terms = torch.where(indices == UNSEEN, self.log_unseen, terms)
        return torch.where(indices.isnan(), torch.nan, terms)

    def observed(
        self, indices: Float[Tensor, "batch variables"]
    ) -> Float[Tensor, "batch continuous"] | None:
        """Return 1 where a continuous value is observed, else 0; None where all always are."""
        if not self.layout.masks:
            return None
        # A column of zeros stands for those that are always observed.
        states = F.pad(indices, (0, 1)).index_select(1, self.state_places)
        return (states == 0).to(indices.dtype)

    def given(
        self, indices: Float[Tensor, "batch variables"], context: Tensor | None
    ) -> Tensor | None:
        """Return what the flow is conditioned on: the variables and the context."""
        if self.made is None:
            return context
        inputs = self._inputs(indices)
        if self.projection is not None:
            inputs = F.linear(inputs, self.projection)
        return inputs if context is None else torch.cat([inputs, context], dim=1)

    def _inputs(self, indices: Tensor) -> Tensor:
        assert self.made is not None  # noqa: S101  asked only then
        return one_hot(indices, self.made.sizes, self.made.starts, self.made.slots)


def build_mixed(
    spec: MixedSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    layout = spec.layout(dim)
    made = flow = None
    if layout.variables:
        made = CategoricalMade(
            [variable.size for variable in layout.variables],
            hidden=spec.hidden,
            activation=spec.activation,
            context_dim=context_dim,
            tree=layout.is_tree,
            generator=generator,
        )
    if layout.continuous and spec.flow is not None:
        given = min(layout.slots, MAX_ONE_HOT) + context_dim
        flow = spec.flow.build(len(layout.continuous), generator, given)
    return MixedDensity(
        layout,
        made,
        flow,
        context_dim=context_dim,
        rows=spec.rows,
        generator=generator,
    )
