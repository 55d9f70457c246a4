"""Flows of mixed rows: their building, and the fit of their encodings to training rows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch
from flows.flow import ContextTable, Flow
from flows.mixed.categorical import one_hot
from flows.mixed.columns import Layout
from flows.mixed.density import MixedDensity
from flows.mixed.encoding import TableEncoding, observed_values
from flows.mixed.map_fitting import fit_column

# Most training rows and cells that the maps of the columns are fitted to.
MOST_ROWS, MOST_CELLS = 200_000, 2**23
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
    """Fit the maps of all continuous columns of a mixed flow to training rows, in place.

    The probabilities of its levels begin at their frequencies.

    Args:
        flow: Untrained flow of family `mixed`.
        rows: Training rows in the data's units, features first, then the columns of a context.

    Raises:
        TypeError: The flow is of another family.
    """
    encoding = flow.preprocessing
    if not isinstance(encoding, TableEncoding):
        raise TypeError("only a flow of family mixed has such an encoding")
    sample = sample_rows(rows).double().cpu()
    _fit(encoding, sample[:, : flow.dim])
    encoding.set_roundings(sample[:, : flow.dim])
    encoding.set_denoise(sample[:, : flow.dim])
    if isinstance(flow.transform, MixedDensity) and flow.transform.made is not None:
        levels = encoding.inverse(sample[:, : flow.dim])[0][:, : len(encoding.layout.variables)]
        flow.transform.made.set_frequencies(levels)
    table = None if flow.context is None else flow.context.table
    if isinstance(table, MixedContext):
        _fit(table.encoding, sample[:, flow.dim :])


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
