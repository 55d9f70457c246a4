"""The trail of changes, read by administrators of the project, and exported beside the service."""

import json

from typer.testing import CliRunner

from densityd.cli import app
from models_store.keys import Scope
from tests.app.conftest import CSV, TABLE, assert_refused
from tests.app.keyed import bearer, keyed, stocked

ALIAS = "/v1/models/people/aliases/production"


def test_the_trail_has_a_row_for_each_request_that_changed_something(settings):
    with keyed(settings) as (client, keys):
        stocked(client)
        writer, admin = (keys.create("p", scope) for scope in (Scope.WRITE, Scope.ADMIN))
        other = keys.create("q", Scope.ADMIN)
        headers = bearer(writer)
        made = client.post(
            "/v1/datasets", content=TABLE, headers={**headers, **CSV, "X-Request-ID": "r1"}
        )
        client.put(ALIAS, json={"version": 1}, headers=headers)
        assert client.put(ALIAS, json={"version": 99}, headers=headers).status_code == 404
        client.post("/v1/models/people/log_prob", json={"rows": [[1, 2, 3]]}, headers=headers)
        client.get("/v1/datasets", headers=headers)
        client.delete(made.headers["location"], headers=headers)

        first = client.get("/v1/audit", params={"limit": 2}, headers=bearer(admin)).json()
        rest = client.get(
            "/v1/audit", params={"cursor": first["next_cursor"]}, headers=bearer(admin)
        ).json()
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
