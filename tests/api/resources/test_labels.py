"""Descriptions, tags, filters and orders of lists, ETags of what they describe."""

import json
from datetime import timedelta

import pytest

from models_store.job_states import JobState
from models_store.jobs.leases import JobWork
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.serving import registered
from tests.store.makers import LEASE_S, a_version, submitted

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
    state = client.app.state
    registered(state.database, state.blobs)
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
    claimed = work.claim("tester", lease_s=LEASE_S)
    assert claimed is not None
    changed = client.patch(f"/v1/jobs/{job.id}", json={"tags": {"stage": "trial"}})
    assert changed.status_code == 200
    work.finish(claimed.id, claimed.attempt, metrics={}, version=a_version(claimed))
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
    registered(client.app.state.database, client.app.state.blobs)
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
    future = (last + timedelta(hours=1)).isoformat()
    query = {"created_at[gte]": made[0].created_at.isoformat(), "order": "asc", "limit": 2}
    pages, url = [], "/v1/jobs"
    while url:
        page = client.get(url, params=query if url == "/v1/jobs" else None)
        pages.append([job["id"] for job in page.json()["items"]])
        link = page.headers.get("Link")
        assert (link is None) == (page.json()["next_cursor"] is None)
        url = link and link[1 : link.index(">")]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    listed = client.get("/v1/jobs", params={"created_at[gt]": future})
    assert listed.json()["items"] == []
    listed = client.get("/v1/jobs", params={"created_at[lt]": future})
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
        "tag=%00",
        "tag=:x",
    ):
        assert_refused(client.get(f"/v1/jobs?{query}"), 422, "validation")
    assert_refused(client.get("/v1/jobs?created_at[eq]=2026"), 422, "unknown-parameter")


def test_datasets_and_models_are_found_by_name_and_hash(client, places):
    shown = client.get(places["dataset"]).json()
    for query, found in {
        f"sha256={shown['sha256']}": 1,
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
