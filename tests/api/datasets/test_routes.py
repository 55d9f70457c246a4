import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import openpyxl  # type: ignore[import-untyped]  # it has no types
import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it has no types
import pytest

from models_store.errors import DatabaseBusyError, DatabaseUnavailableError
from tests.api.conftest import (
    CSV,
    JSON,
    TABLE,
    asgi_scope,
    assert_nothing_was_left,
    assert_refused,
    files_of,
)
from tests.tables.files import npy

NPY = {"Content-Type": "application/x-npy"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}


MIXED = (
    b",name,size,born,price,zip,note\n"
    + b"".join(
        b'%d,"n%d, x",%s,%02d/03/2021,"%d,%02d",0%d,\n'
        % (i + 1, i, b"SML"[i % 3 : i % 3 + 1], i % 28 + 1, i * 7, i % 100, i % 4)
        for i in range(60)
    )
    + b'61,"n\n60",M,,"1,5",01,\n'
)


def upload(client, body=TABLE, headers=CSV, **params):
    return client.post("/v1/datasets", content=body, headers=headers, params=params)


RANDOM = np.random.default_rng(0).random((9, 2))


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def workbook(**sheets: Sequence[Sequence[Any]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_a_workbook_becomes_a_dataset_by_its_type_or_its_suffix(client):
    rows: list[list[Any]] = [["height", "site"], *([150 + i / 2, "ab"[i % 2]] for i in range(30))]
    book = workbook(one=rows, two=[["x"], [1.5], [2.5], [7.5]])
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    created = upload(client, book, {"Content-Type": kind}).json()
    assert [column["type"] for column in created["columns"]] == ["number", "category"]
    found = client.get(f"/v1/datasets/{created['id']}/rows", params={"limit": 2}).json()
    assert found["rows"] == [[150.0, "a"], [150.5, "b"]]
    form = client.post("/v1/datasets", files={"file": ("t.xlsx", book, "application/zip")})
    assert form.json()["rows"] == 30
    second = upload(client, book, {"Content-Type": kind}, sheet="two").json()
    assert [column["name"] for column in second["columns"]] == ["x"]
    assert_refused(upload(client, book, {"Content-Type": kind}, sheet="no"), 422, "dataset-parse")


def test_rows_keep_the_cells_of_rare_levels(client):
    table = "town,x\n" + "".join(f"town {i % 9},{i}.5\n" for i in range(60))
    created = upload(client, table.encode(), max_levels=3).json()
    assert (created["columns"][0]["other"], len(created["columns"][0]["levels"])) == (True, 3)
    for step in (1, 7):
        found = client.get(
            f"/v1/datasets/{created['id']}/rows", params={"limit": 60, "step": step}
        ).json()["rows"]
        assert found == [[f"town {i % 9}", i + 0.5] for i in range(0, 60, step)]


def test_a_csv_file_becomes_a_dataset(client):
    response = upload(client, name="people")
    assert response.status_code == 201
    dataset = response.json()
    assert response.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["rows"]) == ("people", 4)
    assert [column["name"] for column in dataset["columns"]] == ["height", "weight"]
    assert dataset["columns"][0]["mean"] == pytest.approx(173.575)
    assert dataset["columns"][0]["distinct"] == 4
    assert len(dataset["sha256"]) == 64
    assert client.get(response.headers["location"]).json() == dataset


def test_a_content_type_may_say_that_there_is_no_header(client, blobs):
    body, content_type = b"1,2\n4,5\n3,9\n", 'TEXT/CSV;Header="Absent"'
    keyed = {"Content-Type": content_type, "Idempotency-Key": "k"}
    dataset = upload(client, body, keyed).json()
    assert (dataset["rows"], [column["name"] for column in dataset["columns"]]) == (3, ["x1", "x2"])
    same = upload(client, body, {**CSV, "Idempotency-Key": "k"}, header="false")
    assert same.json() == dataset, "the same bytes, read in the same way"
    assert all(dataset["id"] in key for key in blobs.keys("datasets")), "nothing is stored twice"
    part = {"file": ("t.csv", body, content_type)}
    assert client.post("/v1/datasets", files=part).json()["rows"] == 3


def test_text_in_another_charset_is_refused_however_it_comes(client):
    content_type = "text/csv; charset=iso-8859-1"
    raw = upload(client, TABLE, {"Content-Type": content_type})
    form = client.post("/v1/datasets", files={"file": ("people.csv", TABLE, content_type)})
    for response in (raw, form):
        assert_refused(response, 415, "media-type")
        assert "text/csv" in response.json()["supported"]
    assert upload(client, TABLE, {"Content-Type": "text/csv; charset=utf-8"}).status_code == 201


def test_options_tell_how_to_read_a_file(client):
    body = b"1;2\n3;\n4;7\n5;7\n"
    response = upload(client, body, header="false", delimiter=";", missing="drop", constant="drop")
    assert response.status_code == 201
    assert response.json()["rows"] == 3
    assert [column["name"] for column in response.json()["columns"]] == ["x1", "x2"]


def test_a_form_tells_the_format_by_type_or_name(client):
    for kind, name in (("text/csv; charset=utf-8", "a"), ("application/octet-stream", "a.CSV")):
        response = client.post("/v1/datasets", files={"file": (name, TABLE, kind)})
        assert response.json()["rows"] == 4


def test_a_file_name_is_a_label_and_never_a_path(client, settings):
    for file_name, label in (
        ("../../etc/passwd", "passwd"),
        ("..\\x.csv", "x"),
        ("C" * 4000, "C" * 128),
        ("\u202ea.csv", "a"),
    ):
        files = {"file": (file_name, TABLE, "text/csv")}
        assert client.post("/v1/datasets", files=files).json()["name"] == label
    files = {"file": ("a.csv", TABLE, "text/csv")}
    named = client.post("/v1/datasets", files=files, params={"name": "other"})
    assert named.json()["name"] == "other"
    assert {path.name for path in files_of(settings)} == {"table.npy", "table.parquet"}


REFUSED = {
    "empty file": (b"", CSV, 400, "dataset-empty"),
    "header only": (b"a,b\n", CSV, 422, "dataset-empty"),
    "overflow": (b"[[1e400, 2], [3, 4]]", JSON, 422, "dataset-nonfinite"),
    "pickle": (npy(np.array([[{}], [1]], object)), NPY, 422, "dataset-pickle-forbidden"),
    "complex": (npy(np.ones((3, 2), complex)), NPY, 422, "dataset-dtype"),
    "one-dimensional": (npy(np.arange(5.0)), NPY, 422, "dataset-shape"),
    "truncated": (npy(RANDOM)[:-3], NPY, 422, "dataset-truncated"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, NPY, 415, "media-type"),
    "cut parquet": (parquet(a=[1.0, 2.0])[:-8], PARQUET, 422, "dataset-parse"),
    "npy as csv": (npy(RANDOM), CSV, 415, "media-type"),
    "octet stream": (TABLE, {"Content-Type": "application/octet-stream"}, 415, "media-type"),
    "no type": (TABLE, {}, 415, "media-type"),
}


@pytest.mark.parametrize(("body", "headers", "status", "slug"), REFUSED.values(), ids=REFUSED)
def test_a_bad_file_is_refused_and_leaves_nothing(
    shared_client, shared_settings, body, headers, status, slug
):
    assert_refused(upload(shared_client, body, headers), status, slug)
    assert_nothing_was_left(shared_client, shared_settings)


def test_an_option_that_is_none_or_out_of_range_is_refused(shared_client, shared_settings):
    for slug, option in (
        ("unknown-parameter", {"separator": ";"}),
        ("unknown-parameter", {"source_url": "http://169.254.169.254/"}),
        ("validation", {"delimiter": "ab"}),
        ("validation", {"types": "x"}),
        ("validation", {"types": '{"height": "text"}'}),
        ("validation", {"datetime_format": "%Q"}),
        ("validation", {"decimal": ",", "thousands": ","}),
        ("validation", {"max_levels": 0}),
        ("validation", {"name": "a\0b"}),
        ("validation", {"exclude": "[" * 20_000}),
    ):
        assert_refused(upload(shared_client, **option), 422, slug)
    assert_nothing_was_left(shared_client, shared_settings)


class TestLimits:
    @pytest.fixture
    def setting_values(self):
        return {"max_upload_bytes": 2000, "max_rows": 50, "max_columns": 3, "max_body_bytes": 1024}

    def test_a_file_over_a_limit_is_refused(self, client, settings):
        rows = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(60))
        assert_refused(upload(client, b"x" * 2001), 413, "limit-body")
        streamed = upload(client, (b"1,2\n" * 100 for _ in range(20)))  # of unknown length
        assert_refused(streamed, 413, "limit-body")
        assert_refused(upload(client, rows), 413, "limit-rows")
        assert_refused(upload(client, b"a,b,c,d\n1,2,3,4\n2,3,4,6\n"), 422, "limit-columns")
        assert_nothing_was_left(client, settings)


