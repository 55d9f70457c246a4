"""Files of cells as rows of numbers, of columns whose types are known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableFormat, TableWarning
from tabular.json.members import Members
from tabular.open import open_cells
from tabular.source import CellSource, Choose, NotNumbersError, batch_bytes, gather_batches
from tabular.typed_rows import ENCODED_ROWS, encode_columns, encode_members, encode_rows

_BATCH_BYTES = 16 << 20
"""Bytes of cells that are encoded at a time."""

_MOST_TEXT = 1 << 20
"""Most bytes of a text: several times as many are taken while it is looked at, by one thread for all."""

_MAX_RESTARTS = 4
"""Readings of a file that find one more column of texts each; the next one reads all columns as text."""

_DICTIONARY_BYTES = 1 << 20
"""Bytes of a dictionary that is looked at as a whole with each piece of its rows."""


@dataclass(frozen=True)
class TypedTable:
    """File whose columns have known types.

    Attributes:
        names: Names of the columns of the file.
        named: True where the file gives the names.
        chunks: Rows of the wanted columns, in order; none after a part of the file that is not enough of them,
            so that who takes chunks in turn with others keeps none waiting.
        warnings: Warnings about the file; all of them once all rows have been read.
    """

    names: list[str]
    named: bool
    chunks: Iterator[NDArray[np.float64]]
    warnings: list[TableWarning]


def open_typed(
    path: Path,
    *,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions,
    columns: Sequence[Column],
    choose: Choose,
    whole: object = None,
) -> TypedTable:
    """Open a file whose columns have known types, with its rows of the wanted columns.

    Args:
        path: File to read.
        format: Format of the file.
        options: Options of reading, and bounds of the size.
        columns: Types of the wanted columns, in order.
        choose: Function that finds the wanted columns among those of the file, or raises an error.
        whole: Row that has the members of all rows of NDJSON; None where it is not known.

    Raises:
        TableError: The file cannot be read; the chunks raise the same.
    """
    source = open_cells(
        path, format=format, options=options, gathers=False, choose=choose, whole=whole
    )
    places = choose(source.names, source.named)
    for place in places:
        if place in source.unread:
            name = source.names[place]
            text = f"Column {name!r} cannot be read: {source.unread[place]}"
            raise TableError("dataset-dtype", text, column=name)
    if source.lists is not None:
        chunks = _encoded_lists(source.lists(places), columns)
    else:
        chunks = _encoded(source, columns, places, max_bytes=options.max_bytes)
    return TypedTable(source.names, source.named, chunks, source.warnings)


def _encoded(
    source: CellSource, columns: Sequence[Column], places: Sequence[int], *, max_bytes: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the rows; where a column proves to hold more than numbers, read on with its texts."""
    text = _text_columns(source, columns, places)
    nothing = np.empty((0, len(columns)))
    done = looked_at = restarts = 0
    while True:
        chosen = (_chosen(batch, places) for batch in source.read(text))
        try:
            for cells, before in _after(gather_batches(chosen, pauses=True), done):
                if not cells.num_rows:
                    yield nothing
                    continue
                wanted = [_compact(column) for column in cells.columns]
                for place, column in zip(places, wanted, strict=True):
                    _check_texts(column, source.names[place])
                looked_at += sum(map(_dictionary_bytes, wanted))
                if looked_at > max_bytes:
                    raise TableError(
                        "dataset-too-large",
                        f"The texts of the rows have more than the {max_bytes} bytes that are allowed.",
                    )
                yield encode_columns(wanted, columns, rows=cells.num_rows, before=before)
                done = before + cells.num_rows
        except NotNumbersError as error:
            restarts += 1
            every = range(len(source.names)) if restarts == _MAX_RESTARTS else ()
            text |= {error.column, *every}
        else:
            return


def _encoded_lists(
    parts: Iterator[list[list[Any]] | Members], columns: Sequence[Column]
) -> Iterator[NDArray[np.float64]]:
    """Yield the rows of JSON, whose numbers and texts are told from each other cell by cell."""
    before = 0
    for rows in parts:
        if isinstance(rows, Members):
            yield from encode_members(rows, columns, before=before)
            before += rows.rows
            continue
        if not rows:
            yield np.empty((0, len(columns)))
        for start in range(0, len(rows), ENCODED_ROWS):
            some = rows[start : start + ENCODED_ROWS]
            yield encode_rows(some, columns, before=before)
            before += len(some)


def _text_columns(
    source: CellSource, columns: Sequence[Column], places: Sequence[int]
) -> frozenset[int]:
    """Return the columns to read as text: all but those of numbers."""
    numbers = {
        place
        for place, column in zip(places, columns, strict=True)
        if place not in source.text and _reads_numbers(column)
    }
    return frozenset(range(len(source.names))) - numbers


def _reads_numbers(column: Column) -> bool:
    """Return whether cells of a column that are numbers need not be read as text."""
    return (
        column.holds_values
        and not column.writes_digits
        and not column.na_values
        and column.decimal == "."
        and not column.thousands
    )


def _chosen(batch: pa.RecordBatch, places: Sequence[int]) -> pa.RecordBatch:
    """Return some columns of a batch, under their places."""
    columns = [batch.column(place) for place in places]
    return pa.RecordBatch.from_arrays(columns, names=[str(place) for place in places])


def _after(batches: Iterator[pa.RecordBatch], done: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the batches after some rows, in pieces of bounded size, with the rows before each.

    A batch without further rows is yielded as it is.
    """
    before = 0
    for batch in batches:
        skipped = min(max(0, done - before), batch.num_rows)
        before += skipped
        rest = batch.slice(skipped)
        if not rest.num_rows:
            yield rest, before
        for piece in pieces_of(rest):
            yield piece, before
            before += piece.num_rows


def pieces_of(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in pieces of bounded size; the long ones may lie together."""
    rows = batch.num_rows
    if rows <= 1 or batch_bytes(batch) <= _BATCH_BYTES:
        if rows:
            yield batch
        return
    yield from pieces_of(batch.slice(0, rows // 2))
    yield from pieces_of(batch.slice(rows // 2))


def _check_texts(cells: pa.Array, name: str) -> None:
    """Refuse texts that are too long to be values."""
    texts = cells.dictionary if pa.types.is_dictionary(cells.type) else cells
    if not pa.types.is_string(texts.type) or texts.nbytes <= _MOST_TEXT:
        return
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > _MOST_TEXT:
        raise TableError(
            "dataset-too-large",
            f"Column {name!r} has a text of {longest} bytes; at most {_MOST_TEXT} are read.",
            column=name,
        )


def _dictionary_bytes(cells: pa.Array) -> int:
    return int(cells.dictionary.nbytes) if pa.types.is_dictionary(cells.type) else 0


def _compact(cells: pa.Array) -> pa.Array:
    """Return dictionary cells without the entries that none of them has, unless these are few."""
    size = _dictionary_bytes(cells)
    if size == 0 or (len(cells.dictionary) <= len(cells) and size <= _DICTIONARY_BYTES):
        return cells
    used = pc.unique(cells.indices).drop_null()
    return pa.DictionaryArray.from_arrays(
        pc.index_in(cells.indices, value_set=used), cells.dictionary.take(used)
    )
