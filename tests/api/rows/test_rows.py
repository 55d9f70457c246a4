"""Rows in JSON and npy: the forms that are read, what is refused and where, and the names of formats."""

import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from app.problems.fields import named
from app.problems.problem import Problem
from app.rows.codecs import CODECS, request_codec, response_codec
from app.rows.shape import Floats, RowsShape
from tabular.formats import TableFormat
from tests.api.serving import registered, stores
from tests.api.wire import decode

JSON, NPY = TableFormat.JSON, TableFormat.NPY
SHAPE = RowsShape(["a", "b", "c"], max_rows=4)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def from_json(document: object, shape: RowsShape = SHAPE) -> Floats:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(body, JSON, shape)


def refusal(body: object, kind: TableFormat = JSON) -> Problem:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        decode(text, kind, SHAPE)
    return caught.value


# JSON


@pytest.mark.parametrize("as_objects", [False, True])
def test_lists_and_objects_give_the_same_rows_alone_and_as_a_member(as_objects):
    lists: list[list[float | None]] = [[1, 2.5, -3e4], [4, None, 0.12345678901234567890123]]
    objects = [dict(reversed(list(zip("abc", row, strict=True)))) for row in lists]
    rows: list[Any] = [*objects] if as_objects else [*lists]
    for document in (rows, rows[:1], rows[1:]):
        np.testing.assert_array_equal(from_json(document), from_json({"rows": document}))
    expected = np.array(lists, np.float64)
    np.testing.assert_array_equal(from_json(rows), expected)
    assert [e.pointer for e in refusal([*rows, 3]).errors] == ["/2"]


@pytest.mark.parametrize("body", [b"[[1,2,3]]}", b'{"rows": [[1,2,3]]', b"[[1,2,3],]"])
def test_brackets_of_documents_must_fit(body):
    assert refusal(body).type.slug == "json-syntax"


def test_a_column_named_like_a_json_word_can_be_scored():
    shape = RowsShape(["true", "null"], max_rows=2)
    assert from_json({"rows": [{"true": 1, "null": 2}]}, shape).tolist() == [[1, 2]]


@pytest.mark.parametrize("value", [True, "1.5", [1.0], {}])
def test_only_numbers_are_numbers_and_the_problem_points_at_the_others(value):
    problem = refusal({"rows": [[1, 2, 3], [1, value, 3]]})
    assert problem.type.slug == "batch-value"
    assert [error.pointer for error in problem.errors] == ["/rows/1/1"]
    problem = refusal({"rows": [{"c": 3, "a": "1", "b": 2}]})
    assert [error.pointer for error in problem.errors] == ["/rows/0/a"]


def test_numbers_beyond_float64_and_nan_are_refused():
    for body in (b'{"rows": [[1e400, 2, 3]]}', {"rows": [{"a": 10**310, "b": 2, "c": 3}]}):
        assert refusal(body).type.slug == "value-nonfinite"
    assert refusal(b'{"rows": [[NaN, 2, 3]]}').type.slug == "json-nonfinite"


@pytest.mark.parametrize(
    ("document", "slug"),
    [
        ({"rows": []}, "batch-empty"),
        ([], "batch-empty"),
        ({"rows": [[]]}, "dimension-mismatch"),
        ({"rows": [{}]}, "columns-mismatch"),
        ({"rows": [[1, 2, 3]] * 5}, "limit-rows"),
        ([1, 2, 3], "batch-shape"),
        ({"rows": 3}, "batch-shape"),
        ({"rows": [{"a": 1, "b": 2, "c": 3}], "columns": ["a", "b", "c"]}, "batch-shape"),
        ({"rows": [[1, 2, 3]], "other": 1}, "unknown-field"),
        ({"rows": [[1, 2, 3]], "columns": ["a", "b", "z"]}, "columns-mismatch"),
        ({"rows": [[1, 2, 3]], "columns": [1, 2, 3]}, "batch-shape"),
    ],
)
def test_documents_of_another_form_are_refused(document, slug):
    assert refusal(document).type.slug == slug


