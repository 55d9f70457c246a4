"""Descriptions, tags, filters and orders of lists, ETags of what they describe."""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from models_store.aliases import MAX_ALIASES
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.job_states import JobState
from models_store.jobs.leases import JobWork
from models_store.listing import encode_cursor
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.serving import registered, stores
from tests.store.makers import a_version, added, claimed, submitted

RANGES = {"optimisation.weight_decay": {"values": [0, 1e-5]}}


@pytest.fixture
def places(client):
    """A URL of each kind of thing that can be described."""
    state = client.app.state
    registered(state.database, state.blobs)
    dataset = client.post("/v1/datasets?name=people", content=TABLE, headers=CSV).json()
    job = submitted(state.jobs)
    return {
        "dataset": f"/v1/datasets/{dataset['id']}",
        "model": "/v1/models/people",
        "version": "/v1/models/people/versions/1",
        "job": f"/v1/jobs/{job.id}",
    }


def test_labels_can_be_given_at_creation(client):
    registered(*stores(client))
    tags = {"team": "space", "a/b": "x é"}
    labels = {"description": "of mine", "tags": tags}
    query = {"description": "of mine", "tags": json.dumps(tags)}
    rows = [f"{150 + row},{50 + row % 7},{row % 13}" for row in range(60)]
    table = "\n".join(["height,weight,age", *rows]).encode()
    made = client.post("/v1/datasets", params=query, content=table, headers=CSV)
    assert made.status_code == 201, made.text
    form = {"file": ("t.csv", table, "text/csv")}
    other = client.post("/v1/datasets", data={"tags": json.dumps(tags)}, files=form)
    assert other.json()["tags"] == tags
    dataset = made.json()["id"]
    bodies = {
        "training": {"dataset_id": dataset, "model_name": "m"},
        "sweep": {"dataset_id": dataset, "model_name": "m", "ranges": RANGES},
        "scoring": {"dataset_id": dataset, "model": "people"},
        "sampling": {"model": "people", "n": 3},
        "variational": {"model_name": "m", "target": {"potential": "U1"}},
    }
    bodies["sweep"]["flow"] = {"family": "maf"}
    for kind, body in bodies.items():
        started = client.post(f"/v1/jobs/{kind}", json=body | labels)
        assert started.status_code == 202, (kind, started.text)
        shown = client.get(started.headers["Location"]).json()
        assert {name: shown[name] for name in labels} == labels, kind
        assert labels.keys().isdisjoint(shown["request"])
        found = client.get(f"/v1/jobs?tag=team:space&kind={shown['kind']}").json()["items"]
        assert started.json()["id"] in {one["id"] for one in found}
        assert_refused(
            client.post(f"/v1/jobs/{kind}", json=body | {"tags": {"": "x"}}), 422, "validation"
        )
    assert {name: made.json()[name] for name in labels} == labels
    assert len(client.get("/v1/datasets?tag=team:space").json()["items"]) == 2
    for wrong in ("[]", '{"a": 1}', '{"": "x"}', "{", json.dumps({str(n): "" for n in range(65)})):
        refused = client.post("/v1/datasets", params={"tags": wrong}, content=TABLE, headers=CSV)
        assert_refused(refused, 422, "validation")


def test_a_version_gets_the_labels_that_its_training_has_when_it_ends(client):
    state = client.app.state
    job = submitted(state.jobs, description="first", tags={"team": "space"})
    work = JobWork(state.database)
    held = claimed(work)
    assert client.patch(f"/v1/jobs/{job.id}", json={"tags": {"stage": "trial"}}).status_code == 200
    work.finish(held.id, held.attempt, metrics={}, version=a_version(held))
    path = f"/v1/models/{job.model_name}/versions"
    assert client.get(f"{path}/1").json()["tags"] == {"team": "space", "stage": "trial"}
    assert client.get(f"{path}/1").json()["description"] == "first"
    assert len(client.get(f"{path}?tag=team:space").json()["items"]) == 1


