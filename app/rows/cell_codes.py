"""Memory of the numbers of cells that came before, for requests of few rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tabular.cells import level_text, try_encode
from tabular.columns import Column
from tabular.typed_rows import JsonCell, encode_rows, json_cells

_MAX_TEXTS = 10_000
_MAX_LENGTH = 128
_NUMBERS = frozenset({int, float, type(None)})
_TEXTS = frozenset({str, type(None)})
_MAX_WHOLE = 10**300


class SlowRowsError(Exception):
    """Rows whose texts were not seen before, or among which something is wrong."""


class CellCodes:
    """Converter of rows of JSON to numbers, which looks up the texts that it has seen before.

    To make numbers of texts takes a library of columns some tenths of a millisecond a column, however
    few they are. It is safe in threads.

    Args:
        columns: Types of the columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._numbers: list[dict[JsonCell, float]] = [{} for _ in columns]
        self._count = 0

    def rows(
        self, rows: Sequence[Sequence[JsonCell]], *, quick: bool = False
    ) -> NDArray[np.float64]:
        """Return rows of cells as rows of numbers.

        Args:
            rows: Rows of as many cells as there are columns.
            quick: True to refuse what takes longer than to look up texts that came before.

        Raises:
            SlowRowsError: It takes longer.
            TableError: ``dataset-dtype``, naming the first bad column and its first bad row.
        """
        numbers = np.empty((len(rows), len(self._columns)))
        for place in range(len(self._columns)):
            known = self._column([row[place] for row in rows], place, quick=quick)
            if known is None and quick:
                raise SlowRowsError
            if known is None:  # something is wrong, or nearly so: that is said by who looks closely
                return encode_rows(rows, self._columns)
            numbers[:, place] = known
        return numbers

    def _column(
        self, values: list[JsonCell], place: int, *, quick: bool
    ) -> Sequence[float] | NDArray[np.float64] | None:
        column = self._columns[place]
        kinds = set(map(type, values))
        plain = column.holds_values and not (column.na_values or column.writes_digits)
        if kinds <= _NUMBERS and plain:
            fits = int not in kinds or _fit(values)
            return np.array(values, np.float64) if fits else None
        if column.type == "datetime" and kinds & {int, float}:
            return self._dates(values, place, quick=quick)
        if not kinds <= _TEXTS:
            if column.holds_values or kinds & {list, dict}:
                return None
            values = [value if value is None else level_text(value) for value in values]
        known = self._numbers[place]
        found = list(map(known.get, values))
        if None in found:
            fresh = None if quick else self._encoded(values, place)
            if fresh is None:
                return None
            found = list(map(fresh.__getitem__, values))
        return found  # type: ignore[return-value]  # none is None

    def _dates(
        self, values: list[JsonCell], place: int, *, quick: bool
    ) -> NDArray[np.float64] | None:
        """Return the seconds of dates of which some are numbers, and others texts."""
        if self._columns[place].writes_digits or bool in set(map(type, values)):
            return None
        texts: list[JsonCell] = [None if isinstance(v, int | float) else v for v in values]
        known = self._column(texts, place, quick=quick)
        if known is None or not _fit(values):
            return None
        pairs = zip(values, known, strict=True)
        return np.array([float(v) if isinstance(v, int | float) else k for v, k in pairs])

    def _encoded(self, values: list[JsonCell], place: int) -> dict[JsonCell, float] | None:
        """Return the numbers of some texts, which are remembered; None where one has none."""
        unique = list(dict.fromkeys(values))
        numbers, bad = try_encode(json_cells(unique), self._columns[place])
        if bad.any():
            return None
        fresh = dict(zip(unique, numbers.tolist(), strict=True))
        short = [text for text in unique if text is None or len(str(text)) <= _MAX_LENGTH]
        if self._count + len(short) > _MAX_TEXTS:
            self._numbers = [{} for _ in self._columns]
            self._count = 0
        if len(short) <= _MAX_TEXTS:
            self._numbers[place].update((text, fresh[text]) for text in short)
            self._count += len(short)
        return fresh


def _fit(values: list[JsonCell]) -> bool:
    """Return whether whole numbers are no longer than a float holds."""
    whole = (value for value in values if isinstance(value, int))
    return all(abs(value) < _MAX_WHOLE for value in whole)
