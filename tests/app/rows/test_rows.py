import asyncio
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from app.problems.fields import named
from app.problems.problem import Problem
from app.rows.codecs import request_codec, response_codec
from app.rows.decode.json import decode_document, decode_numbers
from app.rows.decode.npy import decode_npy
from app.rows.model_types import ModelTypes
from app.rows.response_table import Chunk, row_errors
from app.rows.shape import Floats, RowsShape
from models_store.files.local_blobs import LocalBlobs
from tables.columns import Column
from tables.formats import MEDIA_TYPES, TableFormat
from tables.readers import plain_numbers
from tests.app.decoding import decode, decode_pieces

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


def test_lists_and_objects_give_the_same_rows():
    lists = from_json({"rows": [[1, 2.5, -3e4], [4, 5, 6]]})
    objects = from_json({"rows": [{"c": -3e4, "a": 1, "b": 2.5}, {"a": 4, "b": 5, "c": 6}]})
    assert lists.tolist() == objects.tolist() == [[1, 2.5, -3e4], [4, 5, 6]]
    assert lists.dtype == np.float64


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("as_objects", [False, True])
def test_a_list_of_rows_alone_is_read_as_the_member_rows_is(monkeypatch, compiled, as_objects):
    if not compiled:
        monkeypatch.setattr(plain_numbers, "load_loops", lambda: None)
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


@pytest.mark.fault(56)
@pytest.mark.parametrize("value", [True, False, "1.5", [1.0], {}])
def test_fault_056_only_numbers_are_numbers_and_the_problem_points_at_the_others(value):
    problem = refusal({"rows": [[1, 2, 3], [1, value, 3]]})
    assert problem.type.slug == "batch-value"
    assert [error.pointer for error in problem.errors] == ["/rows/1/1"]


def test_a_value_of_a_named_row_is_pointed_at_by_its_column():
    problem = refusal({"rows": [{"c": 3, "a": "1", "b": 2}]})
    assert [error.pointer for error in problem.errors] == ["/rows/0/a"]


@pytest.mark.fault(48)
def test_fault_048_a_number_beyond_float64_is_refused():
    assert refusal(b'{"rows": [[1e400, 2, 3]]}').type.slug == "value-nonfinite"
    assert refusal({"rows": [[10**310, 2, 3]]}).type.slug == "value-nonfinite"
    assert refusal({"rows": [{"a": 10**310, "b": 2, "c": 3}]}).type.slug == "value-nonfinite"


@pytest.mark.fault(47)
def test_fault_047_nan_is_not_json():
    assert refusal(b'{"rows": [[NaN, 2, 3]]}').type.slug == "json-nonfinite"


@pytest.mark.fault(55)
def test_fault_055_a_duplicate_key_is_refused_however_it_is_spelt():
    for body in (
        b'{"rows": [[1, 2, 3]], "rows": [[4, 5, 6]]}',
        b'{"rows": [[1, 2, 3]], "\\u0072ows": [[4, 5, 6]]}',
        b'{"rows": [{"a": 1, "a": 2, "b": 2, "c": 3}]}',
    ):
        assert refusal(body).type.slug == "json-duplicate-key"


@pytest.mark.fault(57)
@pytest.mark.parametrize("document", [{"rows": []}, {"rows": [[]]}, {"rows": [{}]}])
def test_fault_057_an_empty_batch_is_refused(document):
    assert refusal(document).type.slug in {"batch-empty", "dimension-mismatch", "columns-mismatch"}
    assert refusal({"rows": []}).type.slug == refusal([]).type.slug == "batch-empty"


@pytest.mark.fault(58)
def test_fault_058_a_wrong_width_says_what_was_expected():
    problem = refusal({"rows": [[1, 2], [3, 4]]})
    assert problem.type.slug == "dimension-mismatch"
    assert problem.members == {"expected": 3, "got": 2}


@pytest.mark.fault(59)
def test_fault_059_too_many_rows_are_refused():
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


@pytest.mark.fault(67)
@pytest.mark.parametrize("document", [[1, 2, 3], 1, {}, {"rows": 3}, {"rows": {}}])
def test_fault_067_a_body_without_rows_is_refused(document):
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


@pytest.mark.long
@pytest.mark.fault(310)
def test_fault_310_objects_of_next_to_nothing_are_bounded():
    names = [f"x{i}" for i in range(2000)]
    shape = RowsShape(names, max_rows=10_000_000)
    rows = [dict.fromkeys(names, 1.5), *({} for _ in range(600))]
    with pytest.raises(Problem) as caught:
        from_json(rows, shape)
    assert caught.value.type.slug == "limit-rows"
    assert from_json(rows[:500], shape).shape == (500, 2000)


@pytest.mark.fault(66)
def test_fault_066_a_huge_unknown_name_is_cut():
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


