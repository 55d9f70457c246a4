"""Cells of objects by column, without those that the objects lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Members:
    """Rows of objects that lack most members: what they have, of each column.

    Args:
        rows: Number of rows.
        step: Number of rows that are made an array at a time.
        cells: Rows, counted from 0, and their cells, by the place of the column; none of a column that
            no row has.
    """

    rows: int
    step: int
    cells: Mapping[int, tuple[list[int], list[Any]]]
