"""Rows of numbers alone, which compiled loops read, beside what the parsers of documents make of them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from app.problems.problem import Problem
from app.rows.decode.json import decode_document, decode_numbers
from app.rows.model_types import ModelTypes
from app.rows.response_table import Chunk, row_errors
from app.rows.shape import Floats, RowsShape
from models_store.files.local_blobs import LocalBlobs
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.readers import plain_numbers
from tests.app.decoding import decode, decode_pieces
from tests.app.rows.bodies import SHAPE, from_json


def outcome(rows: Callable[[], Floats]) -> tuple[str, Any]:
    """The rows that decoding gives, or what is wrong with them."""
    try:
        return "rows", str(rows().tolist())  # in which not-a-number equals itself
    except Problem as problem:
        return problem.type.slug, [error.pointer for error in problem.errors]


FLOATS = st.floats(-9, 9, allow_subnormal=False)


PIECES = b"""[1,2,3]  [ 1.5 , -2e3 , 0 ]  [1,2]  [[1],2,3]  []  1  -  [  ]  ,  [1,2,NaN]  [1,2,1e400]
[1,2,null]  ["a",2,3]  }  {  "rows":""".replace(b"\n", b"  ").split(b"  ")


@pytest.mark.long
@given(
    st.lists(st.sampled_from(PIECES), max_size=8),
    st.sampled_from([b",", b"", b" ,\n"]),
    st.sampled_from([b'{"rows":[%b]}', b' { "rows" : [ %b ] } ', b'{"rows":[%b]}]', b"%b"]),
    st.integers(0, 40),
)
def test_rows_in_slices_are_those_of_the_whole(pieces, between, frame, slice_bytes):
    body = frame % between.join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_numbers, "_SLICE_BYTES", slice_bytes)
        patch.setattr(plain_numbers, "_SLICE_VALUES", slice_bytes)
        sliced = outcome(lambda: from_json(body))
    assert sliced == outcome(lambda: decode_document(body, SHAPE))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.just(3)), elements=FLOATS))
def test_rows_of_numbers_are_read_in_slices(rows):
    body = json.dumps({"rows": rows.tolist()}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_numbers, "_SLICE_VALUES", 1)
        slices = list(plain_numbers.number_rows(body, SHAPE.columns))
    assert [chunk.tolist() for chunk in slices if chunk is not None] == [
        [row] for row in rows.tolist()
    ]
    read = decode_numbers(body, SHAPE)
    assert read is not None
    assert read.tolist() == rows.tolist()


@pytest.mark.parametrize(
    "body",
    [b'{"rows": [["1", 2, 3]]}', b'{"rows": []}', b'{"rows": [[1, 2]]}', b'{"rows": [[1, 2, 3]'],
)
def test_what_is_not_plain_numbers_is_left_to_the_parser_of_documents(body):
    assert decode_numbers(body, SHAPE) is None


def test_more_rows_than_a_request_may_have_are_left_to_the_parser_of_documents():
    few = RowsShape(SHAPE.columns, max_rows=1)
    assert decode_numbers(b"[[1, 2, 3]]", few) is not None
    assert decode_numbers(b"[[1, 2, 3], [4, 5, 6]]", few) is None


@pytest.mark.parametrize("row", [b"{}", b"1", b"{},[]", b"[[" + b"1," * 50_000 + b"1]]"])
def test_no_piece_of_a_document_is_long(monkeypatch, row):
    """The brackets that end a piece may be missing: a piece was then all that was left."""
    sizes = []
    matrix = plain_numbers._matrix

    def spy(text, width):
        sizes.append(len(text))
        return matrix(text, width)

    monkeypatch.setattr(plain_numbers, "_matrix", spy)
    body = b'{"rows":[%b]}' % b",".join([row] * (600_000 // len(row)))
    assert decode_numbers(body, SHAPE) is None
    assert max(sizes, default=0) <= plain_numbers._SLICE_BYTES + 300


def test_a_long_row_of_long_numbers_is_read_all_the_same(monkeypatch):
    """By the parser of documents, where its numbers are longer than any that a piece expects."""
    monkeypatch.setattr(plain_numbers, "_SLICE_BYTES", 1)
    number = f"0.{'3' * 900}"
    row = f"[{number},{number},{number}]"
    assert from_json(f"[{','.join([row] * 4)}]".encode()).tolist() == [[float(number)] * 3] * 4


def test_a_large_body_of_rows_leaves_the_event_loop_to_others(tmp_path):
    count = 60_000
    body = json.dumps({"rows": [[0.5, 1.5, 2.5]] * count}).encode()
    shape = RowsShape(SHAPE.columns, max_rows=count)

    async def decoded() -> tuple[Floats, int]:
        turns = 0
        task = asyncio.create_task(decode_pieces([body], TableFormat.JSON, shape, tmp_path))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return task.result(), turns

    rows, turns = asyncio.run(decoded())
    assert rows.shape == (count, 3)
    assert turns >= 3 * count // plain_numbers._SLICE_VALUES


VALUES = st.sampled_from(
    ["1", "-2.5", "1e-3", " 3", "4 ", "null", "NaN", '"x"', "", "01", "0.1234567890123456789012"]
)


LINES = st.lists(VALUES, min_size=2, max_size=4)


ORDERS = st.sampled_from(["abc", "bca", "ab", "abca", "abz"])


@pytest.mark.long
@given(
    ORDERS,
    st.lists(LINES, max_size=4),
    st.sampled_from(["\n", "\r\n", "\n\n", ",", " "]),
    st.booleans(),
)
def test_objects_of_numbers_are_read_as_parsers_do(names, rows, between, ends):
    objects = [
        "{" + ", ".join(f'"{name}":{value}' for name, value in zip(names, row, strict=False)) + "}"
        for row in rows
    ]
    lines = between.join(objects) + between * ends
    outcome(lambda: decode(lines.encode(), TableFormat.NDJSON, SHAPE))  # which compares
    body = f'{{"rows": [{",".join(objects)}]}}'.encode()
    assert outcome(lambda: from_json(body)) == outcome(lambda: decode_document(body, SHAPE))


@pytest.mark.long
@given(ORDERS, st.lists(LINES, max_size=4), st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans())
def test_lines_of_numbers_are_read_as_tables_are(names, rows, between, ends):
    text = between.join([",".join(names), *(",".join(row) for row in rows)]) + between * ends
    outcome(lambda: decode(text.encode(), TableFormat.CSV, SHAPE))  # which compares


def test_rows_of_numbers_do_not_touch_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalBlobs, "staged", None)
    bodies = {
        TableFormat.NDJSON: b'{"b": 2, "c": 3, "a": 1}\n{"b": 5, "c": 6, "a": 4}',
        TableFormat.CSV: b"c,a,b\r\n3,1,2\r\n6,4,5",
    }
    for kind, body in bodies.items():
        rows = asyncio.run(decode_pieces([body], kind, SHAPE, tmp_path, size=len(body)))
        assert rows.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_no_column_is_named_where_training_had_gaps_in_all():
    """Explanations of some columns are not available, and so not finite."""
    types = ModelTypes((Column(name="a", missing=True), Column(name="b", missing=True)), dim=2)
    values, inputs = np.array([[-1.0, np.nan], [np.nan, np.nan]]), np.array([[0.0, 1], [np.nan, 1]])
    chunk = Chunk.of(values, inputs, types=types, checked=1)
    assert chunk.codes is not None
    assert [one["row"] for one in row_errors(chunk.codes, start=0, inputs=["a", "b"])] == [1]
