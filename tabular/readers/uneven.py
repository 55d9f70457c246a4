"""Rows of a CSV file that have more or fewer values than the header."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above

from tabular.formats import TableWarning
from tabular.numerals import parse_numbers
from tabular.readers.arrow_threads import keep_state_of_thread
from tabular.readers.delimiters import split_line
from tabular.readers.layout import Layout
from tabular.source import rows_per_chunk

_FEWEST_ROWS = 20  # of fewer, an uneven one may be any fault
_SLACK = 10
_SHORT_SHARE, _LONG_SHARE = 0.9, 0.05
_LONE_SHARE = 0.5  # of short rows that all have a single value: they may have another separator
# Of rows that wait for the next whole one, beyond those shares.
_MOST_WAITING = 10_000
_MOST_SURPLUS = 16_384  # values of a row beyond its width, as of the widest sheet
_SHORT = "fewer values than the header, and lack the last cells"
_LONG = "more values than the header, and lose those past it"


class UnevenError(Exception):
    """Row that cannot be mended.

    Attributes:
        row: Number of the row, counted from 1.
        cells: Number of its values; None where its quotes do not match.
        place: Column of its value that should be a number, and is not.
    """

    def __init__(self, row: int, cells: int | None, place: int | None = None) -> None:
        self.row = row
        self.cells = cells
        self.place = place
        super().__init__(f"row {row} has {cells} values")


class UnevenRows:
    """Mender of one pass over a file, that gives short rows missing cells, and cuts long ones.

    Arrow leaves such rows out of its batches; they are put back in their places.

    Args:
        width: Number of values that a row should have.
        layout: Layout of the file.
        missing: Texts that mean a missing number.

    Attributes:
        error: Reason why the file is refused, once there is one.
    """

    def __init__(self, width: int, layout: Layout, *, missing: list[str]) -> None:
        self._width = width
        self._layout = layout
        self._missing = set(missing)
        self._waiting: deque[tuple[int, list[str]]] = deque()
        self._next = 1
        self._first: dict[
            bool, tuple[int, int]
        ] = {}  # number and size of the first long, short row
        self._counts = {False: 0, True: 0}
        self._most_of_short = 0  # values
        self.error: UnevenError | None = None

    def note(self, row: "pa_csv.InvalidRow") -> str:
        """Keep a row for its place, and tell Arrow to continue; or to end, where the file is refused."""
        keep_state_of_thread()
        if self.error is not None:
            return "error"
        if row.actual_columns > self._width + _MOST_SURPLUS:
            self.error = UnevenError(row.number, row.actual_columns)
            return "error"
        cells = (
            None
            if row.text is None
            else split_line(row.text, self._layout.delimiter, self._layout.quote)
        )
        if cells is None or self._layout.is_aligned:
            size = None if cells is None else row.actual_columns
            self.error = UnevenError(row.number, size)
            return "error"
        surplus = cells[self._width :]
        if len(cells) < self._width or any(cell.strip() for cell in surplus):
            is_long = bool(surplus)
            self._counts[is_long] += 1
            self._first.setdefault(is_long, (row.number, len(cells)))
            if not is_long:
                self._most_of_short = max(self._most_of_short, len(cells))
        self._waiting.append((row.number, cells[: self._width]))
        try:
            self._check(row.number, slack=_MOST_WAITING)
        except UnevenError as error:
            self.error = error
            return "error"
        return "skip"

    def restored(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield a batch of Arrow with the uneven rows in their places, in pieces: these may be many more.

        Raises:
            UnevenError: There are too many of them, or a value of one is no number.
        """
        return self._restored(batch, slack=_SLACK)

    def rest(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows after the last batch.

        Raises:
            UnevenError: As `restored`; there are too few rows to tell what is wrong.
        """
        return self._restored(pa.RecordBatch.from_pylist([], schema=schema), slack=0)

    def _restored(self, batch: pa.RecordBatch, *, slack: int) -> Iterator[pa.RecordBatch]:
        rows: deque[tuple[int, list[str]]] = deque()
        start, room = self._next, batch.num_rows
        while self._waiting and self._waiting[0][0] - start <= room + len(rows):
            rows.append(self._waiting.popleft())
        self._next += room + len(rows)
        self._check(self._next - 1, slack=slack)  # before work that grows with the columns
        if not rows:
            yield batch
            return
        step = rows_per_chunk(self._width)
        for first in range(start, self._next, step):
            stop = min(first + step, self._next)
            some = []
            while rows and rows[0][0] < stop:
                some.append(rows.popleft())
            whole = batch.slice(0, stop - first - len(some))
            batch = batch.slice(whole.num_rows)
            yield self._merged(whole, some, first) if some else whole

    def _merged(
        self, whole: pa.RecordBatch, rows: list[tuple[int, list[str]]], start: int
    ) -> pa.RecordBatch:
        """Return whole rows and uneven ones, which have numbers, from that of the first one on."""
        uneven = np.zeros(whole.num_rows + len(rows), np.bool_)
        uneven[[number - start for number, _ in rows]] = True
        order = np.empty(len(uneven), np.int64)
        order[~uneven] = np.arange(whole.num_rows)
        order[uneven] = np.arange(whole.num_rows, len(uneven))
        return pa.concat_batches([whole, self._mended(rows, whole.schema)]).take(order)

    def warning(self) -> TableWarning | None:
        """Return the warning about the rows that were mended, if there are any."""
        parts = [
            f"{self._counts[is_long]} rows have {what}, the first in row {row}"
            if self._counts[is_long] > 1
            else f"Row {row} has {what}"
            for is_long, (row, _) in sorted(self._first.items())
            for what in (_LONG if is_long else _SHORT,)
        ]
        if not parts:
            return None
        return {
            "code": "uneven",
            "column": None,
            "detail": f"{'. '.join(parts)}. A value with a separator in it must be quoted.",
        }

    def _mended(self, rows: list[tuple[int, list[str]]], schema: pa.Schema) -> pa.RecordBatch:
        """Return uneven rows as a batch."""
        arrays: list[pa.Array] = []
        wrong: list[tuple[int, int]] = []  # row among these, and column
        longest = max(len(row) for _, row in rows)
        for place, field in enumerate(schema):
            if place >= longest:
                none = "" if field.type == pa.string() else None
                arrays.append(pa.repeat(pa.scalar(none, field.type), len(rows)))
                continue
            cells = [row[place] if place < len(row) else "" for _, row in rows]
            if field.type == pa.string():
                arrays.append(pa.array(cells, pa.string()))
                continue
            values = parse_numbers(pa.array([cell.strip() for cell in cells], pa.string()))
            unknown = (n for n in np.flatnonzero(np.isnan(values)) if cells[n] not in self._missing)
            wrong += [(int(n), place) for n in islice(unknown, 1)]
            arrays.append(pa.array(values, pa.float64(), from_pandas=True))
        if wrong:
            row, place = min(wrong)
            raise UnevenError(rows[row][0], self._width, place)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _check(self, rows: int, *, slack: int) -> None:
        """Refuse a file that has too many uneven rows to be mended."""
        few = slack == 0 and rows < _FEWEST_ROWS
        short_share = _SHORT_SHARE if self._most_of_short > 1 else _LONE_SHARE
        for is_long, (row, size) in self._first.items():
            share = _LONG_SHARE if is_long else short_share
            if self._counts[is_long] > slack + (0 if few else share * rows):
                raise UnevenError(row, size)
