import csv
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no type information
import pytest
import torch
from starlette.testclient import TestClient

from app.http import downloads
from app.http.downloads import result_path
from flows import CompiledFlow, MixedColumn, MixedSpec, NsfSpec, build, compile_flow, fit_encoding
from flows.mixed.companion_fitting import fit_companion
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.jobs.parents import advance_all
from models_store.jobs.retention import JobRetention
from tabular.columns import Column
from tabular.formats import MEDIA_TYPES, TableFormat
from tests.api.conftest import CSV, JSON, assert_refused
from tests.api.serving import COLUMNS, a_flow, registered, stores, uploaded
from tests.api.wire import MEDIA_TYPE, read
from workers.supervisor.supervisor import Supervisor

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal([40, 170, 5, 70], [15, 10, 1, 12], size=(400, 4))
NAMES = ["age", "height", "other", "weight"]


@functools.cache
def flow() -> CompiledFlow:
    return compile_flow(a_flow())


UNDIVIDED = dict.fromkeys(("total_rows", "part_rows", "span", "pieces"))


@pytest.fixture
def setting_values() -> dict[str, Any]:
    return {"max_result_bytes": 2**20}


@pytest.fixture(autouse=True)
def versions(database: Database, blobs: Blobs) -> None:
    """Two versions of `people`; the first is in production."""
    for seed in (0, 1):
        registered(database, blobs, seed=seed)


