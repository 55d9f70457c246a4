"""Head and chunks of a response of rows, the same for every format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.rows.shape import Floats

Codes = NDArray[np.uint8]

FINE, NON_FINITE, NON_FINITE_INPUT = 0, 1, 2
_DETAILS = {
    NON_FINITE: (
        "non_finite",
        "The result is not finite: the row is too far from the data of the model.",
    ),
    NON_FINITE_INPUT: ("non_finite_input", "The row has a missing, NaN or infinite value."),
}


@dataclass(frozen=True)
class Part:
    """Member of a JSON response.

    Args:
        name: Name of the member.
        start: First value of a row that belongs to it.
        stop: Value after its last one; None for one value a row instead of a list of values.
    """

    name: str
    start: int
    stop: int | None

    def of(self, values: Floats) -> Floats:
        """Return the values of the member."""
        return values[:, self.start] if self.stop is None else values[:, self.start : self.stop]


@dataclass(frozen=True)
class AnswerTable:
    """Head of a response: all but the rows.

    Args:
        columns: Names of the values of a row.
        parts: Members of a JSON response that hold the values.
        rows: Number of rows.
        dtype: Type of the values.
        members: Further members of a JSON response.
        explains: True to add the reasons of rows that are not finite.
        flat: True for an npy array of one dimension, of the only column.
    """

    columns: Sequence[str]
    parts: Sequence[Part]
    rows: int
    dtype: np.dtype[Any]
    members: Mapping[str, Any]
    explains: bool = True
    flat: bool = False


@dataclass(frozen=True)
class Chunk:
    """Some rows of a response.

    Args:
        values: Array of shape (rows, columns).
        codes: Code of what is wrong with each row; None where all are finite.
    """

    values: Floats
    codes: Codes | None = None

    @classmethod
    def of(cls, values: Floats, inputs: Floats | None = None) -> "Chunk":
        """Return rows with the reasons of those that are not finite.

        Args:
            values: Rows of shape (n, columns).
            inputs: The n rows that the values were computed from.
        """
        if np.isfinite(values).all():
            return cls(values)
        bad = _bad_rows(values)
        codes = np.where(bad, np.uint8(NON_FINITE), np.uint8(FINE))
        if inputs is not None:
            codes[bad & _bad_rows(inputs)] = NON_FINITE_INPUT
        return cls(values, codes)


def _bad_rows(values: Floats) -> NDArray[np.bool_]:
    """Return a mask of the rows with a value that is not finite."""
    return np.logical_not(np.isfinite(values).all(axis=1))


def row_errors(codes: Codes, *, start: int) -> Iterator[dict[str, Any]]:
    """Yield the entries of `row_errors` for the rows from `start` on."""
    for index in np.flatnonzero(codes).tolist():
        code, detail = _DETAILS[int(codes[index])]
        yield {"row": start + index, "code": code, "detail": detail}
