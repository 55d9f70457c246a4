"""Preview of a table: what an upload would make of it, and its first and last rows."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above

from tabular.cells import as_text
from tabular.formats import ParseOptions, TableFormat, TableSummary
from tabular.ingest.dropping import without_rows
from tabular.ingest.storing import store_table
from tabular.rows import open_source

_FIRST_ROWS, _LAST_ROWS = 20, 3
_MOST_CELLS = 4096
_MOST_CHARACTERS = 120

Cells = list[str | None]


@dataclass(frozen=True, kw_only=True)
class TablePreview:
    """What an upload would make of a file.

    Attributes:
        found: How the file is written, as the options of reading name it.
        sheets: Names of the sheets of a workbook.
        last: Last rows that are not among these.
    """

    summary: TableSummary
    found: Mapping[str, str | bool]
    sheets: Sequence[str]
    first: list[Cells]
    last: list[Cells]


def preview_table(
    source: Path,
    destination: Path,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
) -> TablePreview:
    """Ingest a file as an upload does, and return what is to be seen of it. Call it in a process of the pool.

    Args:
        destination: Place of the table, which the caller deletes.

    Raises:
        TableError: An upload would be refused.
    """
    table = open_source(source, format, options)
    summary = store_table(table, destination, options=options)
    most = max(1, min(_FIRST_ROWS, _MOST_CELLS // len(table.names)))
    first: list[Cells] = []
    last: deque[pa.RecordBatch] = deque(maxlen=_LAST_ROWS)
    for batch in without_rows(table, options.drop_rows).batches():
        taken = batch.slice(0, most - len(first))
        first += _texts(taken)
        rest = batch.slice(taken.num_rows)
        for at in range(max(0, rest.num_rows - _LAST_ROWS), rest.num_rows):
            last.append(rest.slice(at, 1))
    return TablePreview(
        summary=summary,
        found=table.found,
        sheets=table.sheets,
        first=first,
        last=list(chain.from_iterable(map(_texts, last))),
    )


def _texts(batch: pa.RecordBatch) -> list[Cells]:
    """Return rows as text; long cells are cut, and those that hold no single value are left out."""
    columns = [
        pa.nulls(batch.num_rows, pa.string())
        if pa.types.is_nested(column.type) or pa.types.is_binary(column.type)
        else pc.utf8_slice_codeunits(as_text(column), 0, _MOST_CHARACTERS)
        for column in batch.columns
    ]
    return [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]
