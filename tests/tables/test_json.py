"""Tables in JSON and NDJSON, and the plain numbers of scores."""

import json
from typing import Any

import numpy as np
import pytest

from tabular.errors import JsonError, TableError
from tabular.formats import TableFormat, TableSummary
from tabular.json_text import parse_json
from tabular.readers.json import MAX_DOCUMENT_BYTES, MAX_LINE_BYTES, number_lines, number_rows
from tests.tables.files import Accept, Refuse

JSON, NDJSON = TableFormat.JSON, TableFormat.NDJSON


def names(summary: TableSummary) -> list[str]:
    return [column.name for column in summary.columns]


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    "document",
    [
        {"rows": [[1, 2.5], [3, -4e1]], "columns": ["a", "b"]},
        {"rows": [{"a": 1, "b": 2.5}, {"b": -40, "a": 3}]},
        [{"a": 1, "b": 2.5}, {"a": 3, "b": -40}],
    ],
)
def test_every_form_of_a_document_is_the_same_table(accept, stored, document):
    for indent in (None, 3):
        assert names(accept(json.dumps(document, indent=indent).encode(), JSON)) == ["a", "b"]
        assert stored().tolist() == [[1, 2.5], [3, -40]]


def test_rows_without_names_are_called_x1_to_xd(accept: Accept) -> None:
    assert names(accept(b"[[1,2],[3,5]]", JSON)) == ["x1", "x2"]
    assert names(accept(lines([1, 2], [3, 5]), NDJSON)) == ["x1", "x2"]


def test_members_come_in_any_order_and_what_a_row_lacks_is_a_gap(accept: Accept) -> None:
    body = b'\r\n {"a": 1, "b:": 2}\r\n\n{"b:":5,"a":null}\r\n{"a":3}\n{"c":9,"a":4,"b:":1}'
    summary = accept(body, NDJSON)
    assert names(summary) == ["a", "b:", "c"]
    assert [column.missing_count for column in summary.columns] == [1, 1, 3]


def test_columns_of_any_values_have_types(accept: Accept) -> None:
    rows = [
        {"n": i * i, "t": "xyz"[i % 3], "b": i % 2 == 0, "m": i if i % 5 else "x", "l": [1]}
        for i in range(60)
    ]
    for body, kind in ((json.dumps(rows).encode(), JSON), (lines(*rows), NDJSON)):
        types = {column.name: column.column.type for column in accept(body, kind).columns}
        assert types == {
            "n": "integer",
            "t": "category",
            "b": "boolean",
            "m": "ignored",
            "l": "ignored",
        }


def test_a_text_far_down_makes_a_column_text(accept: Accept) -> None:
    rows = [{"a": i % 3, "b": i * i} for i in range(20_000)] + [{"a": "x", "b": 1}]
    assert accept(lines(*rows), NDJSON).columns[0].column.levels == ("0", "1", "2", "x")


def test_the_last_value_of_a_key_that_comes_twice_counts(accept: Accept, stored: Any) -> None:
    accept(b'[{"a":1,"a":2},{"a":3}]', JSON)
    assert stored().tolist() == [[2], [3]]


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"", "dataset-empty"),
        (b"[[1,2],[3]]", "dataset-shape"),
        (b'[[1],{"a":1}]', "dataset-shape"),
        (b"[1,2]", "dataset-shape"),
        (b'{"rows":[[1,2],[3,5]],"columns":["a"]}', "dataset-shape"),
        (b"[" + b" " * MAX_DOCUMENT_BYTES, "dataset-too-large"),
        (b'{"rows":[[1,2]', "json-syntax"),
        (b"[[1],[NaN]]", "json-nonfinite"),
        (b'[["\xff"],["a"]]', "json-syntax"),
        (b'[["\\ud800"],["a"]]', "json-syntax"),
        (b"\xef\xbb\xbf[[1],[2]]", "json-syntax"),
        (b"[" * 5000 + b"]" * 5000, "json-syntax"),
    ],
)
def test_a_document_that_is_no_table_is_refused(refuse: Refuse, body: bytes, slug: str) -> None:
    assert refuse(body, JSON).slug == slug


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"data":[[1],[2]]}', "in 'data': send that list alone."),
        (b'{"a":[1,2],"b":[3,4]}', "or Arrow or Parquet."),
        (b'{"a":[1,2],"b":3}', "or a list of rows."),
    ],
)
def test_where_the_rows_of_another_document_may_be_is_told(refuse, body, told):
    error = refuse(body, JSON)
    assert (error.slug, error.detail.endswith(told)) == ("dataset-shape", True)


def test_what_is_wrong_with_a_text_is_told_with_its_place(refuse: Refuse) -> None:
    error = refuse(b"[[1,\n2],[3,]]", JSON)
    assert "line 2, column 6" in error.detail
    assert "comma" in error.detail
    error = refuse(lines([1, 2]) + b"\n[3, 4\n", NDJSON)
    assert (error.row, "Line 3" in error.detail) == (2, True)
    assert error.told == error.detail  # which counts lines, and not rows
    long = refuse(b"[1,2]\n[3," + b" " * MAX_LINE_BYTES * 2 + b"4]", NDJSON)
    assert "Line 2 is longer" in long.detail


def test_more_values_than_allowed_are_refused_before_they_are_objects() -> None:
    assert parse_json(b'["{\\\\", "[\\"[["]', max_lists=1) == ["{\\", '["[[']
    assert parse_json(b'["' + b"[" * 70_000 + b'"]', max_lists=1)
    with pytest.raises(JsonError, match="at most 3"):
        parse_json(b"[[],[],[]]", max_lists=3)


def test_plain_numbers_are_read_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 3)) * 10.0 ** random.integers(-300, 300, (500, 3))
    rows[0] = 5e-324, 1.7976931348623157e308, 2.0**53 + 2
    for document in (rows.tolist(), {"rows": rows.tolist()}):
        found = number_rows(json.dumps(document).encode(), 3)
        assert found is not None
        np.testing.assert_array_equal(found, rows)
    found = number_lines(lines(*rows.tolist()), 3)
    assert found is not None
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
    "body",
    [
        *(b"[[1,null]]", b'[[1,"a"]]', b"[[1,[2]]]", b"[[1],[2,3,4]]", b"[1,2]", b"[[1,NaN]]"),
        *(b"[[1,1e400]]", b'{"rows":[[1,2]],"columns":["b","a"]}', b"[[1,2]] x", b""),
    ],
)
def test_what_is_not_plain_numbers_is_left_to_the_other_reader(body: bytes) -> None:
    assert number_rows(body, 2) is None


@pytest.mark.parametrize(
    "body", [b"[1,2\n3,4]", b"[1],[2]\n[3,4]", b"[1,2]\n\n[3,4]\nx", b'{"a":1}']
)
def test_lines_that_are_no_rows_of_their_own_are_left_to_the_other_reader(body: bytes) -> None:
    assert number_lines(body, 2) is None


def test_a_whole_number_beyond_floats_is_refused(refuse: Refuse) -> None:
    error = refuse(b"[[1],[1" + b"0" * 400 + b"]]", JSON)
    assert isinstance(error, TableError)
    assert error.slug in {"json-syntax", "dataset-nonfinite"}
