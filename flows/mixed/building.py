"""Flows of mixed rows: their building, and the fit of their encodings to training rows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch
from flows.flow import ContextTable, Flow
from flows.mixed.categorical import one_hot, repeats_levels
from flows.mixed.density import MixedDensity
from flows.mixed.encoding import TableEncoding, observed_values
from flows.mixed.map_fitting import fit_column
from flows.mixed.trees import tree_of
from flows.specs.columns import Layout
from flows.specs.mixed import MixedSpec

# Most training rows and cells that the maps of the columns are fitted to.
MOST_ROWS, MOST_CELLS = 200_000, 2**23
# Most levels and states of the variables of a network that begins at a tree.
MOST_SLOTS = 512
# Distance over which weights of levels that are numbers are alike, of their range.
ALIKE = 0.15
# Most columns whose maps are smoothed: it takes tenths of a second for each.
MOST_SMOOTHED = 256


class MixedContext(ContextTable):
    """Context with categories, gaps and circles: one-hot levels and states, the values, cosines.

    A value on a circle is the sine of its angle, whose cosine follows after all values: nothing
    jumps where the circle is cut.
    """

    sizes: Tensor
    starts: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.encoding = TableEncoding(layout)
        self.model_dim = layout.width
        self._circles = layout.circles
        sizes = torch.tensor([variable.size for variable in layout.variables], dtype=torch.int64)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)

    def prepare(self, context: Float[Tensor, "batch columns"]) -> Batch:
        return self.encoding.inverse(context)[0]

    def features(self, rows: Batch) -> Float[Tensor, "batch features"]:
        layout = self.encoding.layout
        levels, values = rows.tensor_split([len(layout.variables)], dim=1)
        inputs = one_hot(levels, self.sizes, self.starts, layout.slots)
        # A level that is not-a-number makes its row so.
        unknown = levels.isnan().any(dim=1, keepdim=True)
        inputs = torch.where(unknown, torch.nan, inputs)
        if not self._circles:
            return torch.cat([inputs, values], dim=1)
        # The score of a circle is the Gaussian quantile of the share of the turn behind it.
        angles = 2 * math.pi * torch.special.ndtr(values[:, self._circles])
        values = values.index_copy(1, torch.tensor(self._circles, device=rows.device), angles.sin())
        return torch.cat([inputs, values, angles.cos()], dim=1)


def fit_encoding(flow: Flow, rows: Tensor) -> None:
    """Fit the encoding of the rows of a flow to training rows, in place.

    In a mixed flow these are the maps of all continuous columns, and the probabilities of its levels begin at
    their frequencies.

    Args:
        flow: Untrained flow.
        rows: Training rows in the data's units, features first, then the columns of a context.
    """
    encoding = flow.preprocessing
    if not isinstance(encoding, TableEncoding):
        encoding.fit(rows[:, : flow.dim])
        return
    sample = sample_rows(rows).double().cpu()
    _fit(encoding, sample[:, : flow.dim])
    if isinstance(flow.transform, MixedDensity):
        _order_levels(flow.transform)
    encoding.set_roundings(sample[:, : flow.dim])
    encoding.fit_denoise(sample[:, : flow.dim])
    if isinstance(flow.transform, MixedDensity) and flow.transform.made is not None:
        levels = encoding.inverse(sample[:, : flow.dim])[0][:, : len(encoding.layout.variables)]
        flow.transform.made.set_frequencies(levels)
    table = None if flow.context is None else flow.context.table
    if isinstance(table, MixedContext):
        _fit(table.encoding, sample[:, flow.dim :])


@torch.no_grad()
def _order_levels(density: MixedDensity) -> None:
    """Let levels that are near each other begin alike, where they are numbers: as networks read them.

    The weights of a variable's levels are drawn as smooth functions of their places, of as much variance.
    """
    if density.made is None:
        return
    readers = [density.made.first_weight()]
    if density.projection is not None:
        readers.append(density.projection)
    elif density.flow is not None:
        named = density.flow.named_parameters()
        readers += [weight for name, weight in named if name.endswith("context_weight")]
    for start, values in density.layout.ordered:
        places = torch.tensor(values, dtype=torch.float64)
        ranks = places.argsort().argsort() / (len(places) - 1)
        places = (ranks + (places - places.min()) / (places.max() - places.min())) / 2
        near = torch.exp(-0.5 * ((places[:, None] - places) / ALIKE).square())
        near = near / near.norm(dim=1, keepdim=True)
        slots = slice(start, start + len(values))
        for weight in readers:
            if weight.shape[1] >= slots.stop:
                weight[:, slots] = weight[:, slots] @ near.t().to(weight)


def with_tree(spec: MixedSpec, rows: npt.NDArray[np.floating[Any]]) -> MixedSpec:
    """Return a spec whose P(d) begins at the tree of its training rows, where its network can and is small.

    Args:
        spec: Spec with the columns of the rows.
        rows: Some training rows in the data's units, features first.
    """
    plain = [replace(column, place=0) for column in spec.columns]
    layout = replace(spec, columns=plain).layout(len(plain))
    sizes = [variable.size for variable in layout.variables]
    small = len(sizes) > 1 and sum(sizes) <= MOST_SLOTS
    if not (small and repeats_levels(spec.hidden, spec.activation)):
        return replace(spec, columns=plain)
    cells = torch.from_numpy(np.array(rows[:, : len(plain)], np.float64))
    indices = TableEncoding(layout).inverse(cells)[0][:, : len(sizes)]
    for number, variable in enumerate(tree_of(indices, sizes).order, start=1):
        column = layout.variables[variable].column
        plain[column] = replace(plain[column], place=number)
    return replace(spec, columns=plain)


def sample_rows(rows: Tensor) -> Tensor:
    """Return at most `MOST_ROWS` rows of `MOST_CELLS` cells, evenly spread."""
    most = max(1, min(MOST_ROWS, MOST_CELLS // rows.shape[1]))
    return rows[:: -(-len(rows) // most)]


def _fit(encoding: TableEncoding, rows: Tensor) -> None:
    columns = [encoding.layout.columns[number] for number in encoding.layout.continuous]
    values = observed_values(encoding, rows, seed=0)
    smooth = len(columns) <= MOST_SMOOTHED
    fits = [fit_column(v, c, smooth=smooth) for v, c in zip(values, columns, strict=True)]
    encoding.set_fits(fits)
