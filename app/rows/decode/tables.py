"""Rows of tables: small Arrow streams of numbers in memory, all else by way of a temporary file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np

from app.limits import in_thread, owner_here
from app.rows.body import Decoded, RowsBody, is_headerless
from app.rows.decode.problems import as_problem
from app.rows.shape import Floats, RowsShape
from app.settings import ParserLimits
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_arrow_bytes, open_table
from tabular.readers.arrow import check_stream, is_packed
from tabular.readers.json import whole_rows
from tabular.sandbox.copy import open_table_isolated, open_typed_isolated
from tabular.source import TableSource
from tabular.typed_table import TypedTable, open_typed

_MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Memory that a batch of Arrow may take in this process; what unpacks to more is for a process of
its own."""
UNPACKED = 4
"""Bytes of rows, and of their results, for each byte that a body may have: a digit and a comma become a float64."""
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")


async def read_table(source: RowsBody) -> Decoded:
    """Return the rows of a body; columns that have names may come in any order.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    with source.blobs.staged(".rows") as file, source.blobs.staged(".npy") as unpacked:
        await in_thread(file.write_bytes, source.content)
        if await in_thread(_is_packed, source):
            read = partial(_open_isolated, source, file, unpacked)
            with as_problem():
                table = await source.parsers.run(
                    owner_here(), partial(read, **source.settings.parser_limits)
                )
            return await in_thread(_rows, source, lambda: table)
        is_text = source.shape.holds_cells or source.format is TableFormat.CSV
        opened = _open_typed if is_text else _open_table
        return await in_thread(_rows, source, partial(opened, source, file))


async def read_arrow(source: RowsBody) -> Decoded:
    """Return the rows of an Arrow stream; one of numbers does not touch the disk.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    if source.shape.holds_cells or await in_thread(_is_packed, source):
        return await read_table(source)
    return await in_thread(
        _rows, source, lambda: open_arrow_bytes(source.content, _parse_options(source))
    )


def _is_packed(source: RowsBody) -> bool:
    """Return whether a body may take many times its size, once it is unpacked."""
    if source.format is not TableFormat.ARROW:
        return source.format is TableFormat.PARQUET
    options = _parse_options(source)
    with as_problem():
        if source.shape.holds_cells:
            return is_packed(source.content, options)
        return check_stream(source.content, options, validate=False).unpacked > _MAX_BATCH_BYTES


def _open_isolated(
    source: RowsBody, file: Path, unpacked: Path, **limits: Unpack[ParserLimits]
) -> TableSource | TypedTable:
    options = _parse_options(source)
    if source.shape.holds_cells:
        return open_typed_isolated(
            file,
            unpacked,
            format=source.format,
            options=options,
            columns=source.shape.cell_columns,
            **limits,
        )
    return open_table_isolated(file, unpacked, format=source.format, options=options, **limits)


def _open_table(source: RowsBody, file: Path) -> TableSource:
    return open_table(file, format=source.format, options=_parse_options(source))


def _open_typed(source: RowsBody, file: Path) -> TypedTable:
    options = _parse_options(source)
    whole: object = None  # a row that has the members of all rows
    if source.format is TableFormat.NDJSON:
        for some in whole_rows(file, options):
            whole = some
    return open_typed(
        file,
        format=source.format,
        options=options,
        columns=source.shape.cell_columns,
        choose=partial(_places_of, source),
        whole=whole,
    )


def _rows(source: RowsBody, opened: Callable[[], TableSource | TypedTable]) -> Decoded:
    """Return the rows of a table; call it in a thread."""
    shape = source.shape
    with as_problem():
        table = opened()
        places = _places_of(source, table.names, table.named)
        if isinstance(table, TypedTable):
            rows = _joined(table.chunks, shape, axis=0)
        else:
            columns = _joined(table.chunks, shape, axis=1)
            in_order = places == list(range(len(places)))
            rows = (columns if in_order else columns[places]).T
    return Decoded(rows, table.warnings)


def _joined(chunks: Iterator[Floats], shape: RowsShape, *, axis: int) -> Floats:
    parts: list[Floats] = []
    count = 0
    for chunk in chunks:
        count += chunk.shape[axis]
        if count > shape.max_rows:
            break
        if chunk.size:
            parts.append(chunk)
    shape.check_count(count)
    joined: Floats = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)  # type: ignore[assignment]  # of one type
    return joined


def _places_of(source: RowsBody, names: Sequence[str], named: bool) -> list[int]:  # noqa: FBT001  as `Choose`
    """Return the places of the model's columns among those of a file."""
    if not named:
        assumed = source.shape.names_of(len(names))
        if assumed is None:
            source.shape.check_width(len(names))
            return list(range(len(names)))
        return source.shape.order_of(assumed)
    if source.format is TableFormat.CSV:
        names = [_as_it_was(name, source.shape) for name in names]
    return source.shape.order_of(names)


def _as_it_was(name: str, shape: RowsShape) -> str:
    """Return a name without the mark that CSV responses have before what looks like a formula."""
    bare = name.removeprefix("'")
    return bare if name.startswith(_FORMULA_STARTS) and bare in shape.columns else name


def _parse_options(source: RowsBody) -> ParseOptions:
    return ParseOptions(
        header=False if is_headerless(source.parameters) else None,
        max_rows=source.shape.max_rows,
        max_columns=max(source.settings.max_columns, source.shape.width),
        max_bytes=UNPACKED * source.settings.max_body_bytes,
        reserve=0 if source.blobs.is_remote else source.settings.reserve_bytes,
    )