def start(client: TestClient, kind: str, key: str | None = None, **body: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(f"/v1/jobs/{kind}", json={"model": "people", **body}, headers=headers)


def test_a_scoring_names_the_version_that_it_uses(client):
    client.put("/v1/models/people/aliases/production", content='{"version": 1}', headers=JSON)
    dataset_id = uploaded(client, TABLE, NAMES)
    response = start(client, "scoring", model="people@production", dataset_id=dataset_id)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"], job["result"]) == ("scoring", "queued", None)
    assert job["model"] == {"name": "people", "version": 1}
    assert job["request"] == UNDIVIDED | {
        "model": "people:1",
        "dataset_id": dataset_id,
        "columns": COLUMNS,
        "output": "parquet",
        "include_rows": False,
        "parts": False,
        "explain": False,
    }
    assert client.get("/v1/jobs?kind=scoring&model_name=people").json()["items"] == [
        {name: value for name, value in job.items() if name not in ("request", "queue")}
    ]
    assert_refused(client.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset-in-use")


def test_a_sampling_shows_the_seed_that_was_chosen(client):
    job = start(client, "sampling", n=10).json()
    assert job["request"].pop("seed") >= 0
    known = {"model": "people:2", "n": 10, "output": "parquet", "context": None}
    assert job["request"] == UNDIVIDED | known
    assert job["model"] == {"name": "people", "version": 2}


def test_a_repeated_request_gets_the_first_job_though_the_alias_has_moved(client):
    alias = "/v1/models/people/aliases/a"
    client.put(alias, content='{"version": 1}', headers=JSON)
    first = start(client, "sampling", key="k", model="people@a", n=5)
    client.delete(alias)
    again = start(client, "sampling", key="k", model="people@a", n=5, context=None)
    assert again.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    other = start(client, "sampling", key="k", model="people@a", n=6)
    assert_refused(other, 422, "idempotency-key-reused")


def test_missing_columns_are_counted_and_the_first_is_named(client):
    dataset_id = uploaded(client, TABLE[:, :2], ["age", "size"])
    response = start(client, "scoring", dataset_id=dataset_id)
    [error] = assert_refused(response, 422, "unknown-column")["errors"]
    assert error["pointer"] == "/dataset_id"
    assert "lacks 2 of the 3 columns of the model; the first is 'height'" in error["detail"]


def test_what_cannot_work_is_refused(client):
    for expected, kind, body in (
        ("not-found", "sampling", {"model": "nobody", "n": 1}),
        ("not-found", "sampling", {"model": "people:9", "n": 1}),
        ("validation", "sampling", {"n": 0}),
        ("limit-result", "sampling", {"n": 2**50}),
        ("context-mismatch", "sampling", {"n": 5, "context": [[1.0]]}),
        ("validation", "sampling", {"n": 5, "output": "json"}),
        ("unknown-field", "sampling", {"n": 5, "rows": 5}),
        ("not-found", "scoring", {"dataset_id": "ds_" + "0" * 32}),
        ("validation", "scoring", {"dataset_id": "table"}),
        ("validation", "imputation", {"dataset_id": "ds_" + "0" * 32, "level": 1}),
        ("not-found", "imputation", {"dataset_id": "ds_" + "0" * 32}),
    ):
        status = 404 if expected == "not-found" else 422
        assert_refused(start(client, kind, **body), status, expected)
    assert client.get("/v1/jobs?state=queued").json()["items"] == []


def test_a_scoring_from_upload_to_download(client, supervisor):
    job_id = start(
        client, "scoring", model="people:1", dataset_id=uploaded(client, TABLE, NAMES)
    ).json()["id"]
    assert_refused(client.get(f"/v1/jobs/{job_id}/result"), 409, "result-not-ready")

    assert supervisor.run_next()

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded", job["error"]
    assert job["progress"]["rows"] == job["progress"]["total_rows"] == 400
    result = job["result"]
    assert set(result) == {"url", "media_type", "bytes", "sha256", "rows"}
    response = client.get(result["url"])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    assert response.headers["content-disposition"] == f'attachment; filename="{job_id}.parquet"'
    assert response.headers["etag"] == f'"{result["sha256"]}"'
    assert len(response.content) == result["bytes"]
    table = pq.read_table(io.BytesIO(response.content))
    assert table.column_names == ["log_prob"], "this version has no held-out rows"
    exact = flow().log_prob(TABLE[:, [1, 3, 0]])
    assert table["log_prob"].to_numpy() == pytest.approx(exact, abs=1e-6)
    assert job["metrics"]["mean_log_prob"] == pytest.approx(exact.mean())

    part = client.get(result["url"], headers={"Range": "bytes=4-19"})
    assert part.status_code == 206
    assert part.content == response.content[4:20]
    assert part.headers["content-range"] == f"bytes 4-19/{result['bytes']}"
    stale = client.get(result["url"], headers={"Range": "bytes=4-19", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, response.content)
    beyond = client.get(result["url"], headers={"Range": f"bytes={result['bytes']}-"})
    assert_refused(beyond, 416, "range")
    head = client.head(result["url"])
    assert (head.headers["content-length"], head.content) == (str(result["bytes"]), b"")

    events = client.get(f"/v1/jobs/{job_id}/events?format=json").json()["items"]
    told = [event["data"]["rows"] for event in events if event["event"] == "epoch"]
    assert told == [400]


def test_samples_in_a_file_are_those_of_the_route_until_it_is_deleted(client, supervisor, blobs):
    job_id = start(client, "sampling", n=300, seed=7, output="npy").json()["id"]

    assert supervisor.run_next()

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded", job["error"]
    values = np.load(io.BytesIO(client.get(job["result"]["url"]).content), allow_pickle=False)
    answer = client.post("/v1/models/people/sample", json={"n": 300, "seed": 7}).json()
    assert np.array_equal(values, np.array(answer["rows"]))

    assert client.delete(job["result"]["url"]).status_code == 204
    assert blobs.keys("results") == []
    after = client.get(f"/v1/jobs/{job_id}").json()
    assert (after["state"], after["result"]) == ("succeeded", None)
    for ask in (client.get, client.delete):
        assert_refused(ask(job["result"]["url"]), 410, "result-deleted")


def finished(client: TestClient, supervisor: Supervisor, kind: str, **body: Any) -> str:
    """The URL of the file of a job that was started and is done."""
    job = start(client, kind, **body).json()
    assert supervisor.run_next()
    return f"/v1/jobs/{job['id']}/result"


def test_a_result_that_is_deleted_while_it_is_fetched_is_gone(client, supervisor, monkeypatch):
    url = finished(client, supervisor, "sampling", model="people:1", n=20)

    def delete(*given: Any) -> Path:
        path = result_path(*given)
        state = client.app.state
        state.blobs.delete(state.jobs.delete_result("default", url.split("/")[3])["key"])
        return path

    monkeypatch.setattr(downloads, "result_path", delete)
    assert_refused(client.get(url), 410, "result-deleted")


@pytest.mark.parametrize("output", ["parquet", "csv", "npy"])
def test_a_result_comes_in_its_own_format_alone(client, supervisor, output):
    url = finished(client, supervisor, "sampling", model="people:1", n=300, output=output)
    whole = client.get(url)
    assert "Accept" in whole.headers["vary"].split(", ")
    several = client.get(url, headers=[("Accept", "text/html"), ("Accept", "*/*;q=0.1")])
    assert several.content == whole.content
    kind = MEDIA_TYPES[whole.headers["content-type"].partition(";")[0]]
    names, values = read(kind, whole.content)
    assert (names, values.shape) == (
        [] if output == "npy" else ["height", "weight", "age"],
        (300, 3),
    )
    for accept in ("text/html", "application/x-ndjson"):
        assert_refused(client.get(url, headers={"Accept": accept}), 406, "not-acceptable")


def test_other_jobs_and_those_that_were_cancelled_have_no_file(client):
    body = {"model_name": "ring", "target": {"potential": "U1"}}
    other = client.post("/v1/jobs/variational", json=body).json()["id"]
    cancelled = start(client, "sampling", n=5).json()["id"]
    client.post(f"/v1/jobs/{cancelled}/cancel")
    for ask in (client.get, client.delete):
        assert_refused(ask(f"/v1/jobs/{other}/result"), 404, "job-without-result")
        refused = assert_refused(ask(f"/v1/jobs/{cancelled}/result"), 409, "result-not-ready")
        assert refused["detail"] == f"Job {cancelled} is cancelled and has no result."
    assert_refused(client.get("/v1/jobs/job_none/result"), 404, "not-found")


def test_a_file_that_is_damaged_or_not_whole_is_not_sent(client, supervisor, blobs):
    url = finished(client, supervisor, "sampling", n=300)
    [key] = blobs.keys("results")
    for content in (b"PAR1", bytes(blobs.path(key).stat().st_size + 1)):
        blobs.path(key).write_bytes(content)
        assert_refused(client.get(url), 503, "artifact-corrupt")
    blobs.delete(key)
    assert_refused(client.get(url), 503, "artifact-missing")


@pytest.mark.parametrize("setting_values", [{"bulk_part_rows": 150}])
def test_a_job_that_is_resumed_while_its_parts_are_forgotten_has_all_rows(
    client, supervisor, database
):
    job = start(client, "sampling", n=400, output="csv").json()
    advance_all(database)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert len(JobRetention(database).forget_children(keep_s=0, limit=10)) == 3
    client.post(f"/v1/jobs/{job['id']}/resume")
    while client.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
        supervisor.run_next()
    assert len(client.get(f"/v1/jobs/{job['id']}/result").text.splitlines()) == 1 + 400


@pytest.mark.parametrize("setting_values", [{"bulk_part_rows": 150}])
def test_rows_that_a_job_scores_in_parts_are_watched(client, supervisor, database, blobs):
    registered(
        database, blobs, held_out={"rows": 40, "quantiles": np.linspace(-60, 0, 1001).tolist()}
    )
    dataset_id = uploaded(client, TABLE, NAMES)
    job = start(client, "scoring", model="people:3", dataset_id=dataset_id).json()
    assert job["role"] == "parent"
    while client.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
        supervisor.run_next()
    assert client.get("/v1/models/people:3/monitoring").json()["rows"] == 400


LINES = ["id,cut,price,sold,on,doors,comment"]
PRICES = np.random.default_rng(3)
for number in range(400):
    cut = ["Ideal", "Good; really", '"Fair, new"', ""][number % 4]
    price = "" if number % 9 == 0 else f"{PRICES.lognormal(2, 1):.2f}"
    day = f"20{10 + number % 12}-0{1 + number % 9}-1{number % 7}"
    doors = 3 + 2 * (number % 2)
    LINES.append(
        f"r{number},{cut},{price},{'yes' if number % 3 else 'no'},{day},{doors},text {number}"
    )
BODY = "\n".join(LINES).encode()


@pytest.fixture
def typed(client: TestClient) -> Any:
    """The table, and a model of its columns under the name `table`."""
    response = client.post("/v1/datasets", content=BODY, headers=CSV)
    assert response.status_code == 201, response.text
    found = response.json()
    described = [column for column in found["columns"] if column["type"] != "ignored"]
    columns = [Column.from_dict(column) for column in described]
    spec = MixedSpec(
        columns=[mixed(column) for column in columns],
        flow=NsfSpec(layers=1, hidden=[8], bins=4),
        hidden=[8],
        rows=400,
    )
    flow = build(spec, len(columns), seed=1)
    rows = client.get(
        f"/v1/datasets/{found['id']}/rows?limit=400", headers=accepting(TableFormat.NPY)
    )
    table = torch.from_numpy(np.load(io.BytesIO(rows.content))).double()
    fit_encoding(flow, table)
    flow.companion = fit_companion(flow, table[:300], table[300:], seed=0)
    registered(
        *stores(client),
        name="table",
        spec=spec,
        columns=[column.name for column in columns],
        types=[column.to_dict() for column in columns],
        flow=flow.eval(),
        held_out={"rows": 40, "quantiles": np.linspace(-60, 0, 1001).tolist()},
    )
    return found


def mixed(column: Column) -> MixedColumn:
    return MixedColumn(
        levels=column.level_count,
        values=list(column.level_numbers) if column.levels and column.holds_values else [],
        missing=column.missing,
    )


def accepting(kind: TableFormat) -> dict[str, str]:
    return {"Accept": MEDIA_TYPE[kind]}


def scores(client: TestClient, body: bytes, kind: TableFormat, query: str = "") -> Any:
    response = client.post(
        f"/v1/models/table/score{query}", content=body, headers={"Content-Type": MEDIA_TYPE[kind]}
    )
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.slow
def test_the_upload_sent_back_scores_as_its_stored_rows(client, typed):
    """In every format that gives its rows, ids and comments included."""
    url = f"/v1/datasets/{typed['id']}/rows?limit=400"
    stored = client.get(url, headers=accepting(TableFormat.NPY)).content
    expected = scores(client, stored, TableFormat.NPY)["log_prob"]
    assert None not in expected
    assert len(set(expected)) > 100
    for kind in (kind for kind in TableFormat if kind is not TableFormat.EXCEL):
        body = client.get(url, headers=accepting(kind)).content
        if kind is TableFormat.JSON:
            document = json.loads(body)
            body = json.dumps({name: document[name] for name in ("columns", "rows")}).encode()
        answer = scores(client, body, kind)
        np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-4, err_msg=kind)
        assert answer["row_warning_count"] == 0
    answer = scores(client, BODY, TableFormat.CSV)
    np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-4)


@pytest.mark.slow
def test_a_job_scores_them_alike(client, supervisor, typed):
    answer = scores(client, BODY, TableFormat.CSV, "?explain=true")
    wanted = {"dataset_id": typed["id"], "output": "parquet", "include_rows": True, "parts": True}
    response = start(client, "scoring", model="table", explain=True, **wanted)
    assert response.status_code == 202, response.text
    assert supervisor.run_next()
    job = client.get(response.headers["location"]).json()
    assert job["state"] == "succeeded", job["error"]
    url = job["result"]["url"]
    rows = pq.read_table(io.BytesIO(client.get(url).content)).to_pylist()
    np.testing.assert_allclose([row["log_prob"] for row in rows], answer["log_prob"], rtol=1e-4)
    assert [row["cut"] for row in rows[:4]] == ["Ideal", "Good; really", "Fair, new", None]
    assert rows[0]["price"] is None
    for what in ("explanation", "difference"):
        for name, value in answer[what][0].items():
            known = np.nan if value is None else value
            found = rows[0][f"{what}.{name}"]
            assert found == pytest.approx(known, rel=1e-3, abs=1e-3, nan_ok=True)
    assert job["metrics"]["explained"] == answer["explained"]
    for name, value in answer["usual"].items():
        expected = None if value is None else pytest.approx(value, rel=1e-3)
        assert job["metrics"]["usual"][name] == expected
    parts = [row["discrete"] + row["continuous"] for row in rows]
    np.testing.assert_allclose(parts, answer["log_prob"], rtol=1e-4)
    assert_refused(client.get(url, headers=accepting(TableFormat.NPY)), 406, "not-acceptable")


@pytest.mark.parametrize("setting_values", [{"bulk_part_rows": 250}])
def test_a_job_fills_gaps_as_the_route_does(client, supervisor, typed):
    wanted = {"fill": "median", "level": 0.8, "seed": 5}
    body = {"model": "table", "dataset_id": typed["id"], "output": "csv", **wanted}
    columns = client.get("/v1/models/table/versions/1").json()["columns"]
    body["given"] = columns[::-1]
    job = client.post("/v1/jobs/imputation", json=body).json()
    assert (job["role"], job["request"]["part_rows"]) == ("parent", 250)
    assert job["request"]["given"] == columns
    while client.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
        supervisor.run_next()
    job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job["error"]
    assert (job["progress"]["rows"], job["progress"]["eta_seconds"]) == (400, 0.0)
    children = client.get("/v1/jobs", params={"parent_id": job["id"]}).json()["items"]
    assert {child["result"] for child in children} == {None}
    found = list(csv.DictReader(io.StringIO(client.get(job["result"]["url"]).text)))
    answer = client.post(
        "/v1/models/table/impute",
        params={**wanted, "given": columns[::-1]},
        content=BODY,
        headers={**CSV, "Accept": "text/csv"},
    )
    expected = list(csv.DictReader(io.StringIO(answer.text)))
    rows = list(csv.DictReader(io.StringIO(BODY.decode())))
    assert len(found) == len(expected) == 400
    for filled, same, row in zip(found, expected, rows, strict=True):
        assert (filled["id"], filled["comment"]) == (row["id"], row["comment"])
        assert filled["cut"] == (row["cut"] or same["cut"])
        assert float(filled["price"]) == float(row["price"] or same["price"])
        assert filled["low.price"] == same["low.price"]
    assert job["metrics"]["uncertain_rows"] == int(answer.headers["x-uncertain-rows"])
    blobs = stores(client)[1]
    assert blobs.keys("results")
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert not blobs.keys("results")


@pytest.mark.usefixtures("typed")
def test_a_column_that_a_dataset_ignores_is_named_with_the_remedy(client):
    other = client.post("/v1/datasets?exclude=sold", content=BODY, headers=CSV)
    assert other.status_code == 201, other.text
    response = start(client, "scoring", model="table", dataset_id=other.json()["id"])
    told = assert_refused(response, 422, "unknown-column")
    assert "'sold'; it is in the file, but ignored" in told["detail"]


def test_texts_are_not_scored_as_numbers(client):
    lines = [f"{text},{row * 1.37:.2f},{row % 7 + 0.5}" for row, text in enumerate("abcab" * 20)]
    table = "\n".join(["height,weight,age", *lines])
    other = client.post("/v1/datasets", content=table, headers=CSV).json()
    told = assert_refused(start(client, "scoring", dataset_id=other["id"]), 422, "dataset-dtype")
    assert "'height'" in told["detail"]
