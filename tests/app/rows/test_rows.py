from typing import Any

import numpy as np
import pytest

from app.problems.fields import named
from app.problems.problem import Problem
from app.rows.codecs import CODECS, request_codec, response_codec
from app.rows.shape import RowsShape
from tabular.formats import TableFormat
from tests.app.rows.bodies import from_json, npy, refusal
from tests.app.serving import registered

JSON, NPY = TableFormat.JSON, TableFormat.NPY


def test_lists_and_objects_give_the_same_rows():
    lists = from_json({"rows": [[1, 2.5, -3e4], [4, 5, 6]]})
    objects = from_json({"rows": [{"c": -3e4, "a": 1, "b": 2.5}, {"a": 4, "b": 5, "c": 6}]})
    assert lists.tolist() == objects.tolist() == [[1, 2.5, -3e4], [4, 5, 6]]
    assert lists.dtype == np.float64


@pytest.mark.parametrize("as_objects", [False, True])
def test_a_list_of_rows_alone_is_read_as_the_member_rows_is(as_objects):
    lists: list[list[float | None]] = [[1, 2.5, -3e4], [4, None, 0.12345678901234567890123]]
    objects = [dict(zip("abc", row, strict=True)) for row in lists]
    rows: list[Any] = [*objects] if as_objects else [*lists]
    for document in (rows, rows[:1], rows[1:]):
        np.testing.assert_array_equal(from_json(document), from_json({"rows": document}))
    assert [e.pointer for e in refusal([*rows, 3]).errors] == ["/2"]


@pytest.mark.parametrize("body", [b"[[1,2,3]]}", b'{"rows": [[1,2,3]]', b"[[1,2,3]", b"[[1,2,3],]"])
def test_brackets_of_documents_must_fit(body):
    assert refusal(body).type.slug == "json-syntax"


def test_a_column_named_like_a_json_word_can_be_scored():
    shape = RowsShape(["true", "null"], max_rows=2)
    assert from_json({"rows": [{"true": 1, "null": 2}]}, shape).tolist() == [[1, 2]]


@pytest.mark.parametrize("value", [True, False, "1.5", [1.0], {}])
def test_only_numbers_are_numbers_and_the_problem_points_at_the_others(value):
    problem = refusal({"rows": [[1, 2, 3], [1, value, 3]]})
    assert problem.type.slug == "batch-value"
    assert [error.pointer for error in problem.errors] == ["/rows/1/1"]


def test_a_value_of_a_named_row_is_pointed_at_by_its_column():
    problem = refusal({"rows": [{"c": 3, "a": "1", "b": 2}]})
    assert [error.pointer for error in problem.errors] == ["/rows/0/a"]


def test_a_number_beyond_float64_is_refused():
    assert refusal(b'{"rows": [[1e400, 2, 3]]}').type.slug == "value-nonfinite"
    assert refusal({"rows": [[10**310, 2, 3]]}).type.slug == "value-nonfinite"
    assert refusal({"rows": [{"a": 10**310, "b": 2, "c": 3}]}).type.slug == "value-nonfinite"


def test_nan_is_not_json():
    assert refusal(b'{"rows": [[NaN, 2, 3]]}').type.slug == "json-nonfinite"


@pytest.mark.parametrize("document", [{"rows": []}, {"rows": [[]]}, {"rows": [{}]}])
def test_an_empty_batch_is_refused(document):
    assert refusal(document).type.slug in {"batch-empty", "dimension-mismatch", "columns-mismatch"}
    assert refusal({"rows": []}).type.slug == refusal([]).type.slug == "batch-empty"


def test_a_wrong_width_says_what_was_expected():
    problem = refusal({"rows": [[1, 2], [3, 4]]})
    assert problem.type.slug == "dimension-mismatch"
    assert problem.members == {"expected": 3, "got": 2}


def test_too_many_rows_are_refused():
    problem = refusal({"rows": [[1, 2, 3]] * 5})
    assert (problem.type.slug, problem.status) == ("limit-rows", 413)
    assert refusal(npy(np.zeros((5, 3))), NPY).type.slug == "limit-rows"


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"rows": [[1, 2, 3], [4, 5]]}, "/rows/1"),
        ({"rows": [[1, 2, 3], 4]}, "/rows/1"),
        ({"rows": [1, 2, 3]}, "/rows/0"),
        ({"rows": [{"a": 1, "b": 2, "c": 3}, [1, 2, 3]]}, "/rows/1"),
        ({"rows": [[1, 2, 3], {"a": 1, "b": 2, "c": 3}]}, "/rows/1"),
    ],
)
def test_rows_of_different_shapes_are_refused_by_place(document, pointer):
    problem = refusal(document)
    assert problem.type.slug == "batch-shape"
    assert [error.pointer for error in problem.errors] == [pointer]


@pytest.mark.parametrize("document", [[1, 2, 3], 1, {}, {"rows": 3}, {"rows": {}}])
def test_a_body_without_rows_is_refused(document):
    assert refusal(document).type.slug == "batch-shape"


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


def test_a_member_that_some_rows_lack_is_a_gap_of_those():
    rows = from_json({"rows": [{"a": 1}, {"c": 3, "b": 2, "a": 1}, {}]})
    nan = np.nan
    np.testing.assert_array_equal(rows, [[1, nan, nan], [1, 2, 3], [nan, nan, nan]])


