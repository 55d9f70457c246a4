"""Every change leaves one line of who did what; secrets are in no line, no problem, no metric."""

import io
import json
import logging

import pytest
from typer.testing import CliRunner

from densityd.cli import app
from models_store.keys import Scope
from models_store.process.logs import JsonFormatter
from tests.api.conftest import CSV, FIT, TABLE, assert_refused
from tests.api.serving import bearer, keyed, stocked

ALIAS = "/v1/models/people/aliases/production"
ROWS = {"rows": [[171.5, 68.2, 30.0]]}


@pytest.fixture
def lines(caplog):
    """What has been logged, as the service writes it."""
    caplog.set_level(logging.DEBUG)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("api"))
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def door(settings):
    with keyed(settings) as (client, keys):
        stocked(client)
        yield client, keys


def test_every_change_is_one_line_of_who_and_what(door, lines):
    client, keys = door
    key = keys.create("p", Scope.WRITE)
    headers = {**bearer(key), "X-Request-ID": "r1"}
    made = client.post("/v1/datasets", content=TABLE, headers={**headers, **CSV})
    client.put(ALIAS, json={"version": 1}, headers=headers)
    job = client.post("/v1/jobs/variational", json=FIT, headers=headers)
    client.post(f"{job.headers['location']}/cancel", headers=headers)
    client.post(f"{job.headers['location']}/resume", headers=headers)
    client.delete(ALIAS, headers=headers)
    client.delete(made.headers["location"], headers=headers)
    client.get("/v1/datasets", headers=headers)
    client.post("/v1/models/people/log_prob", json=ROWS, headers=headers)
    client.delete(ALIAS, headers=headers)  # is not found
    audits = [line for line in lines() if "audit" in line]
    assert [(line["audit"], line["resource"], line["status"]) for line in audits] == [
        ("create_dataset", made.headers["location"], 201),
        ("set_alias", ALIAS, 200),
        ("start_variational", job.headers["location"], 202),
        ("cancel_job", f"{job.headers['location']}/cancel", 200),
        ("resume_job", f"{job.headers['location']}/resume", 202),
        ("delete_alias", ALIAS, 204),
        ("delete_dataset", made.headers["location"], 204),
    ]
    for line in audits:
        assert (line["key_id"], line["project"]) == (key.key.id, "p")
        assert (line["request_id"], line["logger"]) == ("r1", "app.audit")


def test_changes_by_nobody_are_recorded_as_such(client, lines):
    made = client.post("/v1/jobs/variational", json=FIT)
    [line] = [line for line in lines() if "audit" in line]
    assert (line["key_id"], line["project"]) == ("none", "default")
    assert line["resource"] == made.headers["location"]


def test_secrets_are_in_no_log_no_answer_and_no_metric(door, lines):
    client, keys = door
    tokens = [keys.create("p", scope).token for scope in Scope]
    expired = keys.create("p", Scope.READ)
    keys.revoke(expired.key.id)
    canaries = [*tokens, expired.token, f"key_{'f' * 32}.{'e' * 64}"]
    texts = []
    for token in canaries:
        for headers in (bearer(token), {"Authorization": token}, {"X-Request-ID": "r"}):
            for method, path, body in (
                ("GET", "/v1/datasets", None),
                ("GET", f"/v1/datasets/{token}", None),
                ("GET", "/metrics", None),
                ("POST", "/v1/models/people/log_prob", ROWS),
                ("POST", "/v1/models/nobody/log_prob", {"rows": token}),
                ("PUT", "/v1/models/people/aliases/x", {"version": 1, "token": 1}),
                ("DELETE", "/v1/models/people/aliases/x", None),
                ("GET", "/readyz", None),
            ):
                query = {"limit": token}
                answer = client.request(method, path, json=body, headers=headers, params=query)
                texts.append(answer.text + str(answer.headers))
    texts += [json.dumps(line) for line in lines() if line["logger"].startswith("app.")]
    assert len(texts) > 100
    for token in canaries:
        secret = token.partition(".")[2]
        assert not any(secret in text for text in texts)
    assert "key_" not in client.get("/metrics", headers=bearer(tokens[2])).text


def test_the_trail_has_a_row_for_each_request_that_changed_something(settings):
    with keyed(settings) as (client, keys):
        stocked(client)
        writer, admin = (keys.create("p", scope) for scope in (Scope.WRITE, Scope.ADMIN))
        other = keys.create("q", Scope.ADMIN)
        headers = bearer(writer)
        told = {**headers, **CSV, "X-Request-ID": "r1"}
        made = client.post("/v1/datasets", content=TABLE, headers=told)
        client.put(ALIAS, json={"version": 1}, headers=headers)
        assert client.put(ALIAS, json={"version": 99}, headers=headers).status_code == 404
        client.post("/v1/models/people/log_prob", json={"rows": [[1, 2, 3]]}, headers=headers)
        client.get("/v1/datasets", headers=headers)
        client.delete(made.headers["location"], headers=headers)

        first = client.get("/v1/audit", params={"limit": 2}, headers=bearer(admin)).json()
        cursor = {"cursor": first["next_cursor"]}
        rest = client.get("/v1/audit", params=cursor, headers=bearer(admin)).json()
        records = [*first["items"], *rest["items"]]
        assert [(one["action"], one["resource"], one["key_id"]) for one in records] == [
            ("DELETE", made.headers["location"], writer.key.id),
            ("PUT", ALIAS, writer.key.id),
            ("POST", "/v1/datasets", writer.key.id),
        ]
        assert records[-1]["request_id"] == "r1"
        assert client.get("/v1/audit", headers=bearer(other)).json()["items"] == []
        assert_refused(client.get("/v1/audit", headers=headers), 403, "forbidden")


def test_the_trail_of_all_projects_is_exported_oldest_first(settings, monkeypatch):
    with keyed(settings) as (client, keys):
        for project in ("p", "q"):
            key = keys.create(project, Scope.WRITE)
            client.post("/v1/datasets", content=TABLE, headers={**bearer(key), **CSV})
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(settings.data_dir))
    exported = CliRunner().invoke(app, ["audit", "export"])
    records = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [(one["project"], one["action"], one["resource"]) for one in records] == [
        ("p", "POST", "/v1/datasets"),
        ("q", "POST", "/v1/datasets"),
    ]
    later = CliRunner().invoke(app, ["audit", "export", "--since", "2200-01-01"])
    assert (later.exit_code, later.stdout) == (0, "")
