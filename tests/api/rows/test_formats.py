"""Every format of a request with every format of an answer, and what damage does to a request."""

import csv
import gzip
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings, strategies as st
from starlette.testclient import TestClient

from app.problems.problem import Problem
from app.rows.shape import Floats, RowsShape
from tabular.columns import Column
from tabular.formats import TableFormat
from tests.api.conftest import assert_refused, slug
from tests.api.serving import COLUMNS, MEAN, STD, registered, stores
from tests.api.wire import FORMATS, MEDIA_TYPE, decode, read, write
from tests.tables.files import arrow, parquet

NAMED = [kind for kind in FORMATS if kind is not TableFormat.NPY]
ROWS = np.random.default_rng(0).normal(size=(20, 3)) * STD.numpy() + MEAN.numpy()
NOISE = np.random.default_rng(1).normal(size=(20, 3))
SHUFFLED = [2, 0, 1]


@pytest.fixture(scope="module")
def shared_setting_values() -> dict[str, Any]:
    return {"max_score_rows": 20_000}


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    """One application with the model `people` for all tests of this module."""
    registered(*stores(shared_client))
    return shared_client


def ask(
    client: TestClient,
    what: str,
    body: bytes,
    kind: TableFormat,
    answer: TableFormat = TableFormat.NPY,
    **headers: str,
) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Content-Type": MEDIA_TYPE[kind], "Accept": MEDIA_TYPE[answer], **named}
    return client.post(f"/v1/models/people/{what}", content=body, headers=sent)


# The matrix


def test_lines_of_a_header_are_one_list(client):
    lines = [("Accept", "text/html"), ("Accept", "application/x-ndjson")]
    response = client.post("/v1/models/people/sample", json={"n": 2}, headers=lines)
    assert response.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize("answer", FORMATS)
@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_of_request_and_answer_are_independent(client, kind, answer):
    expected = ask(client, "inverse", write(TableFormat.NPY, COLUMNS, ROWS), TableFormat.NPY)
    response = ask(client, "inverse", write(kind, COLUMNS, ROWS), kind, answer)
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (
        200,
        MEDIA_TYPE[answer],
    )
    assert response.headers["x-model"] == "people:1"
    names, values = read(answer, response.content)
    assert names == ([] if answer in (TableFormat.JSON, TableFormat.NPY) else [*COLUMNS, "log_det"])
    np.testing.assert_array_equal(values, read(TableFormat.NPY, expected.content)[1])


@pytest.mark.parametrize("answer", FORMATS)
def test_log_prob_is_one_column(client, answer):
    body = write(TableFormat.NPY, COLUMNS, ROWS)
    names, values = read(answer, ask(client, "log_prob", body, TableFormat.NPY, answer).content)
    assert names == ([] if answer in (TableFormat.JSON, TableFormat.NPY) else ["log_prob"])
    plain = ask(client, "log_prob", body, TableFormat.NPY, TableFormat.JSON).json()
    np.testing.assert_array_equal(values[:, 0], plain["log_prob"])


@pytest.mark.parametrize("answer", FORMATS)
def test_few_and_many_samples_are_the_same_in_every_format(client, answer):
    def drawn(kind: TableFormat, n: int) -> Any:
        headers = {"Accept": MEDIA_TYPE[kind]}
        return client.post("/v1/models/people/sample", json={"n": n, "seed": 3}, headers=headers)

    for n in (1, 5000):
        response = drawn(answer, n)
        assert response.headers["x-seed"] == "3"
        names, values = read(answer, response.content)
        assert names == ([] if answer is TableFormat.NPY else COLUMNS)
        plain = read(TableFormat.NPY, drawn(TableFormat.NPY, n).content)[1]
        np.testing.assert_array_equal(values, plain)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_table_of_any_format_can_be_uploaded_and_read_back_in_any(client, kind):
    headers = {"Content-Type": MEDIA_TYPE[kind]}
    made = client.post("/v1/datasets", content=write(kind, COLUMNS, ROWS), headers=headers)
    assert made.status_code == 201
    names = [column["name"] for column in made.json()["columns"]]
    assert names == (["x1", "x2", "x3"] if kind is TableFormat.NPY else COLUMNS)
    for answer in FORMATS:
        location = made.headers["location"] + "/rows?offset=5&limit=9"
        response = client.get(location, headers={"Accept": MEDIA_TYPE[answer]})
        np.testing.assert_array_equal(read(answer, response.content)[1], ROWS[5:14])


