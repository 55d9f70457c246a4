import shutil
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from models_store.errors import SchemaMismatchError
from tests.waiting import wait_until


@pytest.fixture
def setting_values() -> dict[str, Any]:
    return {"ready_look_s": 0.1}


def is_ready(client: TestClient) -> bool:
    return client.get("/readyz").status_code == 200


def test_liveness_looks_at_nothing(client, settings):
    shutil.rmtree(settings.data_dir)
    response = client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_without_a_broker_the_service_is_degraded_but_ready(client):
    response = client.get("/readyz")
    assert response.status_code == 200
    content = response.json()
    assert content["status"] == "degraded"
    assert {name: check["ok"] for name, check in content["checks"].items()} == {
        "database": True,
        "schema": True,
        "store": True,
        "engine": True,
        "broker": False,
    }


def test_without_a_store_the_service_is_unavailable(client, settings):
    shutil.rmtree(settings.blob_root)
    settings.blob_root.write_text("no folder")
    wait_until(lambda: not is_ready(client))
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert response.json()["checks"]["store"]["ok"] is False
    assert response.json()["checks"]["database"]["ok"] is True
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/datasets").status_code == 200


def test_without_a_database_the_service_is_unavailable(client, settings):
    for file in settings.data_dir.glob("densityd.sqlite3*"):
        # Written over, never cut short: a process that maps a file dies of a page that went away.
        with file.open("r+b") as opened:
            opened.write(b"garbage" * 1000)
    # A connection that holds the pages in memory would continue with them.
    client.app.state.database.dispose()
    wait_until(lambda: not is_ready(client))
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert response.json()["checks"]["schema"]["ok"] is False
    assert client.get("/v1/datasets").json()["type"] == "/problems/db-unavailable"


def test_another_schema_is_refused_with_both_revisions(settings):
    (settings.data_dir / "densityd.sqlite3").unlink()
    app = create_app(settings)
    with pytest.raises(SchemaMismatchError, match="needs revision"), TestClient(app):
        pass


def test_metrics_count_requests_by_template(client):
    client.get("/v1/datasets/ds_" + "0" * 32)
    client.get("/v1/nowhere/secret")
    client.request("BREW", "/v1/datasets")
    text = client.get("/metrics").text
    assert 'method="GET",route="/v1/datasets/{dataset_id}",status="404"} 1.0' in text
    assert 'method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'method="other"' in text
    assert "secret" not in text
    assert "densityd_http_request_seconds_bucket" in text
    assert "process_resident_memory_bytes" in text
