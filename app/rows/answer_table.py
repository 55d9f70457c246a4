"""What an answer of rows consists of, whatever its format."""

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
    """A member of the JSON form.

    Args:
        name: of the member.
        start: the first value of a row that belongs to it.
        stop: the one after the last; None: it is one value a row, not a list of values.
    """

    name: str
    start: int
    stop: int | None

    def of(self, values: Floats) -> Floats:
        """The member's values."""
        return values[:, self.start] if self.stop is None else values[:, self.start : self.stop]


@dataclass(frozen=True)
class AnswerTable:
    """The head of an answer: everything but the rows.

    Args:
        columns: the names of the values of a row.
        parts: the members of the JSON form that the values are in.
        rows: number of them.
        dtype: of the values.
        members: further members of the JSON form.
        explains: whether rows that are not finite are explained.
        flat: whether the npy form has one dimension; there is one column.
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
    """Some rows of an answer.

    Args:
        values: rows by columns.
        codes: what is wrong with each row; None: nothing with any.
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
    """The entries of `row_errors` for the rows from `start` on."""
    for index in np.flatnonzero(codes).tolist():
        code, detail = _DETAILS[int(codes[index])]
        yield {"row": start + index, "code": code, "detail": detail}
