"""Specification of the density of mixed rows."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from flows.cost import FLOAT_BYTES, INDEX_BYTES, Cost, Way
from flows.errors import SpecError
from flows.specs.columns import Layout, MixedColumn
from flows.specs.costs import categorical_cost
from flows.specs.family import FamilySpec
from flows.specs.nsf import NsfSpec
from flows.specs.preprocessing import MOST_REPEATED
from flows.specs.spec import ActivationName, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


# Number of slots up to which a flow reads d one-hot; more are projected to as many features.
MAX_ONE_HOT = 128
# Number of knots of the map of quantiles.
KNOTS = 48
# Decades of values whose roundings are measured, and steps of each.
DECADES, STEPS = 16, 8


@dataclass(frozen=True)
class MixedSpec(Spec):
    """Density of rows with categories, missing cells and spikes.

    log p(row) = log P(d) + log p(x_O | d), with d the levels of the categories and the states of the
    other cells, and x_O the values of those cells whose state is continuous.

    Attributes:
        columns: Kinds of the columns; an empty list stands for continuous ones without gaps.
        context: Kinds of the columns of the context, likewise.
        flow: Flow of the continuous values given d; unused where no column is continuous.
        hidden: Units of each hidden layer of the network of P(d); beside them are those that repeat
            levels where the columns have places in a tree.
        activation: Activation of that network.
        missing: `any` hides random cells in training, so that rows with any gaps have a density;
            with `observed` only those gaps do that training rows have.
        rows: Number of training rows: a level that none of them has gets the probability
            1 / (rows + 1) where its column does not tell another, the others share the rest.
    """

    family: Literal["mixed"] = "mixed"
    columns: list[MixedColumn] = field(default_factory=list)
    context: list[MixedColumn] = field(default_factory=list)
    flow: FamilySpec | None = field(default_factory=NsfSpec)
    hidden: list[int] = field(default_factory=lambda: [128])
    activation: ActivationName = "relu"
    missing: Literal["observed", "any"] = "observed"
    rows: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for column in (*self.columns, *self.context):
            if not isinstance(column, MixedColumn):
                raise ValueError("columns and context must list the kinds of columns")  # noqa: TRY004  as all faults of a spec
        if self.flow is not None and not isinstance(self.flow, get_args(FamilySpec)):
            raise ValueError("flow must be the specification of another family")

    def layout(self, dim: int) -> Layout:
        """Return the places of the columns."""
        return Layout(self.columns or [MixedColumn()] * dim, hides=self.missing == "any")

    def context_layout(self, context_dim: int) -> Layout:
        """Return the places of the columns of the context."""
        return Layout(self.context or [MixedColumn()] * context_dim)

    def features(self, context_dim: int) -> int:
        """Return the numbers that a context is encoded as, before any encoder."""
        layout = self.context_layout(context_dim)
        return layout.slots + len(layout.continuous) + len(layout.circles)

    def check_dim(self, dim: int) -> None:
        """Check that the columns are as many as the row has, and that the flow serves them.

        Raises:
            SpecError: They are not, or it does not.
        """
        super().check_dim(dim)
        if self.columns and len(self.columns) != dim:
            raise SpecError("dimension-unsupported", f"columns must describe {dim} columns")
        if self.flow is not None and (self.flow.encoder is not None or self.flow.is_binary):
            raise SpecError(
                "flow-unsuitable",
                "categories, gaps and spikes need a flow of continuous values, without an encoder",
            )
        layout = self.layout(dim)
        if not layout.continuous:
            return
        if self.flow is None:
            raise SpecError("flow-unsuitable", "continuous columns need a flow")
        self.flow.check_dim(len(layout.continuous))
        if layout.masks and not self.flow.masks_columns:
            raise SpecError(
                "flow-unsuitable",
                f"a {self.flow.family} flow cannot leave out values: gaps and spikes need a flow of"
                " another family, such as nsf or maf",
            )

    def for_targets(self) -> "MixedSpec":
        raise SpecError("flow-unsuitable", "a mixed density does not map noise to rows")

    def check_context(self, context_dim: int) -> None:
        super().check_context(context_dim)
        if self.context and len(self.context) != context_dim:
            raise SpecError("dimension-unsupported", f"context must describe {context_dim} columns")

    def context_cost(self, context_dim: int) -> Cost:
        """Return the cost of preprocessing a context."""
        layout = self.context_layout(context_dim)
        row = FLOAT_BYTES * 4 * self.features(context_dim)
        encoded = Cost(density=Way(kept_row=row, used_row=row), sampling=Way(used_row=row))
        return encoding_cost(layout) + encoded if context_dim else Cost()

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        """Return what both parts take, and the one-hot rows between them.

        Args:
            dim: Number of columns of the data.
            context_dim: Numbers per row that condition the density, encoded.
        """
        layout = self.layout(dim)
        sizes = [variable.size for variable in layout.variables]
        total = categorical_cost(sizes, self.hidden, context_dim, tree=layout.is_tree)
        if layout.continuous and self.flow is not None:
            given = min(layout.slots, MAX_ONE_HOT) + context_dim
            total += self.flow.cost(len(layout.continuous), given)
            total += _given_cost(layout, given)
        return total + encoding_cost(layout)

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.mixed.density import build_mixed

        return build_mixed(self, dim, generator, context_dim)


def _given_cost(layout: Layout, given: int) -> Cost:
    """Return the cost of what the flow is conditioned on: one-hot rows, and their projection."""
    row = FLOAT_BYTES * (2 * layout.slots + 3 * given + 4 * len(layout.continuous))
    weights = MAX_ONE_HOT * layout.slots if layout.slots > MAX_ONE_HOT else 0
    way = Way(kept_row=row, used_row=row, kept=FLOAT_BYTES * weights)
    return Cost.both(way, parameters=weights)


def encoding_cost(layout: Layout) -> Cost:
    """Return the cost of the encoding of rows, in float64."""
    count = len(layout.continuous)
    spikes = max((len(column.spikes) for column in layout.columns), default=0)
    listed = 4 * sum(len(column.values) for column in layout.columns)
    fitted = spikes + 3 * KNOTS + 14 + DECADES * STEPS
    noisy = sum(c.noise > c.step or c.repeated > 0 for c in layout.columns)
    listed += noisy * (2 * MOST_REPEATED + 1)
    numbers = INDEX_BYTES * (len(layout.columns) * 8 + listed + count * (fitted + 1))
    row = INDEX_BYTES * (24 * len(layout.columns) + 40 * count)
    return Cost(
        buffers=numbers,
        density=Way(used_row=row),
        sampling=Way(used_row=row),
    )
