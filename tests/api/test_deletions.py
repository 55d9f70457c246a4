"""Deletion of models, versions and jobs over HTTP, and what other requests then get."""

import json
from itertools import product
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.models import exports
from models_store.files.blobs import Blobs
from tests.api.conftest import JSON, assert_refused, files_of
from tests.support.waiting import Clock

ROWS = json.dumps({"rows": [[170, 70, 40]]})


pytestmark = pytest.mark.usefixtures("two_versions")


def scored(client: TestClient, ref: str) -> Any:
    return client.post(f"/v1/models/{ref}/log_prob", content=ROWS, headers=JSON)


def sampling(client: TestClient, ref: str, **headers: str) -> Any:
    body = json.dumps({"model": ref, "n": 10})
    return client.post("/v1/jobs/sampling", content=body, headers=JSON | headers)


def test_a_deleted_version_is_not_found_from_the_next_request_on(client, settings):
    assert scored(client, "people:2").status_code == 200
    kept = client.get("/v1/models/people/versions/2/checkpoint").content
    assert client.delete("/v1/models/people/versions/2").status_code == 204
    assert scored(client, "people:2").status_code == 404
    assert scored(client, "people").headers["x-model"] == "people:1"
    assert client.get("/v1/models/people/versions/2").status_code == 404
    assert client.delete("/v1/models/people/versions/2").status_code == 404
    assert client.get("/v1/models/people").json()["latest_version"] == 1
    assert len(files_of(settings)) == 1
    again = client.post(
        "/v1/models/people/versions",
        content=kept,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert again.json()["version"] == 3


def test_a_version_that_another_process_deleted_is_not_found(client, blobs, registry):
    client.put("/v1/models/people/aliases/production", content='{"version": 1}', headers=JSON)
    assert client.get("/v1/models/people/versions/2/checkpoint").status_code == 200
    # What a process knows for a second: it has looked, and has not loaded.
    client.portal.call(client.app.state.models.resolve, "default", "people:2")
    for key in registry.delete_version("default", "people", 2):
        blobs.delete(key)
    assert_refused(scored(client, "people:2"), 404, "not-found")


def test_a_deleted_model_is_gone(client, settings, monkeypatch):
    monkeypatch.setattr("app.remembered.time", Clock())
    assert scored(client, "people").status_code == 200
    assert client.delete("/v1/models/people").status_code == 204
    assert scored(client, "people").status_code == 404
    assert client.delete("/v1/models/people").status_code == 404
    assert client.get("/v1/models/people").status_code == 404
    assert client.get("/v1/models/people/versions").status_code == 404
    assert client.get("/v1/models").json()["items"] == []
    assert files_of(settings) == []


def test_what_is_needed_is_refused_with_its_reason(client):
    client.put("/v1/models/people/aliases/staging", content='{"version": 1}', headers=JSON)
    for path in ("/v1/models/people/versions/1", "/v1/models/people"):
        refused = client.delete(path)
        assert_refused(refused, 409, "version-in-use")
        assert "staging" in refused.json()["detail"]
    assert scored(client, "people@staging").status_code == 200
    client.delete("/v1/models/people/aliases/staging")
    assert scored(client, "people@staging").status_code == 404
    job = sampling(client, "people:1").json()["id"]
    refused = client.delete("/v1/models/people/versions/1")
    assert_refused(refused, 409, "version-in-use")
    assert job in refused.json()["detail"]
    assert_refused(client.delete(f"/v1/jobs/{job}"), 409, "job-unfinished")
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404
    maker = client.get("/v1/models/people/versions/1").json()["lineage"]["job_id"]
    assert_refused(client.delete(f"/v1/jobs/{maker}"), 409, "job-in-use")
    assert scored(client, "people:1").status_code == 200
    assert client.delete("/v1/models/people/versions/1").status_code == 204
    assert scored(client, "people:1").status_code == 404
    assert client.delete(f"/v1/jobs/{maker}").status_code == 204
    assert_refused(sampling(client, "people:1"), 404, "not-found")


def test_a_key_of_a_deleted_job_starts_a_new_one(client):
    key = {"Idempotency-Key": "k"}
    first = sampling(client, "people", **key).json()["id"]
    client.post(f"/v1/jobs/{first}/cancel")
    client.delete(f"/v1/jobs/{first}")
    second = sampling(client, "people", **key)
    assert second.json()["id"] != first
    assert "idempotent-replayed" not in second.headers


def test_files_that_cannot_be_deleted_do_not_keep_the_row(client, settings, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert client.delete("/v1/models/people/versions/2").status_code == 204
    monkeypatch.undo()
    assert len(files_of(settings)) == 2


def test_the_file_of_one_import_is_deleted_and_no_other(client, blobs):
    kept = client.get("/v1/models/people/versions/2/checkpoint").content
    binary = {"Content-Type": "application/octet-stream"}
    for _ in range(2):
        client.post("/v1/models/brought/versions", content=kept, headers=binary)
    assert client.delete("/v1/models/brought/versions/1").status_code == 204
    assert len(blobs.keys("models/imported")) == 1
    assert client.get("/v1/models/brought/versions/2/checkpoint").content == kept


def test_the_stream_of_a_deleted_job_ends(client):
    job = sampling(client, "people").json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as response:
        client.post(f"/v1/jobs/{job}/cancel")
        client.delete(f"/v1/jobs/{job}")
        assert response.read() is not None
    assert client.get(f"/v1/jobs/{job}/events").status_code == 404


@pytest.mark.parametrize(
    ("what", "step"),
    [*product(("checkpoint", "export", "onnx"), ("path", "verify")), ("export", "open")],
)
def test_a_version_that_is_deleted_while_it_is_fetched_is_not_found(
    client, registry, monkeypatch, what, step
):
    """Before or after its hash is checked, or before the file of an export is opened once more."""
    owner, name = (exports, "exported_file") if step == "open" else (Blobs, step)
    real = getattr(owner, name)

    def delete(*given: Any, **named: Any) -> Any:
        if step == "path":
            forget()
            return real(*given, **named)
        found = real(*given, **named)
        forget()
        return found

    def forget() -> None:
        monkeypatch.setattr(owner, name, real)
        blobs = client.app.state.blobs
        for key in registry.delete_version("default", "people", 2):
            blobs.delete(key)

    monkeypatch.setattr(owner, name, delete)
    assert_refused(client.get(f"/v1/models/people/versions/2/{what}"), 404, "not-found")
