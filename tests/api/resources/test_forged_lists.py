"""Lists on PostgreSQL, which refuses numbers and texts that SQLite compares."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.listing import encode_cursor
from tests.api.serving import registered

_FAR = 10**18 - 1


@pytest.fixture
def database_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def setting_values(postgres_url: str) -> dict[str, Any]:
    return {"database_url": postgres_url}


@pytest.fixture
def lists(client: TestClient, database: Database, blobs: Blobs) -> dict[str, list[dict[str, Any]]]:
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


def texts(query: list[dict[str, Any]]) -> Iterator[str]:
    """Names of the parameters that may be texts."""
    for parameter in query:
        schemas = parameter["schema"].get("anyOf", [parameter["schema"]])
        if any("string" in str(schema.get("type", "$ref")) for schema in schemas):
            yield parameter["name"]


def test_a_forged_cursor_beyond_all_rows_gives_a_page(client, lists):
    assert "/v1/models/people/versions" in lists
    for path, query in lists.items():
        name = path.rpartition("/")[2]
        newest = client.get(path, params={"cursor": encode_cursor(name, _FAR)})
        assert newest.status_code == 200, (path, newest.text)
        if any(parameter["name"] == "order" for parameter in query):
            cursor = encode_cursor(f"{name}.asc", _FAR)
            oldest = client.get(path, params={"cursor": cursor, "order": "asc"})
            assert oldest.json() == {"items": [], "next_cursor": None}


def test_a_nul_character_in_a_filter_is_refused(client, lists):
    asked = 0
    for path, query in lists.items():
        for name in texts(query):
            for text in ("\0", "a\0b"):
                response = client.get(path, params={name: text})
                assert response.status_code in {400, 422}, (path, name, response.text)
                asked += 1
    assert asked > 30
