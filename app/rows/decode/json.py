"""Rows of JSON documents."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.http.json_body import parse_json
from app.problems.fields import MAX_ERRORS, field_error, shown_names
from app.problems.problem import Problem
from app.rows.body import RowsBody, in_thread_if_large
from app.rows.decode.problems import as_problem
from app.rows.shape import Floats, RowsShape
from tables.readers.json import COLUMNS, ROWS, split_document
from tables.readers.json_numbers import joined, number_rows
from tables.readers.json_rows import JsonRows

_FEW_LISTS = 1_000  # which parsers find faults in quickly


async def read_json(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a JSON document, all at once.

    Lists of numbers are read a slice in each turn of the event loop: a thread would hold the
    interpreter's lock for as long as all of them take, and the event loop would wait for it.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    body, shape = await source.memory.gather(source.chunks), source.shape
    if not shape.are_numbers:
        yield await in_thread_if_large(decode_document, body, shape)
        return
    found: list[NDArray[np.float64]] = []
    count = 0
    for rows in number_rows(body, width=shape.width):
        if rows is None or (count := count + len(rows)) > shape.max_rows:
            yield await in_thread_if_large(decode_document, body, shape)
            return
        found.append(rows)
        await asyncio.sleep(0)
    yield joined(found)


def decode_json(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document that is small, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    if not shape.are_numbers:
        return decode_document(body, shape)
    found: list[NDArray[np.float64]] = []
    for rows in number_rows(body, width=shape.width):
        if rows is None:
            return decode_document(body, shape)
        found.append(rows)
    values = joined(found)
    return values if len(values) <= shape.max_rows else decode_document(body, shape)


def decode_document(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document of any form, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    # A row of n values takes 2n + 1 bytes or more, so that no table of this size has more lists.
    most = max(_FEW_LISTS, len(body) // (2 * shape.width + 1))
    document = parse_json(body, max_lists=most)
    _check_members(document)
    with as_problem():
        rows, names = split_document(document)
    shape.check_count(len(rows))
    if isinstance(rows[0], dict):
        if names is not None:
            raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
        _check_keys(rows, shape)
        if shape.ignores_extra:
            rows = _known_members(rows, shape)
        with as_problem(root=(ROWS,)):
            return _values(JsonRows(shape.columns, keys=shape.columns), rows, shape)
    order = None if names is None else shape.order_of(names)
    if isinstance(rows[0], list) and not (names and shape.ignores_extra):
        shape.check_width(len(rows[0]))
    names = names or list(shape.columns)
    with as_problem(root=(ROWS,), places=names):
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
    return shape.types.codes.rows(lists)


def _known_members(rows: list[Any], shape: RowsShape) -> list[Any]:
    """Return rows without the members that are no columns of the model."""
    known = set(shape.columns)
    return [
        {name: row[name] for name in shape.columns}
        if isinstance(row, dict) and row.keys() > known
        else row
        for row in rows
    ]


def _check_members(document: object) -> None:
    if not isinstance(document, dict):
        raise Problem("batch-shape", "The body must be an object with the member `rows`.")
    unknown = [name for name in document if name not in (ROWS, COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )


def _check_keys(rows: list[Any], shape: RowsShape) -> None:
    keys = set(shape.columns)
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() == keys:
            continue
        if not (shape.ignores_extra and row.keys() > keys):
            missing = [name for name in shape.columns if name not in row]
            unknown = [name for name in row if name not in keys]
            raise Problem(
                "columns-mismatch",
                f"Row {index} lacks {len(missing)} columns of the model, has {len(unknown)} others.",
                members={
                    "row": index,
                    "missing": missing[:MAX_ERRORS],
                    "unknown": shown_names(unknown),
                },
            )