@pytest.mark.long
@pytest.mark.fault(30, 31)
@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", ">f8", "<f2", "<i4", ">i2", "<u8", "|u1"]),
        st.tuples(st.integers(1, 4), st.just(3)),
    ),
    st.booleans(),
)
def test_fault_030_031_npy_rows_are_read_whatever_their_dtype_and_order(array, fortran):
    body = npy(np.asfortranarray(array) if fortran else array)
    rows = decode(body, NPY, SHAPE)
    single = array.dtype.str[1:] in {"f2", "f4"}
    first = fortran and len(array) > 1  # one row has no order
    assert rows.dtype == (np.float32 if single and not first else np.float64)
    np.testing.assert_array_equal(rows, array.astype(rows.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy_rows_of_a_native_float_are_not_copied(dtype):
    body = npy(np.ones((2, 3), dtype))
    rows = decode_npy(body, SHAPE)
    assert np.shares_memory(rows, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_npy_formats_are_read(version):
    body = npy(np.ones((2, 3)), version=version)
    assert decode(body, NPY, SHAPE).shape == (2, 3)


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.complex128),
        np.zeros((2, 3), bool),
        np.zeros((2, 3), "S10"),
        np.zeros((2, 3), "U4"),
        np.zeros((2, 3), "M8[s]"),
        np.zeros((2, 3), np.longdouble),
    ],
    ids=lambda array: array.dtype.str,
)
def test_fault_029_arrays_of_anything_but_real_numbers_are_refused(array):
    assert refusal(npy(array), NPY).type.slug == "array-dtype"


@pytest.mark.fault(29)
@pytest.mark.parametrize("descr", ["<<f8", "><f8", "<f16", "f8,", "<f8 ", "", "<"])
def test_fault_029_a_type_that_numpy_does_not_know_is_refused(descr):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (1, 3), }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(24)
    assert refusal(body, NPY).type.slug == "array-dtype"


@pytest.mark.fault(26)
def test_fault_026_an_object_array_is_refused_and_never_unpickled(tmp_path):
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return canary.touch, ()

    body = npy(np.array([[Bomb()] * 3], dtype=object), allow_pickle=True)
    assert refusal(body, NPY).type.slug == "array-dtype"
    assert not canary.exists()


@pytest.mark.fault(32)
@pytest.mark.parametrize("shape", [(), (3,), (1, 1, 3)])
def test_fault_032_arrays_that_are_no_table_are_refused(shape):
    assert refusal(npy(np.zeros(shape)), NPY).type.slug == "batch-shape"


@pytest.mark.fault(27)
@pytest.mark.parametrize("shape", ["(1000000000000, 3)", "(0, 1000000000000000000000)", "(-1, 3)"])
def test_fault_027_a_header_that_lies_about_the_shape_allocates_nothing(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    problem = refusal(body, NPY)
    assert problem.type.slug in {"array-parse", "batch-empty", "limit-rows"}


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    "header",
    [
        b"__import__('os').abort()",
        b"{'descr': '<f8'}",
        b"[" * 3000,
        b"{'descr': '<f8', 'fortran_order': 0, 'shape': (1, 3)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': [1, 3]}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (0x%s, 3)}" % (b"f" * 3900),
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 0x%s)}" % (b"f" * 3900),
    ],
)
def test_fault_028_a_header_that_is_not_what_it_should_be_is_refused(header):
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24)
    with warnings.catch_warnings():
        assert refusal(body, NPY).type.slug == "array-parse"


@pytest.mark.long
@pytest.mark.fault(33)
def test_fault_033_an_array_cut_anywhere_is_refused():
    body = npy(np.ones((2, 3)))
    for length in range(len(body)):
        assert refusal(body[:length], NPY).type.slug == "array-parse"
    assert refusal(body + b"\0", NPY).type.slug == "array-parse"


@pytest.mark.parametrize("step", [1, 7, 100, 10**6])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_rows_are_read_whatever_the_pieces_they_come_in(step, order):
    shape = RowsShape(["a", "b", "c"], max_rows=10**6)
    array = np.random.default_rng(0).normal(size=(50 if step < 100 else 100_000, 3))
    body = npy(np.asarray(array, order=order))
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    np.testing.assert_array_equal(decode(pieces, NPY, shape), array)


def test_rows_that_have_no_finite_result_say_whose_fault_it_is():
    chunk = Chunk.of(np.array([[-1.0], [np.nan], [-np.inf]]), np.array([[0.0], [np.nan], [0.0]]))
    assert chunk.codes is not None
    assert [(error["row"], error["code"]) for error in row_errors(chunk.codes, start=10)] == [
        (11, "non_finite_input"),
        (12, "non_finite"),
    ]


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


@pytest.mark.fault(63)
@pytest.mark.parametrize(
    "spelling", ["header=Absent", "header*=utf-8''abs%65nt", 'HEADER="absent"']
)
def test_parameters_of_the_content_type_may_be_spelt_in_every_way(spelling):
    assert request_codec(f"text/csv; {spelling}")[1]["header"] == "absent"


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/json; charset=utf-16", "a/b, c"]
)
def test_fault_063_other_content_types_are_refused_with_those_that_are_supported(content_type):
    with pytest.raises(Problem) as caught:
        request_codec(content_type)
    assert (caught.value.type.slug, caught.value.status) == ("media-type", 415)
    assert caught.value.members["supported"] == list(MEDIA_TYPES)


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


def test_a_large_body_of_rows_leaves_the_event_loop_to_others(tmp_path):
    count = 60_000
    body = json.dumps({"rows": [[0.5, 1.5, 2.5]] * count}).encode()
    shape = RowsShape(SHAPE.columns, max_rows=count)

    async def decoded() -> tuple[Floats, int]:
        turns = 0
        task = asyncio.create_task(decode_pieces([body], JSON, shape, tmp_path))
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
