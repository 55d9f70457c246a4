"""Density of mixed rows: log p(row) = log P(d) + log p(x_O | d)."""

import copy
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, BatchContext, Bijection, PerRow
from flows.bijections.folding import Columns, ContextColumns, Pending, Step
from flows.bijections.linear import uniform
from flows.bijections.observed import Observed, ObservedColumns, refuse_mask
from flows.errors import FlowError
from flows.mixed.categorical import CategoricalMade, one_hot
from flows.mixed.columns import UNSEEN, Layout

# Number of slots up to which a flow reads d one-hot; more are projected to as many features.
MAX_ONE_HOT = 128


class MixedDensity(Bijection):
    """P(d) of the discrete variables, and a flow of the observed continuous values given them.

    Rows are those of a `TableEncoding`. A level that no training row had has probability
    1 / (rows + 1), the others share the rest. A hidden cell adds nothing.

    Attributes:
        layout: Places of the columns.
        made: Probabilities of the variables; None if there are none.
        flow: Flow of the continuous values; None if there are none.
    """

    has_noise = False
    own_density = True
    opened: Tensor

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
        self.made = made
        self.flow = flow
        self.projection = None
        if flow is not None and layout.slots > MAX_ONE_HOT:
            shape = (MAX_ONE_HOT, layout.slots)
            weight = uniform(shape, fan_in=len(layout.variables), generator=generator)
            self.projection = nn.Parameter(weight)
        is_open = [not variable.is_state for variable in layout.variables]
        self.register_buffer("opened", torch.tensor(is_open), persistent=False)
        self._log_seen, self._log_unseen = math.log(rows / (rows + 1)), -math.log(rows + 1)

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to rows of the model, with the log-determinant of the flow."""
        refuse_mask(observed)
        count = len(self.layout.variables)
        indices, log_det = u[:, :count], u.new_zeros(len(u))
        if self.made is not None:
            indices = self.made.sample(indices, context)
        if self.flow is None:
            return indices, log_det
        given, mask = self.given(indices, context), self.observed(indices)
        x, log_det = self.flow.forward(u[:, count:], given, mask)
        return torch.cat([indices, x], dim=1), log_det

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Refuse: levels have no noise."""
        raise FlowError("a density of categories has no noise that its rows could be mapped to")

    def log_density(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> PerRow:
        """Return the log density of each row."""
        refuse_mask(observed)
        return self.log_parts(x, context).sum(dim=1)

    def log_parts(self, x: Batch, context: BatchContext = None) -> Float[Tensor, "batch 2"]:
        """Return log P(d) and log p(x_O | d) of each row."""
        indices, values = x.tensor_split([len(self.layout.variables)], dim=1)
        discrete = self.log_levels(indices, context).sum(dim=1)
        continuous = torch.zeros_like(discrete)
        if self.flow is not None:
            given, mask = self.given(indices, context), self.observed(indices)
            continuous = self.flow.log_density(values, given, mask)
        return torch.stack([discrete, continuous], dim=1)

    def log_levels(
        self, indices: Float[Tensor, "batch variables"], context: BatchContext = None
    ) -> Float[Tensor, "batch variables"]:
        """Return log P(d_i | d_<i) of each variable."""
        if self.made is None:
            return indices
        terms = self.made.log_prob(indices, self._inputs(indices), context)
        terms = terms + self.opened * torch.where(indices >= 0, self._log_seen, 0.0)
        terms = torch.where(indices == UNSEEN, self._log_unseen, terms)
        return torch.where(indices.isnan(), torch.nan, terms)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, after the pending map."""
        layer = copy.deepcopy(self).to(pending.device, pending.dtype)
        return [*pending.steps(), MixedStep(layer)], pending.applied()

    def observed(
        self, indices: Float[Tensor, "batch variables"]
    ) -> Float[Tensor, "batch continuous"] | None:
        """Return 1 where a continuous value is observed, else 0; None where all always are."""
        if not self.layout.masks:
            return None
        places = {v.column: i for i, v in enumerate(self.layout.variables)}
        ones = torch.ones_like(indices[:, 0])
        return torch.stack(
            [
                (indices[:, places[column]] == 0).to(indices.dtype) if column in places else ones
                for column in self.layout.continuous
            ],
            dim=1,
        )

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


class MixedStep(Step):
    """Compiled density of mixed rows."""

    own_density = True

    def __init__(self, layer: MixedDensity) -> None:
        self._layer = layer

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, None]:
        """Refuse: levels have no noise."""
        raise FlowError("a density of categories has no noise that its rows could be mapped to")

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, Float[Tensor, "1 batch"]]:
        """Map noise to rows of the model."""
        refuse_mask(observed)
        x, log_det = self._layer.forward(u.t(), None if context is None else context.t())
        return x.t(), log_det[None, :]

    def log_density(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> Float[Tensor, "2 batch"]:
        """Return log P(d) and log p(x_O | d)."""
        refuse_mask(observed)
        parts = self._layer.log_parts(x.t(), None if context is None else context.t())
        return parts.t()

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return [*self._layer.parameters(), *self._layer.buffers()]
