"""Rows of numbers alone, which compiled loops read, beside what the parsers of documents make of them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from app.problems.problem import Problem
from app.rows.decode.json import decode_document
from app.rows.model_types import ModelTypes
from app.rows.response_table import Chunk, row_errors
from app.rows.shape import Floats
from tabular.columns import Column
from tabular.readers import plain_numbers
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
    assert from_json(body).tolist() == rows.tolist()


def test_a_long_row_of_long_numbers_is_read_all_the_same(monkeypatch):
    """By the parser of documents, where its numbers are longer than any that a piece expects."""
    monkeypatch.setattr(plain_numbers, "_SLICE_BYTES", 1)
    number = f"0.{'3' * 900}"
    row = f"[{number},{number},{number}]"
    assert from_json(f"[{','.join([row] * 4)}]".encode()).tolist() == [[float(number)] * 3] * 4


VALUES = st.sampled_from(
    ["1", "-2.5", "1e-3", " 3", "4 ", "null", "NaN", '"x"', "", "01", "0.1234567890123456789012"]
)


LINES = st.lists(VALUES, min_size=2, max_size=4)


ORDERS = st.sampled_from(["abc", "bca", "ab", "abca", "abz"])


@pytest.mark.long
@given(
    ORDERS,
    st.lists(LINES, max_size=4),
)
def test_objects_of_numbers_are_read_as_parsers_do(names, rows):
    objects = [
        "{" + ", ".join(f'"{name}":{value}' for name, value in zip(names, row, strict=False)) + "}"
        for row in rows
    ]
    body = f'{{"rows": [{",".join(objects)}]}}'.encode()
    assert outcome(lambda: from_json(body)) == outcome(lambda: decode_document(body, SHAPE))


def test_no_column_is_named_where_training_had_gaps_in_all():
    """Explanations of some columns are not available, and so not finite."""
    types = ModelTypes((Column(name="a", missing=True), Column(name="b", missing=True)), dim=2)
    values, inputs = np.array([[-1.0, np.nan], [np.nan, np.nan]]), np.array([[0.0, 1], [np.nan, 1]])
    chunk = Chunk.of(values, inputs, types=types, checked=1)
    assert chunk.codes is not None
    assert [one["row"] for one in row_errors(chunk.codes, start=0, inputs=["a", "b"])] == [1]
