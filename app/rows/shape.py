"""Shape that the rows of a request must have: their number and their columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.problems.fields import MAX_ERRORS, named, shown_names
from app.problems.problem import Problem
from app.rows.model_types import ModelTypes
from tabular.columns import Column
from tabular.source import default_names

LEAVE_OUT = " Leave the unknown ones out, or, of rows of data, add `?extra=ignore`."
"""Remedy for rows that have more columns than the model."""

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class RowsShape:
    """Shape that rows must have.

    Args:
        columns: Names of the columns, in the order of the model.
        max_rows: Largest number of rows of a request.
        types: Types of the columns; None: all are plain numbers.
        ignores_extra: True to leave out named columns that the model does not have; else they are
            refused.
    """

    columns: Sequence[str]
    max_rows: int
    types: ModelTypes | None = None
    ignores_extra: bool = False

    @property
    def width(self) -> int:
        """Number of values of a row."""
        return len(self.columns)

    @property
    def types_width(self) -> int:
        """Number of columns with types."""
        return 0 if self.types is None else len(self.types.columns)

    @property
    def cell_columns(self) -> Sequence[Column]:
        """Types of the columns of a body that holds cells."""
        if self.types is not None:
            return self.types.columns
        return [Column(name=name) for name in self.columns]

    @property
    def are_numbers(self) -> bool:
        """True if every value that is a number stands for itself."""
        return self.types is None or self.types.are_numbers

    def check_count(self, count: int) -> None:
        """Refuse an empty batch, and one of more rows than a request may have.

        Raises:
            Problem: `batch-empty` or `limit-rows`.
        """
        if count == 0:
            raise Problem("batch-empty", "There are no rows; send at least one.")
        if count > self.max_rows:
            raise Problem(
                "limit-rows",
                f"There are {count} rows; one request may have {self.max_rows}. Split them, or upload them as"
                " a dataset and start a scoring job.",
                members={"limit": self.max_rows, "got": count},
            )

    def check_width(self, width: int) -> None:
        """Refuse rows of another width than the model's.

        Raises:
            Problem: `dimension-mismatch`.
        """
        if width != self.width:
            raise Problem(
                "dimension-mismatch",
                f"The rows have {width} value{'s' * (width != 1)}; the model has {self.width} column"
                f"{'s' * (self.width != 1)}.",
                members={"expected": self.width, "got": width},
            )

    def names_of(self, width: int) -> list[str] | None:
        """Return the names of rows that have none and more values than the model; None if they cannot be its.

        A table without names has columns x1 to xD. A model that lacks some of them, which were ignored,
        takes the others by their numbers.
        """
        names = default_names(width)
        lacks_some = list(self.columns) != names[: self.width] and set(self.columns) <= set(names)
        return names if self.ignores_extra and lacks_some else None

    def order_of(self, names: Sequence[str]) -> list[int]:
        """Return the position of each column of the model among named ones.

        Raises:
            Problem: `columns-mismatch`, naming what is missing, unknown or there twice.
        """
        places = {name: place for place, name in enumerate(names)}
        known = set(self.columns)
        missing = [name for name in self.columns if name not in places]
        unknown = places.keys() - known
        twice: list[str] = []
        if len(names) > len(places):
            counts = Counter(names)
            twice = [n for n in counts if counts[n] > 1 and (n in known or not self.ignores_extra)]
        if missing or twice or (unknown and not self.ignores_extra):
            others = [name for name in places if name in unknown]
            found = named({"Missing": missing, "Unknown": others, "Given twice": twice})
            remedy = "" if missing or twice else LEAVE_OUT
            raise Problem(
                "columns-mismatch",
                f"The columns are not those of the model. {found}{remedy}",
                members={
                    "missing": missing[:MAX_ERRORS],
                    "unknown": shown_names(others),
                    "twice": shown_names(twice),
                },
            )
        return [places[name] for name in self.columns]
