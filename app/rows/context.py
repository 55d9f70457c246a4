"""Context that a conditional model draws samples for."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from app.problems.fields import listed
from app.problems.problem import FieldError, Problem
from app.rows.model_types import ModelTypes, types_of
from app.rows.shape import Floats
from models_store.records import Version
from models_store.requests.bulk import ContextCell, ContextRow
from tabular.errors import TableError
from tabular.typed_rows import encode_rows

_NUMBERS = frozenset({int, float})


def context_rows(cells: list[list[ContextCell]] | None, version: Version) -> Floats | None:
    """Return the rows of `context_cells` as an array.

    Raises:
        Problem: `context-mismatch`: a cell is no value of its column.
    """
    if cells is None:
        return None
    types = types_of(version)
    if types is not None:
        return _typed(cells, types)
    if not set(map(type, chain.from_iterable(cells))) <= _NUMBERS:
        raise _mismatch("Every value of `context` must be a number: the model has no types.")
    context = np.array(cells, np.float64)
    if not np.isfinite(context).all():
        raise _mismatch("Every value of `context` must be a finite number.")
    return context


def _typed(cells: list[list[ContextCell]], types: ModelTypes) -> Floats:
    try:
        context = encode_rows(cells, types.context)
    except TableError as error:
        raise _mismatch(error.detail) from error
    gaps = types.gaps[types.dim :]
    for place, column in enumerate(gaps):
        if not column.missing and np.isnan(context[:, place]).any():
            raise _mismatch(
                f"`context` has no value of {column.name!r}, which no training row lacked."
            )
    return context


def context_cells(
    wanted: list[ContextRow] | dict[str, ContextCell] | None, columns: Sequence[str], *, n: int
) -> list[list[ContextCell]] | None:
    """Return the context as one row, or as `n`; None for a model without one.

    Args:
        wanted: Context in the request.
        columns: Names of the model's context columns.

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
            f" {listed(columns)}."
        )
    rows = [wanted] if isinstance(wanted, dict) else wanted
    if len(rows) not in (1, n):
        raise _mismatch(f"`context` has {len(rows)} rows; it must have 1, or {n} as the samples.")
    return [_ordered(row, number, columns) for number, row in enumerate(rows, 1)]


def _ordered(row: ContextRow, number: int, columns: Sequence[str]) -> list[ContextCell]:
    if isinstance(row, dict):
        if row.keys() != set(columns):
            raise _mismatch(
                f"Row {number} of `context`, counted from 1, must have the columns {listed(columns)}."
            )
        return [row[name] for name in columns]
    if len(row) != len(columns):
        raise _mismatch(
            f"Row {number} of `context`, counted from 1, has {len(row)} values; the model has {len(columns)}"
            " context columns."
        )
    return row


def _mismatch(detail: str) -> Problem:
    return Problem("context-mismatch", detail, errors=[FieldError(detail, pointer="/context")])