def test_labels_are_merged_shown_and_found(client, places):
    for url in places.values():
        first = client.patch(url, json={"description": "of mine", "tags": {"a": "1", "b": ""}})
        assert first.status_code == 200, first.text
        shown = client.get(url).json()
        assert shown | {"queue": None} == first.json() | {"queue": None}
        assert first.json()["tags"] == {"a": "1", "b": ""}
        second = client.patch(url, json={"tags": {"b": None, "c/d": "x:y=z é"}}).json()
        assert second["description"] == "of mine"
        assert second["tags"] == {"a": "1", "c/d": "x:y=z é"}
        listing = url.rpartition("/")[0]
        for query, found in {
            "tag=a": 1,
            "tag=a:1": 1,
            "tag=a:1&tag=c/d:x:y%3Dz%20é": 1,
            "tag=b": 0,
            "tag=a:2": 0,
            "tag=a:": 0,
            "tag=a:1&tag=b": 0,
        }.items():
            items = client.get(f"{listing}?{query}").json()["items"]
            assert len(items) == found, (url, query)
            if found:
                assert items[0]["tags"] == second["tags"]
        assert client.patch(url, json={"description": None}).json()["description"] is None


def test_labels_go_with_what_they_describe(client, places):
    for url in places.values():
        client.patch(url, json={"tags": {"a": "1"}})
    client.post(places["job"] + "/cancel")
    for url in (places["job"], places["dataset"], places["version"]):
        assert client.delete(url).status_code == 204
    registered(*stores(client))
    assert client.get(places["model"]).json()["tags"] == {}