def test_rows_beyond_the_end_of_a_dataset_are_none(client):
    headers = {"Content-Type": "text/csv"}
    made = client.post("/v1/datasets", content=b"a,b\n1,2\n3,5\n", headers=headers)
    location = made.headers["location"] + "/rows?offset=7"
    for answer in FORMATS:
        assert client.get(location, headers={"Accept": MEDIA_TYPE[answer]}).status_code == 200
    assert client.get(location).json()["rows"] == []


@pytest.fixture(scope="module")
def large(client: TestClient) -> tuple[str, np.ndarray]:
    """The URL of a dataset of several chunks, and its rows."""
    rows = np.random.default_rng(0).normal(size=(70_000, 2)).astype(np.float32)
    headers = {"Content-Type": MEDIA_TYPE[TableFormat.NPY]}
    body = write(TableFormat.NPY, ["a", "b"], rows)
    made = client.post("/v1/datasets", content=body, headers=headers)
    assert {column["dtype"] for column in made.json()["columns"]} == {"float32"}
    return made.headers["location"], rows


@pytest.mark.parametrize("answer", FORMATS)
def test_a_large_dataset_is_read_back_whole_in_pieces(client, large, answer):
    location, rows = large
    response = client.get(f"{location}/rows?limit=1000000", headers={"Accept": MEDIA_TYPE[answer]})
    np.testing.assert_array_equal(read(answer, response.content)[1].astype(np.float32), rows)


# Columns


@pytest.mark.parametrize("kind", NAMED)
def test_columns_are_matched_by_name(client, kind):
    shuffled = write(kind, [COLUMNS[i] for i in SHUFFLED], ROWS[:, SHUFFLED])
    straight = ask(client, "log_prob", write(kind, COLUMNS, ROWS), kind)
    assert ask(client, "log_prob", shuffled, kind).content == straight.content


@pytest.mark.parametrize("kind", NAMED)
def test_columns_that_are_missing_or_unknown_are_named(client, kind):
    response = ask(client, "log_prob", write(kind, ["height", "shoe", "age"], ROWS), kind)
    assert_refused(response, 422, "columns-mismatch")
    assert response.json()["missing"] == ["weight"]
    assert response.json()["unknown"] == ["shoe"]


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_of_another_width_and_too_many_are_refused(client, kind):
    response = ask(client, "log_prob", write(kind, COLUMNS[:2], ROWS[:, :2]), kind)
    assert slug(response) in {"columns-mismatch", "dimension-mismatch"}
    body = write(kind, COLUMNS, np.zeros((20_001, 3)))
    assert_refused(ask(client, "log_prob", body, kind), 413, "limit-rows")


def test_csv_without_a_header_is_in_the_models_order(client):
    body = write(TableFormat.CSV, COLUMNS, ROWS)
    bare = body.partition(b"\n")[2]
    named = ask(client, "log_prob", body, TableFormat.CSV)
    plain = ask(client, "log_prob", bare, TableFormat.CSV, Content_Type="text/csv; header=absent")
    assert plain.content == named.content


def test_json_lines_that_are_lists_are_in_the_models_order(client):
    body = b"".join(b"%b\n" % str(row).encode() for row in ROWS.tolist())
    named = ask(client, "log_prob", write(TableFormat.CSV, COLUMNS, ROWS), TableFormat.CSV)
    assert ask(client, "log_prob", body, TableFormat.NDJSON).content == named.content


