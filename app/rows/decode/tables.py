"""Rows of tables: text by way of a temporary file, Arrow and Parquet in a process of the pool."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from app.limits import in_thread, owner_here
from app.rows.body import Decoded, RowsBody, is_headerless
from app.rows.decode.problems import as_problem
from app.rows.shape import RowsShape
from app.settings import ParserLimits
from tabular import processes
from tabular.formats import ParseOptions, TableFormat
from tabular.rows import Rows, read_rows

UNPACKED = 4
"""Bytes of rows, and of their results, for each byte that a body may have: a digit and a comma become a float64."""
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")


async def read_text(source: RowsBody) -> Decoded:
    """Return the rows of CSV or NDJSON; columns that have names may come in any order.

    Raises:
        Problem: Saying what is wrong, and where.
    """

    def read() -> Rows:
        with source.blobs.staged(".rows") as file, as_problem():
            file.write_bytes(source.content)
            choose = partial(_places_of, source)
            columns = source.shape.cell_columns
            return read_rows(file, source.format, _parse_options(source), columns, choose)

    return _decoded(await in_thread(read), source.shape)


async def read_table(source: RowsBody) -> Decoded:
    """Return the rows of an Arrow stream or a Parquet file, which a process of the pool reads.

    Raises:
        Problem: Saying what is wrong, and where.
    """

    def read(**limits: Unpack[ParserLimits]) -> Rows:
        return processes.run(
            read_rows,
            source.content,
            source.format,
            _parse_options(source),
            source.shape.cell_columns,
            timeout_s=limits["timeout_s"],
            memory_bytes=limits["memory_bytes"],
        )

    with as_problem():
        rows = await source.parsers.run(
            owner_here(), partial(read, **source.settings.parser_limits)
        )
    _places_of(source, rows.names, named=True)
    return _decoded(rows, source.shape)


def _decoded(rows: Rows, shape: RowsShape) -> Decoded:
    assert rows.values is not None  # noqa: S101 - what is missing was named before
    shape.check_count(len(rows.values))
    return Decoded(rows.values, rows.warnings)


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
    )