def test_a_change_can_be_conditional(client, places):
    for url in places.values():
        shown = client.get(url)
        tag = shown.headers["ETag"]
        assert client.get(url, headers={"If-None-Match": tag}).status_code == 304
        changed = client.patch(url, json={"tags": {"a": "1"}}, headers={"If-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["ETag"] == client.get(url).headers["ETag"] != tag
        late = client.patch(url, json={"tags": {"a": "2"}}, headers={"If-Match": tag})
        assert_refused(late, 412, "precondition")
        assert client.get(url).json()["tags"] == {"a": "1"}
        assert_refused(client.get(url, headers={"If-Match": tag}), 412, "precondition")


def test_labels_are_bounded(client, places):
    for url in places.values():
        for body in (
            {"tags": {"": "x"}},
            {"tags": {"a:b": "x"}},
            {"tags": {"a": 1}},
            {"tags": {"a": "x" * 257}},
            {"tags": {"a": "\0"}},
            {"tags": {"a" * 65: "x"}},
            {"description": "x" * 4001},
        ):
            assert_refused(client.patch(url, json=body), 422, "validation")
        assert_refused(client.patch(url, json={"tag": {}}), 422, "unknown-field")
        many = {f"t{number}": "x" for number in range(64)}
        assert client.patch(url, json={"tags": many}).status_code == 200
        assert_refused(client.patch(url, json={"tags": {"more": ""}}), 409, "limit-tags")
    missing = places["job"][:-1] + "_"
    assert_refused(client.patch(missing, json={"tags": {"a": "1"}}), 404, "not-found")


def test_lists_are_bounded_in_time_and_go_both_ways(client):
    jobs = client.app.state.jobs
    made = [submitted(jobs) for _ in range(5)]
    ids = [job.id for job in made]
    last = made[-1].created_at
    future = last + timedelta(hours=1)
    query = {"created_at[gte]": made[0].created_at.isoformat(), "order": "asc", "limit": 2}
    pages, url = [], "/v1/jobs"
    while url:
        page = client.get(url, params=query if url == "/v1/jobs" else None)
        pages.append([job["id"] for job in page.json()["items"]])
        link = page.headers.get("Link")
        assert (link is None) == (page.json()["next_cursor"] is None)
        url = link and link[1 : link.index(">")]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    listed = client.get("/v1/jobs", params={"created_at[gt]": last.isoformat()})
    assert listed.json()["items"] == []
    day = made[0].created_at.date().isoformat()  # of which its midnight counts
    listed = client.get("/v1/jobs", params={"created_at[gte]": day})
    assert len(listed.json()["items"]) == len(ids)
    for bound, at in (("lte", last), ("lt", future)):
        listed = client.get("/v1/jobs", params={f"created_at[{bound}]": at.isoformat()})
        assert [job["id"] for job in listed.json()["items"]] == ids[::-1]


def test_wrong_filters_are_refused(client):
    submitted(client.app.state.jobs)
    submitted(client.app.state.jobs)
    cursor = client.get("/v1/jobs?limit=1").json()["next_cursor"]
    assert_refused(client.get(f"/v1/jobs?order=asc&cursor={cursor}"), 400, "cursor")
    for query in (
        "created_at[gte]=yesterday",
        "created_at[gte]=2026-01-01T00:00:00",
        "created_at[lt]=0001-01-01T00:00:00%2B14:00",
        "order=random",
        "limit=0",
        "limit=201",
        "tag=%00",
        "tag=:x",
    ):
        assert_refused(client.get(f"/v1/jobs?{query}"), 422, "validation")
    assert_refused(client.get("/v1/jobs?created_at[eq]=2026"), 422, "unknown-parameter")


def test_datasets_and_models_are_found_by_name_and_hash(client, places):
    shown = client.get(places["dataset"]).json()
    for query, found in {
        f"sha256={shown['sha256']}": 1,
        f"sha256={hashlib.sha256(TABLE).hexdigest()}": 1,
        "sha256=" + "0" * 64: 0,
        "name_prefix=peo": 1,
        "name_prefix=Peo": 0,
        "name_prefix=%25": 0,
    }.items():
        assert len(client.get(f"/v1/datasets?{query}").json()["items"]) == found, query
    assert len(client.get("/v1/models?name_prefix=peo").json()["items"]) == 1
    assert len(client.get("/v1/models?name_prefix=x").json()["items"]) == 0
    [model] = client.get("/v1/models").json()["items"]
    version = client.get(places["version"]).json()
    assert model["latest"] == {name: version[name] for name in model["latest"]}


def test_columns_are_listed_in_pages(client, places):
    whole = client.get(places["dataset"]).json()["columns"]
    page = client.get(places["dataset"] + "/columns?offset=1&limit=1").json()
    assert page == {"items": whole[1:2], "offset": 1, "total": 2}
    assert client.get(places["dataset"] + "/columns?offset=9").json()["items"] == []


def test_the_etag_of_a_job_changes_with_its_state(client):
    url = f"/v1/jobs/{submitted(client.app.state.jobs).id}"
    tag = client.get(url).headers["ETag"]
    client.post(f"{url}/cancel")
    assert client.get(url).headers["ETag"] != tag
    assert client.patch(url, json={"tags": {"a": "1"}}).json()["state"] == JobState.CANCELLED


PAGE_BYTES = 300_000
FIGURES = {"mean": 0.123456789, "std": 1.0, "min": -1.0, "max": 1.0, "distinct": None}
WIDE = [{"name": f"{n:0128d}", "dtype": "float64", **FIGURES} for n in range(4096)]


@pytest.fixture
def jobs(client):
    return client.app.state.jobs


def pages(client, path):
    """Every page of a listing."""
    cursor = ""
    while cursor is not None:
        answer = client.get(path + ("&cursor=" + cursor if cursor else ""))
        assert answer.status_code == 200
        assert len(answer.content) < PAGE_BYTES
        yield answer.json()["items"]
        cursor = answer.json()["next_cursor"]


def test_wide_datasets_are_listed_without_their_columns(client, registry):
    made = [added(registry, columns=WIDE).id for _ in range(2)]
    [listed] = pages(client, "/v1/datasets?limit=200")
    assert [one["id"] for one in listed] == made[::-1]
    for one in listed:
        whole = client.get(f"/v1/datasets/{one['id']}").json()
        assert one == {name: whole[name] for name in one}
        assert one["column_count"] == len(whole["columns"]) == 4096
        assert set(whole) - set(one) == {"columns", "options", "warnings"}


def test_jobs_are_listed_without_their_requests(client, jobs):
    context = [[0.25] * 4] * 10_000
    made = [submitted(jobs, request={"context": context}).id for _ in range(5)]
    [listed] = pages(client, "/v1/jobs?limit=200")
    assert [one["id"] for one in listed] == made[::-1]
    whole = client.get(f"/v1/jobs/{made[0]}").json()
    assert listed[-1] == {name: whole[name] for name in listed[-1]}
    assert set(whole) - set(listed[-1]) == {"queue", "request"}
    assert whole["request"]["context"] == context


def test_versions_are_listed_without_what_may_be_large(client):
    registered(*stores(client))
    [[listed]] = pages(client, "/v1/models/people/versions?limit=200")
    whole = client.get("/v1/models/people/versions/1").json()
    lineage = whole["lineage"]
    del lineage["target"]
    assert listed == {name: whole[name] for name in listed}
    large = {"columns", "context_columns", "types", "flow", "preprocessing", "held_out"}
    assert set(whole) - set(listed) == large


def test_a_page_ends_before_it_has_too_many_bytes_and_the_next_goes_on(client, jobs):
    made = [submitted(jobs).id for _ in range(40)]
    work = JobWork(client.app.state.database)
    while (job := work.claim("w", lease_s=30)) is not None:
        work.fail(job.id, job.attempt, code="diverged", detail="\N{GRINNING FACE}" * 4000)
    seen = list(pages(client, "/v1/jobs?limit=200"))
    assert len(seen) > 1
    assert [one["id"] for page in seen for one in page] == made[::-1]


def test_an_item_of_more_bytes_than_a_page_has_is_there_by_itself(client, jobs):
    made = [submitted(jobs).id for _ in range(2)]
    work = JobWork(client.app.state.database)
    for _ in made:
        job = claimed(work)
        metrics = {"summary": ["x" * PAGE_BYTES]}
        work.finish(job.id, job.attempt, metrics=metrics, version=a_version(job))
    page = client.get("/v1/jobs").json()
    assert [one["id"] for one in page["items"]] == made[1:]
    page = client.get("/v1/jobs", params={"cursor": page["next_cursor"]}).json()
    assert ([one["id"] for one in page["items"]], page["next_cursor"]) == (made[:1], None)


def test_a_model_has_so_many_aliases(client):
    registered(*stores(client))
    path, body = "/v1/models/people/aliases", {"version": 1}
    for number in range(MAX_ALIASES):
        assert client.put(f"{path}/a{number}", json=body).status_code == 200
    assert_refused(client.put(f"{path}/more", json=body), 409, "limit-aliases")
    assert client.put(f"{path}/a0", json=body).status_code == 200
    assert client.delete(f"{path}/a0").status_code == 204
    assert client.put(f"{path}/more", json=body).status_code == 200


_FAR = 10**18 - 1


def texts(query: list[dict[str, Any]]) -> Iterator[str]:
    """Names of the parameters that may be texts."""
    for parameter in query:
        schemas = parameter["schema"].get("anyOf", [parameter["schema"]])
        if any("string" in str(schema.get("type", "$ref")) for schema in schemas):
            yield parameter["name"]


class TestOnPostgres:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    @pytest.fixture
    def setting_values(self, postgres_url: str) -> dict[str, Any]:
        return {"database_url": postgres_url}

    @pytest.fixture
    def lists(
        self, client: TestClient, database: Database, blobs: Blobs
    ) -> dict[str, list[dict[str, Any]]]:
        """Query parameters of all lists, by their paths."""
        registered(database, blobs)
        webhook = client.post("/v1/webhooks", json={"url": "https://example.org/hook"}).json()
        paths = client.get("/openapi.json").json()["paths"]
        queries = {
            path.replace("{name}", "people").replace("{webhook_id}", webhook["id"]): [
                parameter
                for parameter in routes["get"].get("parameters", ())
                if parameter["in"] == "query"
            ]
            for path, routes in paths.items()
            if "get" in routes
        }
        return {
            path: query
            for path, query in queries.items()
            if any(parameter["name"] == "cursor" for parameter in query)
        }

    def test_a_forged_cursor_beyond_all_rows_gives_a_page(self, client, lists):
        assert "/v1/models/people/versions" in lists
        for path, query in lists.items():
            name = path.rpartition("/")[2]
            newest = client.get(path, params={"cursor": encode_cursor(name, _FAR)})
            assert newest.status_code == 200, (path, newest.text)
            if any(parameter["name"] == "order" for parameter in query):
                cursor = encode_cursor(f"{name}.asc", _FAR)
                oldest = client.get(path, params={"cursor": cursor, "order": "asc"})
                assert oldest.json() == {"items": [], "next_cursor": None}

    def test_a_nul_character_in_a_filter_is_refused(self, client, lists):
        asked = 0
        for path, query in lists.items():
            for name in texts(query):
                for text in ("\0", "a\0b"):
                    response = client.get(path, params={name: text})
                    assert response.status_code in {400, 422}, (path, name, response.text)
                    asked += 1
        assert asked > 30