def test_a_name_like_a_formula_survives_the_way_through_csv(client):
    registered(*stores(client), name="formulas", columns=["=a", "b", "'c"])
    headers = {"Accept": "text/csv"}
    drawn = client.post("/v1/models/formulas/sample", json={"n": 4, "seed": 1}, headers=headers)
    assert drawn.text.startswith("'=a,b,'c\n")
    headers = {"Content-Type": "text/csv"}
    url = "/v1/models/formulas/log_prob"
    assert client.post(url, content=drawn.content, headers=headers).status_code == 200


def test_a_model_with_a_column_called_log_det_has_another_name_for_ours(client):
    registered(*stores(client), name="logs", columns=["log_det", "b", "c"])
    headers = {"Content-Type": MEDIA_TYPE[TableFormat.NPY], "Accept": "text/csv"}
    body = write(TableFormat.NPY, COLUMNS, ROWS)
    response = client.post("/v1/models/logs/inverse", content=body, headers=headers)
    assert response.text.startswith("log_det,b,c,log_det_\n")


# Values


def _with_gap(kind: TableFormat) -> bytes:
    """Two rows, the first of which lacks its weight."""
    match kind:
        case TableFormat.JSON:
            return b'{"rows": [[170, null, 30], [170, 70, 30]]}'
        case TableFormat.NDJSON:
            return b'{"height":170,"weight":null,"age":30}\n{"height":170,"weight":70,"age":30}'
        case TableFormat.CSV:
            return b"height,weight,age\n170,,30\n170,70,30\n"
        case TableFormat.ARROW:
            weights = pa.array([None, 70], pa.int32())
            return arrow(pa.table({"height": [170, 170], "weight": weights, "age": [30.0, 30.0]}))
        case _:
            return write(kind, COLUMNS, np.array([[170, np.nan, 30], [170, 70, 30]]))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        *((kind, TableFormat.JSON) for kind in FORMATS),
        *((TableFormat.JSON, answer) for answer in FORMATS[1:]),
    ],
)
def test_a_missing_value_spoils_its_row_alone(client, kind, answer):
    response = ask(client, "log_prob", _with_gap(kind), kind, answer)
    assert response.status_code == 200
    _, values = read(answer, response.content)
    assert np.isfinite(values[:, 0]).tolist() == [False, True]
    if answer is TableFormat.JSON:
        (error,) = response.json()["row_errors"]
        assert (error["row"], error["code"]) == (0, "non_finite_input")
    if answer is TableFormat.NDJSON:
        first, second = map(_loads, response.text.splitlines())
        assert first["row_error"]["code"] == "non_finite_input"
        assert second.keys() == {"log_prob"}