def test_a_huge_unknown_name_is_cut():
    problem = refusal({"rows": [{"a": 1, "b": 2, "x" * 1_000_000: 3}]})
    assert len(problem.members["unknown"][0]) <= 128
    assert refusal({"rows": [[1, 2, 3]], "other": 1}).type.slug == "unknown-field"


@pytest.mark.parametrize(
    "document",
    [
        {"rows": [[1, None, 3]]},
        {"rows": [{"c": 3, "b": None, "a": 1}]},
        {"rows": [[3, None, 1]], "columns": ["c", "b", "a"]},
    ],
)
def test_null_is_a_missing_value(document):
    np.testing.assert_array_equal(from_json(document), [[1, np.nan, 3]])


def test_rows_that_are_lists_may_name_their_columns():
    rows = from_json({"columns": ["c", "a", "b"], "rows": [[3, 1, 2]]})
    assert rows.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("columns", "slug"),
    [
        (["a", "b"], "columns-mismatch"),
        (["a", "b", "z"], "columns-mismatch"),
        (["a", "b", "c", "c"], "columns-mismatch"),
        ("abc", "batch-shape"),
        ([1, 2, 3], "batch-shape"),
    ],
)
def test_names_that_are_not_the_models_are_refused(columns, slug):
    assert refusal({"rows": [[1, 2, 3]], "columns": columns}).type.slug == slug


def test_columns_that_are_named_twice_are_told():
    problem = refusal({"rows": [[1, 2, 3, 3, 3]], "columns": ["a", "b", "c", "c", "c"]})
    assert problem.members == {"missing": [], "unknown": [], "twice": ["c"]}
    assert problem.detail == "The columns are not those of the model. Given twice: c."


def test_of_many_missing_columns_the_first_are_named():
    assert (
        named({"Missing": list("abcdefg"), "Unknown": []}) == "Missing: a, b, c, d, e and 2 more."
    )


def test_names_beside_rows_that_are_objects_are_refused():
    document = {"rows": [{"a": 1, "b": 2, "c": 3}], "columns": ["a", "b", "c"]}
    assert refusal(document).type.slug == "batch-shape"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/x-npy", NPY),
        ("application/json;q=0.2, application/x-npy;q=0.9", NPY),
        ("application/*, application/json;q=0", TableFormat.NDJSON),
        ("text/html, */*;q=0.1", JSON),
        ("text/*", TableFormat.CSV),
        ("application/vnd.apache.parquet, text/csv;q=0.5", TableFormat.PARQUET),
        ("", JSON),
        (", ,", JSON),
        (",text/csv,", TableFormat.CSV),
        ("text/csv ; q = 0.1 , application/x-npy ; q = 0.2", NPY),
        ('text/html; a="x, text/csv", application/x-npy;q=0.1', NPY),
        ('text/html; a="\\", text/csv", application/x-npy;q=0.1', NPY),
    ],
)
def test_the_answer_has_the_format_that_the_caller_likes_best(accept, expected):
    assert response_codec(accept).format is expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "application/x-npy;q=nan"])
def test_a_caller_who_takes_none_of_the_formats_is_told_which_there_are(accept):
    with pytest.raises(Problem) as caught:
        response_codec(accept)
    assert caught.value.type.slug == "not-acceptable"
    assert "application/x-npy" in caught.value.members["supported"]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", JSON),
        ("Application/JSON; charset=UTF-8", JSON),
        ("application/x-npy", NPY),
    ],
)
def test_the_content_type_says_how_the_body_is_read(content_type, expected):
    assert request_codec(content_type)[0].format is expected


@pytest.mark.parametrize(
    "spelling", ["header=Absent", "header*=utf-8''abs%65nt", 'HEADER="absent"']
)
def test_parameters_of_the_content_type_may_be_spelt_in_every_way(spelling):
    assert request_codec(f"text/csv; {spelling}")[1]["header"] == "absent"


def test_a_long_content_type_is_not_parsed(shared_client):
    """To parse 60 KB of parameters takes a fifth of a second."""
    registered(shared_client.app.state.database, shared_client.app.state.blobs)
    body = b"height,weight,age\n170,70,40\n"
    for parameters, status in [("; a=b" * 190, 200), ("; a=b" * 200, 415)]:
        headers = {"Content-Type": f"text/csv{parameters}"}
        for path in ("/v1/models/people/log_prob", "/v1/datasets"):
            answer = shared_client.post(path, content=body, headers=headers)
            assert (answer.status_code == 415) == (status == 415)
    with pytest.raises(Problem):
        request_codec(f"text/csv{'; a' * 20_000}")


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/json; charset=utf-16", "a/b, c"]
)
def test_other_content_types_are_refused_with_those_that_are_supported(content_type):
    with pytest.raises(Problem) as caught:
        request_codec(content_type)
    assert (caught.value.type.slug, caught.value.status) == ("media-type", 415)
    assert caught.value.members["supported"] == [codec.media_type for codec in CODECS]


def test_the_last_value_of_a_key_that_comes_twice_counts():
    rows = from_json(b'{"rows": [{"a": 1, "a": 2, "b": 2, "c": 3}]}')
    assert rows.tolist() == [[2, 2, 3]]
