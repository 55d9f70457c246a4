"""Shape that the rows of a request must have: their number and their columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.problems.fields import MAX_ERRORS, shown_names
from app.problems.problem import Problem

Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class RowsShape:
    """Shape that rows must have.

    Args:
        columns: Names of the columns, in the order of the model.
        max_rows: Largest number of rows of a request.
    """

    columns: Sequence[str]
    max_rows: int

    @property
    def width(self) -> int:
        """Number of values of a row."""
        return len(self.columns)

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
                f"There are {count} rows; one request may have {self.max_rows}.",
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
                f"The rows have {width} values; the model has {self.width} columns.",
                members={"expected": self.width, "got": width},
            )

    def order_of(self, names: Sequence[str]) -> list[int]:
        """Return the position of each column of the model among named ones.

        Raises:
            Problem: `columns-mismatch`, naming what is missing, unknown or there twice.
        """
        places = {name: place for place, name in enumerate(names)}
        missing = [name for name in self.columns if name not in places]
        unknown = places.keys() - set(self.columns)
        if missing or unknown or len(names) > len(places):
            twice = [name for name, count in Counter(names).items() if count > 1]
            found = f"There are {len(missing)} columns of the model missing, {len(unknown)} unknown"
            raise Problem(
                "columns-mismatch",
                f"{found}, and {len(twice)} given twice.",
                members={
                    "missing": missing[:MAX_ERRORS],
                    "unknown": shown_names(name for name in names if name in unknown),
                    "twice": shown_names(twice),
                },
            )
        return [places[name] for name in self.columns]