def _loads(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document


def test_infinite_results_are_themselves_in_csv(client):
    rows = np.array([[1e308] * 3, ROWS[0]])
    body = write(TableFormat.NPY, COLUMNS, rows)
    text = ask(client, "log_prob", body, TableFormat.NPY, TableFormat.CSV).text
    assert text.splitlines()[1] in {"-inf", "nan"}


def test_numbers_are_written_with_the_marks_of_the_table_in_csv_alone(client):
    types = [Column(name=name, decimal=",").to_dict() for name in COLUMNS]
    registered(*stores(client), name="german", types=types)
    path, body = "/v1/models/german/sample", {"n": 3, "seed": 1}
    rows = client.post(path, json=body).json()["rows"]
    text = client.post(path, json=body, headers={"Accept": "text/csv"}).text
    found = list(csv.reader(io.StringIO(text)))[1:]
    assert [[float(cell.replace(",", ".")) for cell in row] for row in found] == rows
    assert all("," in cell for row in found for cell in row)
    scores = [
        client.post(f"/v1/models/{ref}/log_prob?space=model", json={"rows": [[0.1, 0.2, 0.3]]})
        for ref in ("german", "people")
    ]
    assert scores[0].json()["log_prob"] == scores[1].json()["log_prob"]


COLUMN_FAULTS = {
    "text": pa.array(["1", "2"]),
    "dictionary": pa.array(["1", "2"]).dictionary_encode(),
    "time": pa.array([1, 2], pa.timestamp("s")),
    "list": pa.array([[1.0], [2.0]]),
}


@pytest.mark.parametrize("column", COLUMN_FAULTS.values(), ids=list(COLUMN_FAULTS))
def test_columns_of_other_types_are_refused_by_name(client, column):
    table = pa.table({"height": [1.0, 2.0], "weight": column, "age": [1.0, 2.0]})
    response = ask(client, "log_prob", arrow(table), TableFormat.ARROW)
    assert_refused(response, 422, "batch-value")
    assert response.json()["column"] == "weight"


def test_nulls_and_text_in_parquet_are_as_in_arrow(client):
    weights = pa.array([None, 70], pa.int32())
    table = pa.table({"height": [170, 170], "weight": weights, "age": [30.0, 30.0]})
    response = ask(client, "log_prob", parquet(table), TableFormat.PARQUET, TableFormat.JSON)
    assert [value is None for value in response.json()["log_prob"]] == [True, False]
    table = table.set_column(1, "weight", pa.array(["1", "2"]))
    response = ask(client, "log_prob", parquet(table), TableFormat.PARQUET)
    assert (slug(response), response.json()["column"]) == ("batch-value", "weight")


NAMES = b"height,weight,age\n"
FAULTS: dict[str, tuple[TableFormat, bytes, int, str]] = {
    "csv text": (TableFormat.CSV, NAMES + b"1,2,3\n1,x,3\n", 422, "batch-value"),
    "csv ragged": (TableFormat.CSV, NAMES + b"1,2,3\n1,2,3,4\n", 422, "array-parse"),
    "csv no rows": (TableFormat.CSV, NAMES, 422, "batch-empty"),
    "csv double": (TableFormat.CSV, b"height,weight,age,age\n1,2,3,4\n", 422, "columns-mismatch"),
    "csv is npy": (TableFormat.CSV, write(TableFormat.NPY, COLUMNS, ROWS), 415, "media-type"),
    "ndjson text": (TableFormat.NDJSON, b'[1,2,3]\n[1,"2",3]\n', 422, "batch-value"),
    "ndjson ragged": (TableFormat.NDJSON, b"[1,2,3]\n[1,2]\n", 422, "batch-shape"),
    "ndjson deep": (TableFormat.NDJSON, b"[" * 100_000, 400, "json-syntax"),
    "ndjson syntax": (TableFormat.NDJSON, b"[1,2,3]\n[1,2,3\n", 400, "json-syntax"),
    "arrow cut": (
        TableFormat.ARROW,
        write(TableFormat.ARROW, COLUMNS, ROWS)[:-8],
        422,
        "array-parse",
    ),
    "arrow is csv": (TableFormat.ARROW, NAMES + b"1,2,3\n", 415, "media-type"),
    "parquet cut": (
        TableFormat.PARQUET,
        write(TableFormat.PARQUET, COLUMNS, ROWS)[:-1],
        422,
        "array-parse",
    ),
    "parquet is npz": (TableFormat.PARQUET, b"PK\x03\x04" + bytes(30), 415, "media-type"),
    "npy short": (TableFormat.NPY, write(TableFormat.NPY, COLUMNS, ROWS)[:-1], 422, "array-parse"),
}


@pytest.mark.parametrize(("kind", "body", "status", "expected"), FAULTS.values(), ids=list(FAULTS))
def test_a_bad_body_is_refused_with_its_reason(client, kind, body, status, expected):
    response = ask(client, "log_prob", body, kind)
    assert (response.status_code, slug(response)) == (status, expected)
    assert len(response.content) < 8192


@pytest.mark.parametrize("kind", [TableFormat.CSV, TableFormat.NDJSON])
def test_a_value_that_is_no_number_is_pointed_at(client, kind):
    body = {
        TableFormat.CSV: NAMES + b"1,2,3\n1,x,3\n",
        TableFormat.NDJSON: b'{"height":1,"weight":2,"age":3}\n{"height":1,"weight":"x","age":3}\n',
    }[kind]
    answer = ask(client, "log_prob", body, kind).json()
    assert (answer["row"], answer["column"]) == (2, "weight")
    assert answer["errors"][0]["pointer"] == "/1/weight"


# Codings


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_bodies_may_be_compressed(client, coding):
    pack = gzip.compress if coding == "gzip" else zstd.compress
    for kind in (TableFormat.JSON, TableFormat.NPY):
        plain = write(kind, COLUMNS, ROWS)
        packed = ask(client, "log_prob", pack(plain), kind, Content_Encoding=coding)
        assert packed.content == ask(client, "log_prob", plain, kind).content


@pytest.mark.parametrize("answer", [TableFormat.CSV, TableFormat.NPY])
def test_answers_of_text_are_compressed_for_those_who_ask(client, answer):
    def drawn(accept_encoding: str, n: int) -> Any:
        headers = {"Accept": MEDIA_TYPE[answer], "Accept-Encoding": accept_encoding}
        asked = {"n": n, "seed": 3}
        with client.stream(
            "POST", "/v1/models/people/sample", json=asked, headers=headers
        ) as response:
            return response.headers, b"".join(response.iter_raw())

    for n in (500, 12_000):
        plain_headers, plain = drawn("identity", n)
        assert "content-encoding" not in plain_headers
        headers, packed = drawn("gzip", n)
        if answer is TableFormat.CSV:
            assert plain_headers["vary"] == headers["vary"] == "Accept, Accept-Encoding"
            assert headers["content-encoding"] == "gzip"
            packed = gzip.decompress(packed)
        else:
            assert "content-encoding" not in headers
        assert read(answer, packed)[1].tolist() == read(answer, plain)[1].tolist()


# Damage

WHOLE: dict[TableFormat, bytes] = {kind: write(kind, COLUMNS, ROWS[:3]) for kind in FORMATS}
SHAPE = RowsShape(COLUMNS, max_rows=50)
ATTEMPTS = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
IN_PROCESS = [kind for kind in FORMATS if kind is not TableFormat.PARQUET]


def damaged(data: st.DataObject, kind: TableFormat) -> bytes:
    body = bytearray(WHOLE[kind])
    way = data.draw(st.sampled_from(["cut", "flip", "splice", "insert"]))
    place = data.draw(st.integers(0, len(body) - 1))
    match way:
        case "cut":
            del body[place:]
        case "flip":
            for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
                body[at] = data.draw(st.integers(0, 255))
        case "splice":
            other = WHOLE[data.draw(st.sampled_from(FORMATS))]
            body[place:] = other[data.draw(st.integers(0, len(other) - 1)) :]
        case _:
            body[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    return bytes(body)


@pytest.mark.parametrize("kind", IN_PROCESS)
@ATTEMPTS
@given(data=st.data())
def test_a_damaged_body_is_rows_of_the_right_shape_or_a_problem_of_the_caller(kind, data):
    outcome = rows_or_problem(damaged(data, kind), kind)
    if isinstance(outcome, Problem):
        assert 400 <= outcome.status < 500
    else:
        assert outcome.shape[1] == 3
        assert 1 <= len(outcome) <= 50


def rows_or_problem(body: bytes, kind: TableFormat) -> Floats | Problem:
    try:
        return decode(body, kind, SHAPE)
    except Problem as problem:
        return problem


@settings(parent=ATTEMPTS, max_examples=3)
@given(data=st.data())
def test_a_damaged_parquet_file_never_is_an_error_of_ours(client, data):
    response = ask(client, "log_prob", damaged(data, TableFormat.PARQUET), TableFormat.PARQUET)
    assert response.status_code < 500
