"""Opening of tables of any format, and their rows as numbers of columns whose types are known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableWarning
from tabular.readers.arrow import open_arrow, open_parquet
from tabular.readers.csv import open_csv
from tabular.readers.excel import open_excel
from tabular.readers.json import open_json, open_ndjson
from tabular.readers.npy import open_npy
from tabular.source import Source, check_content, check_rows
from tabular.typed_rows import encode_columns

_READERS = {
    TableFormat.JSON: open_json,
    TableFormat.NDJSON: open_ndjson,
    TableFormat.CSV: open_csv,
    TableFormat.NPY: open_npy,
    TableFormat.ARROW: open_arrow,
    TableFormat.PARQUET: open_parquet,
    TableFormat.EXCEL: open_excel,
}


def open_source(
    content: Path | bytes,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
) -> Source:
    """Open a file of columns of any type; missing and infinite values are in its rows as they come.

    Raises:
        TableError: The file cannot be read; its batches raise the same.
    """
    check_content(content, format)
    source = _READERS[format](content, options)  # type: ignore[arg-type] # bytes are of binary formats

    def batches() -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in source.batches():
            rows += batch.num_rows
            check_rows(rows, row_bytes=8 * len(source.names), options=options)
            yield batch

    return replace(source, batches=batches)


Choose = Callable[[Sequence[str], bool], Sequence[int]]
"""Function from the names of a file's columns, and whether the file gives them, to the place of each
wanted column."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file.

    Attributes:
        names: Names of the columns of the file.
        values: Numbers of the wanted columns, of shape (rows, columns); None where the file lacks some of them.
    """

    names: list[str]
    values: NDArray[np.float64] | None
    warnings: list[TableWarning]


def read_rows(
    content: Path | bytes,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
    columns: Sequence[Column],
    choose: Choose | None = None,
) -> Rows:
    """Return the rows of a file, as numbers of the wanted columns.

    Args:
        content: File to read, or all of its bytes.
        options: Options of reading, and bounds of the size.
        choose: Function that finds the wanted columns among those of the file, or raises an error; None: they
            are found by their names.

    Raises:
        TableError: The file cannot be read, or a cell cannot be one of its column.
    """
    source = open_source(content, format, options)
    if choose is not None:
        places = choose(source.names, source.named)
    else:
        known = {name: place for place, name in enumerate(source.names)}
        if not all(column.name in known for column in columns):
            return Rows(source.names, None, source.warnings)
        places = [known[column.name] for column in columns]
    for place in places:
        if place in source.unread:
            name = source.names[place]
            text = f"Column {name!r} cannot be read: {source.unread[place]}"
            raise TableError("dataset-dtype", text, column=name)
    if choose is None and all(column.is_plain for column in columns):
        _refuse_others(source, places)
    parts = [np.empty((0, len(columns)))]
    before = 0
    for batch in source.batches():
        cells = [batch.column(place) for place in places]
        parts.append(encode_columns(cells, columns, rows=batch.num_rows, before=before))
        before += batch.num_rows
    return Rows(source.names, np.concatenate(parts), source.warnings)


def _refuse_others(source: Source, places: Sequence[int]) -> None:
    """Refuse columns of a format with types that hold no numbers, where all wanted ones are plain numbers."""
    for place in places:
        kind = source.types[place]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            name = source.names[place]
            text = (
                f"Column {name!r} is of type {source.dtypes[place]}; it takes integers or floats."
            )
            raise TableError("dataset-dtype", text, column=name)