def test_a_wrong_width_says_what_was_expected():
    problem = refusal({"rows": [[1, 2], [3, 4]]})
    assert problem.type.slug == "dimension-mismatch"
    assert problem.members == {"expected": 3, "got": 2}


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"rows": [[1, 2, 3], [4, 5]]}, "/rows/1"),
        ({"rows": [1, 2, 3]}, "/rows/0"),
        ({"rows": [{"a": 1, "b": 2, "c": 3}, [1, 2, 3]]}, "/rows/1"),
        ({"rows": [[1, 2, 3], {"a": 1, "b": 2, "c": 3}]}, "/rows/1"),
    ],
)
def test_rows_of_different_shapes_are_refused_by_place(document, pointer):
    problem = refusal(document)
    assert problem.type.slug == "batch-shape"
    assert [error.pointer for error in problem.errors] == [pointer]


def test_missing_and_unknown_columns_are_named():
    problem = refusal({"rows": [{"a": 1, "b": 2, "c": 3}, {"a": 1, "z": 2}]})
    assert problem.type.slug == "columns-mismatch"
    assert problem.members == {"row": 2, "missing": ["b", "c"], "unknown": ["z"]}
    assert (
        "columns of row 2 are not those of the model. Missing: b, c. Unknown: z." in problem.detail
    )
    assert problem.detail.endswith("Rows are counted from 1, without the header and blank lines.")
    problem = refusal({"rows": [{"a": 1, "b": 2}, {"a": 1}]})
    assert problem.members == {"row": 1, "missing": ["c"], "unknown": []}
    problem = refusal({"rows": [{"a": 1, "b": 2, "x" * 1_000_000: 3}]})
    assert len(problem.members["unknown"][0]) <= 128
    many = named({"Missing": list("abcdefg"), "Unknown": []})
    assert many == "Missing: a, b, c, d, e and 2 more."


def test_null_and_a_member_that_some_rows_lack_are_gaps():
    nan = np.nan
    rows = from_json({"rows": [{"a": 1}, {"c": 3, "b": 2, "a": 1}, {}]})
    np.testing.assert_array_equal(rows, [[1, nan, nan], [1, 2, 3], [nan, nan, nan]])
    rows = from_json({"rows": [[3, None, 1]], "columns": ["c", "b", "a"]})
    np.testing.assert_array_equal(rows, [[1, nan, 3]])


def test_columns_that_are_named_twice_are_told_and_of_members_the_last_counts():
    problem = refusal({"rows": [[1, 2, 3, 3, 3]], "columns": ["a", "b", "c", "c", "c"]})
    assert problem.members == {"missing": [], "unknown": [], "twice": ["c"]}
    assert problem.detail == "The columns are not those of the model. Given twice: c."
    rows = from_json(b'{"rows": [{"a": 1, "a": 2, "b": 2, "c": 3}]}')
    assert rows.tolist() == [[2, 2, 3]]


# npy


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", ">f8", "<f2", "<i4", ">i2", "<u8", "|u1"]),
        st.tuples(st.integers(1, 4), st.just(3)),
    ),
    st.booleans(),
)
def test_npy_rows_are_read_whatever_their_dtype_and_order(array, fortran):
    body = npy(np.asfortranarray(array) if fortran else array)
    rows = decode(body, NPY, SHAPE)
    assert rows.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(rows, array.astype(rows.dtype))


def test_npy_rows_of_a_native_float_are_not_copied():
    for dtype in (np.float32, np.float64):
        body = npy(np.ones((2, 3), dtype), version=(2, 0))
        assert np.shares_memory(decode(body, NPY, SHAPE), np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("dtype", [np.complex128, bool, "S10", "M8[s]", np.longdouble])
def test_arrays_of_anything_but_real_numbers_are_refused(dtype):
    assert refusal(npy(np.zeros((2, 3), dtype)), NPY).type.slug == "array-dtype"


def test_an_object_array_is_refused_and_never_unpickled(tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return canary.touch, ()

    body = npy(np.array([[Bomb()] * 3], dtype=object), allow_pickle=True)
    assert refusal(body, NPY).type.slug == "array-dtype"
    assert not canary.exists()


def headed(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)


@pytest.mark.parametrize(
    ("header", "slug"),
    [
        (b"{'descr': '><f8', 'fortran_order': False, 'shape': (1, 3), }", "array-dtype"),
        (b"{'descr': '<f16', 'fortran_order': False, 'shape': (1, 3), }", "array-dtype"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000, 3), }", "limit-rows"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1%s), }" % (b"0" * 30), ""),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }", "array-parse"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", "array-parse"),
        (b"__import__('os').abort()", "array-parse"),
        (b"{'descr': '<f8'}", "array-parse"),
        (b"[" * 3000, "array-parse"),
        (b"{'descr': '<f8', 'fortran_order': False, 'shape': (0x%s, 3)}" % (b"f" * 3900), ""),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_header_that_is_not_what_it_should_be_is_refused(header, slug):
    with warnings.catch_warnings():
        found = refusal(headed(header), NPY).type.slug
    assert found == slug or (not slug and found in {"array-parse", "batch-empty", "limit-rows"})