def test_a_database_that_turns_the_row_away_leaves_no_file(client, settings, registry, monkeypatch):
    def fail(_new, **_options):
        raise DatabaseBusyError

    monkeypatch.setattr(registry, "add_dataset", fail)
    response = upload(client)
    assert_refused(response, 503, "db-busy")
    assert "retry-after" in response.headers
    assert files_of(settings) == []


def test_a_connection_that_is_lost_after_the_commit_leaves_no_row_without_its_file(
    client, registry, monkeypatch
):
    add = registry.add_dataset

    def lose_the_answer(new, **options):
        add(new, **options)
        raise DatabaseUnavailableError

    monkeypatch.setattr(registry, "add_dataset", lose_the_answer)
    assert_refused(upload(client), 503, "db-unavailable")
    [dataset] = client.get("/v1/datasets").json()["items"]
    assert client.get(f"/v1/datasets/{dataset['id']}/rows").status_code == 200


def test_datasets_are_listed_newest_first_in_pages(client):
    ids = [upload(client).json()["id"] for _ in range(3)]
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ids[:0:-1]
    second = client.get("/v1/datasets", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in second["items"]] == ids[:1]
    assert second["next_cursor"] is None


def test_a_deleted_dataset_is_gone_with_its_file(client, settings):
    location = upload(client).headers["location"]
    response = client.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    assert_refused(client.get(location), 404, "not-found")
    assert_refused(client.delete(location), 404, "not-found")
    assert_nothing_was_left(client, settings)


