"""Check of a request's preprocessing against the data and the flow."""

from collections.abc import Sequence
from typing import Any

from flows import FlowSpec
from models_store.errors import RequestError
from models_store.requests.training import Levels, Preprocessing


def accept_preprocessing(
    wanted: Preprocessing, flow: FlowSpec, columns: Sequence[dict[str, Any]]
) -> Preprocessing:
    """Check the preprocessing against the modelled columns; return the one to carry out.

    Raises:
        RequestError: The values of a column are out of range.
    """
    if flow.is_binary:
        return _for_binary(wanted, columns)
    if isinstance(wanted.dequantise, Levels):
        largest = wanted.dequantise.levels - 1
        _check_range(columns, 0, largest, pointer="/preprocessing/dequantise")
    elif wanted.logit is not None:
        _check_range(columns, 0, 1, pointer="/preprocessing/logit")
    return wanted


def _for_binary(wanted: Preprocessing, columns: Sequence[dict[str, Any]]) -> Preprocessing:
    for name in ("standardise", "dequantise", "logit"):
        if name in wanted.model_fields_set and getattr(wanted, name):
            raise RequestError(
                "preprocessing-unsuitable",
                f"the Bernoulli MADE models 0 and 1 as they are: leave {name} out",
                pointer=f"/preprocessing/{name}",
            )
    for index, column in enumerate(columns):
        if not is_binary(column):
            raise RequestError(
                "preprocessing-unsuitable",
                f"the Bernoulli MADE models columns of 0 and 1; column {index + 1} of the"
                f" {len(columns)} to model holds others",
                pointer="/columns",
            )
    return Preprocessing(standardise=False, dequantise=None, logit=None)


def is_binary(column: dict[str, Any]) -> bool:
    """Return whether a column holds 0 and 1 only; beyond 1000, distinct values are not counted."""
    distinct = column["distinct"]
    return distinct is not None and distinct <= 2 and {column["min"], column["max"]} <= {0, 1}


def _check_range(
    columns: Sequence[dict[str, Any]], least: float, most: float, *, pointer: str
) -> None:
    for index, column in enumerate(columns):
        if column["min"] < least or column["max"] > most:
            raise RequestError(
                "preprocessing-unsuitable",
                f"values must be from {least:g} to {most:g}; column {index + 1} of the"
                f" {len(columns)} to model has {column['min']:g} to {column['max']:g}",
                pointer=pointer,
            )
