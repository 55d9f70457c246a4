"""Default sizes of a mixed density, which grow with the table.

With columns mapped by their quantiles, three layers of splines with 64 units, and 128 units of P(d), take
5 to 65 s of one core on 5,000 to 49,000 rows of 5 to 13 columns, at a learning rate of 3e-3 that falls
to 0 over 40 epochs of batches of 250, most of which the patience saves.
"""

from flows.specs.family import FamilySpec
from flows.specs.maf import MafSpec
from flows.specs.nsf import NsfSpec

# Rows from which on a table is no longer small, and from which on it is large.
SMALL_TABLE, LARGE_TABLE = 2_000, 100_000
# Most continuous columns that splines are the default for: their parameters take memory by column.
MOST_SPLINES = 64
# Columns from which on a small table is wide.
WIDE_COLUMNS = 20


def is_wide(rows: int, columns: int) -> bool:
    """Return whether a table has few rows for its columns, of which a MAF learns more than splines."""
    return columns >= WIDE_COLUMNS and rows < SMALL_TABLE


def default_continuous(columns: int, rows: int) -> FamilySpec:
    """Return the default flow of the continuous values given the variables.

    Args:
        columns: Number of continuous columns.
        rows: Number of training rows.
    """
    width = 32 if rows < SMALL_TABLE else 64 if rows < LARGE_TABLE else 128
    if columns <= MOST_SPLINES and not is_wide(rows, columns):
        return NsfSpec(layers=3, hidden=[width, width], activation="relu")
    width = max(width, min(1024, 2 * columns, rows))
    return MafSpec(layers=3, hidden=[width, width], activation="tanh", batch_norm=None)


def default_hidden(rows: int) -> list[int]:
    """Return the default units of the hidden layers of P(d).

    Args:
        rows: Number of training rows.
    """
    return [64 if rows < SMALL_TABLE else 128 if rows < LARGE_TABLE else 256]
