"""Rows that stand for a version, and what is usual among their explanations."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows import CompiledFlow, fitting_rows
from tabular.cells import recode
from tabular.columns import Column
from tabular.errors import TableError

Array = NDArray[np.floating]

_CHUNK_ROWS = 64
_ROWS, _LEAST_ROWS = 200, 32
_MOST_BYTES = 2**33  # of weights that are read for the rows of one version
_MOST_OPERATIONS = 2**23  # in them, small ones of about a microsecond


def read_reference_rows(
    path: Path, source: Sequence[Column], target: Sequence[Column], count: int
) -> Array | None:
    """Return some rows of a stored table, the same ones at each call.

    Args:
        target: Columns to return: those of a model, then its context.
        count: Most rows.

    Returns:
        Rows; None if the columns have got types since that are not the model's.
    """
    if not {column.name for column in target} <= {column.name for column in source}:
        return None
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    generator, count = np.random.default_rng(0), min(count, len(table))
    chosen = generator.choice(len(table), count, replace=False, shuffle=False)
    try:
        return recode(table[np.sort(chosen)], source, target)
    except TableError:
        return None


def draw_reference_rows(
    flow: CompiledFlow, count: int, *, context: Array | None = None
) -> Iterator[Array]:
    """Yield rows of a flow in small chunks, the same ones at each call.

    Args:
        context: Context of each row, of a conditional flow.
    """
    step = fitting_rows(_CHUNK_ROWS, flow.row_bytes)
    return flow.iter_sample(count, seed=0, chunk_rows=step, context=context)


def usual_count(flow: CompiledFlow) -> int:
    """Return the number of rows whose explanations tell what is usual."""
    passes = flow.explaining_passes
    fitting = min(
        _MOST_BYTES // max(1, passes * flow.size_bytes),
        _MOST_OPERATIONS // max(1, passes * flow.operations.density),
    )
    return max(_LEAST_ROWS, min(_ROWS, fitting))


def usual_terms(explanations: Array) -> NDArray[np.float64]:
    """Return the median of the finite terms of each column; NaN where there are none.

    Args:
        explanations: Explanations of reference rows, `(rows, columns)`.
    """
    known = [column[np.isfinite(column)] for column in explanations.T]
    return np.array([np.median(column) if len(column) else np.nan for column in known])
