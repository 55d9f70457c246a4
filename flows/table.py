"""Tables of training rows: in memory, or mapped from a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MappedTable:
    """Selection of rows and columns of a memory-mapped array.

    Attributes:
        array: Array with all rows and columns, float32 or float64.
        rows: Ascending numbers of the selected rows, so that neighbours lie together in the file.
        columns: Numbers of the selected columns, in the order wanted.
    """

    array: NDArray[Any]
    rows: NDArray[np.integer[Any]]
    columns: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self.rows), len(self.columns)

    def chunks(self, chunk_rows: int) -> Iterator[Float[Tensor, "rows columns"]]:
        """Yield the rows in memory, in chunks of at most `chunk_rows`."""
        for start in range(0, len(self), chunk_rows):
            yield self.read(self.rows[start : start + chunk_rows])

    def select(self, columns: slice) -> "MappedTable":
        """Return the table with some of the columns."""
        return MappedTable(self.array, self.rows, self.columns[columns])

    def sample(self, most: int) -> Float[Tensor, "rows columns"]:
        """Return at most `most` rows, evenly spread."""
        return self.read(self.rows[:: max(1, -(-len(self) // most))])

    def read(self, rows: NDArray[np.integer[Any]]) -> Float[Tensor, "rows columns"]:
        """Return rows by their numbers in the array."""
        return torch.from_numpy(self.array[rows][:, self.columns])


Table = Tensor | MappedTable
