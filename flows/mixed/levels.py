"""Levels of discrete columns: the numbers that stand for them in the data, and their indices."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.specs.columns import HIDDEN, UNSEEN, MixedColumn

Cells = Float[Tensor, "rows columns"]


class Levels(nn.Module):
    """Map between the numbers of discrete columns and the indices of their levels, in float64.

    A number that is no level has the index `UNSEEN`. A missing cell is the level after the last one
    where the column has gaps; elsewhere it is `HIDDEN` or stays NaN.
    """

    absent: Tensor
    counts: Tensor

    def __init__(self, columns: Sequence[MixedColumn], *, hides: bool) -> None:
        """Initialise the maps.

        Args:
            columns: Discrete columns.
            hides: True if a cell without a state for a gap is hidden, instead of NaN.
        """
        super().__init__()
        absent = [c.levels if c.missing else HIDDEN if hides else torch.nan for c in columns]
        self._keep("absent", torch.tensor(absent, dtype=torch.float64))
        self._keep("counts", torch.tensor([c.levels for c in columns], dtype=torch.float64))
        # Columns of about as many levels share a table, so that little of it is padding.
        groups: dict[int, list[int]] = defaultdict(list)
        for place, column in enumerate(columns):
            if column.values:
                groups[1 << column.levels.bit_length()].append(place)
        self._groups = sorted(groups.items())
        for width, places in self._groups:
            table = torch.full((len(places), width), torch.inf, dtype=torch.float64)
            order = torch.arange(width).repeat(len(places), 1)
            for row, place in enumerate(places):
                values = torch.tensor(columns[place].values, dtype=torch.float64)
                ordered = values.sort()
                table[row, : len(values)] = ordered.values
                order[row, : len(values)] = ordered.indices
            self._keep(f"values_{width}", table)
            self._keep(f"order_{width}", order)

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def _table(self, width: int) -> tuple[Tensor, Tensor]:
        """Return the ascending numbers of the levels of a group of columns, and their indices."""
        return self.get_buffer(f"values_{width}").double(), self.get_buffer(f"order_{width}")

    def encode(self, cells: Cells) -> Cells:
        """Return the index of each cell."""
        found = cells
        if self._groups:
            found = cells.clone()
            for width, places in self._groups:
                found[:, places] = self._find(cells[:, places], width)
        is_level = (found >= 0) & (found < self.counts) & (found == found.floor())
        found = torch.where(is_level, found, float(UNSEEN))
        found = torch.where(cells.isnan(), self.absent.double(), found)
        return torch.where(cells.isinf(), torch.nan, found)

    def decode(self, indices: Cells) -> Cells:
        """Return the number of each cell; NaN for one that is missing or hidden."""
        known = (indices >= 0) & (indices < self.counts)
        cells = torch.where(known, indices, 0.0)
        for width, places in self._groups:
            table, order = self._table(width)
            # Padded places have the last indices, so that each index has one place.
            values = torch.empty_like(table).scatter(1, order, table)
            cells[:, places] = values.gather(1, cells[:, places].long().t()).t()
        return torch.where(known, cells, torch.where(indices == UNSEEN, float(UNSEEN), torch.nan))

    def _find(self, cells: Cells, width: int) -> Cells:
        table, order = self._table(width)
        wanted = cells.t().contiguous()
        place = torch.searchsorted(table, wanted).clamp(max=width - 1)
        # A table in float32 holds the numbers rounded: they may lie below or above.
        before = (place - 1).clamp(min=0)
        result = torch.full_like(wanted, UNSEEN)
        for near in (before, place):
            value = table.gather(1, near)
            same = (value == wanted) | (value.float().double() == wanted)
            result = torch.where(same & value.isfinite(), order.gather(1, near).double(), result)
        return result.t()
