"""Context that a conditional model draws samples for."""

from collections.abc import Sequence

import numpy as np

from app.problems.problem import FieldError, Problem
from app.rows.shape import Floats
from models_store.requests.bulk import ContextRow

_MAX_NAMES = 20


def context_rows(
    wanted: list[ContextRow] | dict[str, float] | None, columns: Sequence[str], *, n: int
) -> Floats | None:
    """Return the context as an array of one row, or of `n`; None for a model without one.

    Args:
        wanted: Context in the request.
        columns: Names of the model's context columns.
        n: Number of samples to draw.

    Raises:
        Problem: `context-mismatch`.
    """
    if not columns:
        if wanted is None:
            return None
        raise _mismatch("The model is not conditional: leave `context` out.")
    if wanted is None:
        raise _mismatch(
            f"The model is conditional: `context` must have its {len(columns)} columns,"
            f" {_named(columns)}."
        )
    rows = [wanted] if isinstance(wanted, dict) else wanted
    if len(rows) not in (1, n):
        raise _mismatch(f"`context` has {len(rows)} rows; it must have 1, or {n} as the samples.")
    context = np.array([_ordered(row, index, columns) for index, row in enumerate(rows)])
    if not np.isfinite(context).all():
        raise _mismatch("Every value of `context` must be a finite number.")
    return context


def _ordered(row: ContextRow, index: int, columns: Sequence[str]) -> list[float]:
    if isinstance(row, dict):
        if row.keys() != set(columns):
            raise _mismatch(f"Row {index} of `context` must have the columns {_named(columns)}.")
        return [row[name] for name in columns]
    if len(row) != len(columns):
        raise _mismatch(
            f"Row {index} of `context` has {len(row)} values; the model has {len(columns)}"
            " context columns."
        )
    return row


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in columns[:_MAX_NAMES])
    return shown if len(columns) <= _MAX_NAMES else f"{shown} and {len(columns) - _MAX_NAMES} more"


def _mismatch(detail: str) -> Problem:
    return Problem("context-mismatch", detail, errors=[FieldError(detail, pointer="/context")])