def test_arrays_that_are_no_table_or_too_many_rows_are_refused():
    for shape in ((), (3,), (1, 1, 3)):
        assert refusal(npy(np.zeros(shape)), NPY).type.slug == "batch-shape"
    assert refusal(npy(np.zeros((5, 3))), NPY).type.slug == "limit-rows"


def test_an_array_cut_anywhere_is_refused():
    body = npy(np.ones((2, 3)))
    for length in range(0, len(body), 7):
        assert refusal(body[:length], NPY).type.slug == "array-parse"
    assert refusal(body + b"\0", NPY).type.slug == "array-parse"


# The names of formats


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/json;q=0.2, application/x-npy;q=0.9", NPY),
        ("application/*, application/json;q=0", TableFormat.NDJSON),
        ("Text/*", TableFormat.CSV),
        (", ,", JSON),
        ('text/html; a="\\", text/csv", application/x-npy;q=0.1', NPY),
    ],
)
def test_the_answer_has_the_format_that_the_caller_likes_best(accept, expected):
    assert response_codec(accept).format is expected


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/json;q=0", "application/x-npy;q=nan", "application/json;q=x"],
)
def test_a_caller_who_takes_none_of_the_formats_is_told_which_there_are(accept):
    with pytest.raises(Problem) as caught:
        response_codec(accept)
    assert caught.value.type.slug == "not-acceptable"
    assert caught.value.members["supported"] == [codec.media_type for codec in CODECS]


def test_the_content_type_says_how_the_body_is_read():
    assert {codec.format for codec in CODECS} == set(TableFormat) - {TableFormat.EXCEL}
    assert request_codec("Application/JSON; charset=UTF-8")[0].format is JSON
    for spelling in ("header=Absent", "header*=utf-8''abs%65nt", 'HEADER="absent"'):
        assert request_codec(f"text/csv; {spelling}")[1]["header"] == "absent"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=utf-16"])
def test_other_content_types_are_refused_with_those_that_are_supported(content_type):
    with pytest.raises(Problem) as caught:
        request_codec(content_type)
    assert (caught.value.type.slug, caught.value.status) == ("media-type", 415)
    assert caught.value.members["supported"] == [codec.media_type for codec in CODECS]


def test_a_long_content_type_is_not_parsed(shared_client):
    """To parse 60 KB of parameters takes a fifth of a second."""
    registered(*stores(shared_client))
    body = b"height,weight,age\n170,70,40\n"
    for parameters, status in [("; a=b" * 190, 200), ("; a=b" * 200, 415)]:
        headers = {"Content-Type": f"text/csv{parameters}"}
        for path in ("/v1/models/people/log_prob", "/v1/datasets"):
            answer = shared_client.post(path, content=body, headers=headers)
            assert (answer.status_code == 415) == (status == 415)


def test_columns_that_are_ignored_may_have_one_name():
    names = ["more", "a", "more"]
    assert RowsShape(["a"], 10, ignores_extra=True).order_of(names) == [1]
    for shape, sent in (
        (RowsShape(["a"], 10), names),
        (RowsShape(["a"], 10, ignores_extra=True), ["a", "a"]),
    ):
        with pytest.raises(Problem) as refused:
            shape.order_of(sent)
        assert refused.value.members["twice"] == [sent[0]]