class TestRows:
    @pytest.fixture
    def location(self, client):
        rows = b"=cmd,b\n" + b"".join(b"%d,%d.25\n" % (2 * i, i * i) for i in range(10))
        return upload(client, rows).headers["location"] + "/rows"

    def test_rows_come_back_as_json(self, client, location):
        content = client.get(location, params={"offset": 2, "limit": 2}).json()
        assert content == {
            "columns": ["=cmd", "b"],
            "rows": [[4, 4.25], [6, 9.25]],
            "offset": 2,
            "total": 10,
        }

    def test_a_table_of_one_column_is_a_table_in_npy_too(self, client):
        location = upload(client, b"x\n1.5\n2.5\n").headers["location"] + "/rows"
        response = client.get(location, headers={"Accept": "application/x-npy"})
        assert np.load(io.BytesIO(response.content)).tolist() == [[1.5], [2.5]]

    def test_a_step_takes_rows_from_all_parts_of_the_table(self, client, location):
        response = client.get(location, params={"offset": 1, "limit": 3, "step": 4})
        assert response.json()["rows"] == [[2, 1.25], [10, 25.25], [18, 81.25]]
        huge = {"limit": 2**53, "step": 2**53}
        assert client.get(location, params=huge).json()["rows"] == [[0, 0.25]]

    def test_a_step_over_many_chunks_takes_the_same_rows(self, client):
        rows = np.arange(600_000.0).reshape(-1, 2)
        location = upload(client, npy(rows), NPY).headers["location"] + "/rows"
        wanted = {"offset": 3, "limit": 2**53, "step": 2}
        response = client.get(location, params=wanted, headers={"Accept": "application/x-npy"})
        np.testing.assert_array_equal(np.load(io.BytesIO(response.content)), rows[3::2])

    def test_rows_beyond_the_end_are_none_and_the_best_liked_format_is_given(
        self, client, location
    ):
        assert client.get(location, params={"offset": 10}).json()["rows"] == []
        assert_refused(client.get(location, headers={"Accept": "image/png"}), 406, "not-acceptable")
        accept = "text/csv;q=0.5, application/x-npy;q=0.9, image/png"
        response = client.get(location, headers={"Accept": accept})
        assert response.headers["content-type"] == "application/x-npy"
        rows = np.load(io.BytesIO(response.content))
        np.testing.assert_array_equal(rows[:, 1], np.arange(10) ** 2 + 0.25)

    def test_a_missing_file_is_said_to_be_missing(self, client, settings, location):
        files_of(settings)[0].unlink()
        assert_refused(client.get(location), 503, "artifact-missing")
        assert client.get("/readyz").status_code == 200


def test_a_caller_who_leaves_early_leaves_nothing(client, settings):
    messages = iter(
        [
            {"type": "http.request", "body": TABLE * 10_000, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    client.portal.call(client.app, asgi_scope("/v1/datasets", "text/csv"), receive, send)
    assert sent == []
    assert_nothing_was_left(client, settings)
    assert 'route="/v1/datasets",status="499"} 1.0' in client.get("/metrics").text


class TestForms:
    def test_options_come_in_a_form_before_the_file(self, client):
        fields = {"types": '{"zip": "integer"}', "exclude": ["born", "note"], "name": "things"}
        files = {"file": ("t.csv", MIXED, "text/csv")}
        query = {"name": "other", "exclude": "zip", "max_levels": 3}
        dataset = client.post("/v1/datasets", params=query, data=fields, files=files).json()
        assert (dataset["options"]["max_levels"], dataset["options"]["exclude"]) == (
            3,
            fields["exclude"],
        )
        kinds = {column["name"]: column["type"] for column in dataset["columns"]}
        assert (dataset["name"], kinds["zip"], kinds["born"]) == ("things", "integer", "ignored")

    def test_a_bad_option_of_a_form_is_refused_as_in_the_query(self, client, settings):
        for fields, status, slug in (
            ({"separator": ";"}, 422, "unknown-parameter"),
            ({"types": "[" * 5_000}, 422, "validation"),
            ({"datetime_format": "%Q"}, 422, "validation"),
            ({"name": ["a", "b"]}, 422, "validation"),
            ({"types": "x" * 60_000}, 400, "multipart"),
        ):
            files = {"file": ("t.csv", TABLE, "text/csv")}
            response = client.post("/v1/datasets", data=fields, files=files)
            assert_refused(response, status, slug)
            assert "Value error" not in response.text
            if fields == {"datetime_format": "%Q"}:
                assert upload(client, **fields).json()["errors"] == response.json()["errors"]
        assert_nothing_was_left(client, settings)
