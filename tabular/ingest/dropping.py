"""Rows that the caller leaves out of a table, such as those of totals, by a text in one of their cells."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.cells import as_text, is_text
from tabular.formats import warning
from tabular.source import Source


def without_rows(table: Source, texts: Sequence[str]) -> Source:
    """Return a table without the rows that have one of some texts as a cell, with the warning that counts them."""
    if not texts:
        return table
    wanted = pa.array([text.strip() for text in texts], pa.string())
    warnings = list(table.warnings)

    def batches() -> Iterator[pa.RecordBatch]:
        rows, dropped = 0, list[int]()
        for batch in table.batches():
            marked = _marked(batch, wanted)
            dropped += (rows + 1 + np.flatnonzero(marked)).tolist()
            rows += batch.num_rows
            yield batch.filter(pa.array(~marked)) if marked.any() else batch
        # The reader knows all of its warnings by now; rows are read several times.
        warnings[:] = table.warnings
        if dropped:
            count = "1 row was" if len(dropped) == 1 else f"{len(dropped)} rows were"
            named = ", ".join(map(repr, texts))
            detail = (
                f"{count} left out, the first of them row {dropped[0]}, because a cell is {named}."
            )
            warnings.append(warning("dropped", None, detail))

    return replace(table, batches=batches, warnings=warnings)


def _marked(batch: pa.RecordBatch, texts: pa.Array) -> NDArray[np.bool_]:
    """Return which rows have one of some texts as a cell."""
    marked = np.zeros(batch.num_rows, np.bool_)
    for column in batch.columns:
        if is_text(column.type):
            found = pc.fill_null(pc.is_in(as_text(column), value_set=texts), fill_value=False)
            marked |= found.to_numpy(zero_copy_only=False)
    return marked
