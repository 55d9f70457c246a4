"""Rows of JSON documents."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.http.json_body import parse_json
from app.limits import in_thread
from app.problems.fields import MAX_ERRORS, field_error, named, shown_names
from app.problems.problem import Problem
from app.rows.body import INLINE_BYTES, Decoded, RowsBody
from app.rows.cell_codes import SlowRowsError
from app.rows.decode.numbers import read_numbers
from app.rows.decode.problems import as_problem
from app.rows.shape import LEAVE_OUT, Floats, RowsShape
from tabular.errors import COUNTING
from tabular.readers.json import COLUMNS, ROWS, split_document
from tabular.readers.json_rows import JsonRows
from tabular.readers.plain_numbers import number_rows

SAMPLE_MEMBERS = ("model", "seed", "row_errors")
"""Members of a response of samples beside its rows, which are left out, so that it can be scored as it is."""

_SPARSE_VALUES = 2**20
"""Values of the rows of a document, of more than this only one for each byte."""

QUICK_COLUMNS = 64
"""Columns with types of rows that are decoded on the event loop, where no text of them is new."""

_FEW_LISTS = 1_000  # which parsers find faults in quickly


async def read_json(source: RowsBody) -> Decoded:
    """Return the rows of a JSON document; off the event loop where that takes long.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    shape, body = source.shape, source.content
    numbers = await read_numbers(source, number_rows)
    if numbers is not None:
        return Decoded(numbers)
    is_narrow = shape.types is None or len(shape.types.columns) <= QUICK_COLUMNS
    if is_narrow and len(body) <= INLINE_BYTES:
        with suppress(SlowRowsError):
            return Decoded(decode_document(body, replace(shape, quick=True)))
    return Decoded(await in_thread(decode_document, body, shape))


def decode_document(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document of any form, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    # A row of n values takes 2n + 1 bytes or more, so that no table of this size has more lists.
    most = max(_FEW_LISTS, len(body) // (2 * shape.width + 1))
    document = parse_json(body, max_lists=most)
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if name not in SAMPLE_MEMBERS}
        _check_members(document)
    root = (ROWS,) if isinstance(document, dict) else ()
    with as_problem():
        rows, names = split_document(document)
    shape.check_count(len(rows))
    if isinstance(rows[0], dict):
        if names is not None:
            raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
        _check_keys(rows, shape, size=len(body))
        if shape.ignores_extra:
            rows = _known_members(rows, shape)
        with as_problem(root=root):
            reader = JsonRows(shape.columns, keys=shape.columns, nested=frozenset())
            return _values(reader, rows, shape)
    if names is None and isinstance(rows[0], list):
        names = shape.names_of(len(rows[0]))
    order = None if names is None else shape.order_of(names)
    if isinstance(rows[0], list) and not (names and shape.ignores_extra):
        shape.check_width(len(rows[0]))
    names = names or list(shape.columns)
    with as_problem(root=root, places=names):
        return _values(JsonRows(names, keys=None), rows, shape, order=order)


def _values(
    reader: JsonRows, rows: list[Any], shape: RowsShape, *, order: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return parsed rows as numbers, of the columns of a shape in their order."""
    if shape.types is None:
        values = reader.values(rows)
        return values if order is None else values[:, order]
    lists = reader.lists(rows)
    if order is not None:
        lists = [[row[place] for place in order] for row in lists]
    return shape.types.codes.rows(lists, quick=shape.quick)


def _known_members(rows: list[Any], shape: RowsShape) -> list[Any]:
    """Return rows without the members that are no columns of the model."""
    known = set(shape.columns)
    return [
        {name: row[name] for name in shape.columns if name in row}
        if isinstance(row, dict) and not row.keys() <= known
        else row
        for row in rows
    ]


def _check_members(document: dict[str, Any]) -> None:
    unknown = [name for name in document if name not in (ROWS, COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )


def _check_keys(rows: list[Any], shape: RowsShape, *, size: int) -> None:
    """Refuse members that are no columns, and columns that no row has; what only some rows lack is a gap.

    Args:
        rows: Rows of a document.
        shape: Shape that they must have.
        size: Bytes of the document.

    Raises:
        Problem: `columns-mismatch`, or `limit-rows` for rows that hold next to nothing: each value
            takes memory, also one that the row lacks.
    """
    most = max(_SPARSE_VALUES, size) // max(shape.width, 1)
    if len(rows) > most:
        raise Problem(
            "limit-rows",
            f"There are {len(rows)} rows, most of whose members are left out; one document may have"
            f" {most} such. Send them as NDJSON.",
            members={"limit": most, "got": len(rows)},
        )
    keys = set(shape.columns)
    found: set[str] = set()
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            continue
        found |= keys & row.keys()
        if not (shape.ignores_extra or row.keys() <= keys):
            unknown = [name for name in row if name not in keys]
            raise _mismatch(index, [name for name in shape.columns if name not in row], unknown)
    missing = [name for name in shape.columns if name not in found]
    if missing:
        raise _mismatch(0, missing, [name for name in rows[0] if name not in keys])


def _mismatch(row: int, missing: list[str], unknown: list[str]) -> Problem:
    return Problem(
        "columns-mismatch",
        f"The columns of row {row + 1} are not those of the model."
        f" {named({'Missing': missing, 'Unknown': unknown})}{'' if missing else LEAVE_OUT}{COUNTING}",
        members={
            "row": row + 1,
            "missing": missing[:MAX_ERRORS],
            "unknown": shown_names(unknown),
        },
    )
