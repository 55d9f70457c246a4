"""Files that are deleted while a caller reads them slowly."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.auth import key_checks
from app.connections.groups import CONNECTION
from models_store.database.database import Database
from models_store.files.local_blobs import LocalBlobs
from tests.app.conftest import CSV, JSON
from tests.app.serving import registered
from workers.supervisor.supervisor import Supervisor

ROWS = 20_000
VERSION = "/v1/models/people/versions/1"
pytestmark = pytest.mark.usefixtures("inline_trainer")


class Line:
    """A connection whose caller reads the first bytes of a response, and then nothing."""

    def __init__(self) -> None:
        self.broken_off = asyncio.Event()
        self.lost = False
        self.begun = asyncio.Event()

    def assign(self, caller: str) -> None:
        """Belong to a caller."""

    def break_off(self) -> None:
        self.broken_off.set()

    async def receive(self) -> dict[str, Any]:
        await self.broken_off.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.begun.set()
            await self.broken_off.wait()


def uploaded(client: TestClient) -> str:
    table = np.random.default_rng(0).normal([40, 170, 70], [15, 10, 12], size=(ROWS, 3))
    lines = ["age,height,weight", *(",".join(map(repr, row)) for row in table.tolist())]
    response = client.post("/v1/datasets", content="\n".join(lines), headers=CSV)
    assert response.status_code == 201, response.text
    return f"/v1/datasets/{response.json()['id']}"


def sampled(client: TestClient, supervisor: Supervisor) -> str:
    body = json.dumps({"model": "people:1", "n": ROWS})
    job = client.post("/v1/jobs/sampling", content=body, headers=JSON).json()
    assert supervisor.run_next()
    return f"/v1/jobs/{job['id']}/result"


@pytest.mark.parametrize(
    ("read", "accept"),
    [
        (VERSION + "/checkpoint", "*/*"),
        (VERSION + "/export", "*/*"),
        ("rows", "text/csv"),
        ("result", "*/*"),
    ],
)
def test_a_response_ends_a_while_after_its_file_was_deleted(
    client: TestClient,
    database: Database,
    blobs: LocalBlobs,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
    read: str,
    accept: str,
) -> None:
    monkeypatch.setattr(key_checks, "_LOOK_S", 0.01)
    monkeypatch.setattr(key_checks, "_DELETED_S", 0.0)
    registered(database, blobs)
    owner = VERSION
    if read == "rows":
        owner = uploaded(client)
        read = f"{owner}/rows"
    elif read == "result":
        owner = read = sampled(client, supervisor)
    query = b"limit=1000000" if read.endswith("/rows") else b""

    async def main() -> None:
        line = Line()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": read,
            "raw_path": read.encode(),
            "query_string": query,
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"localhost"), (b"accept", accept.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "state": {CONNECTION: line},
        }
        app: Any = client.app
        reading = asyncio.create_task(app(scope, line.receive, line.send))
        async with asyncio.timeout(60):
            await line.begun.wait()
            await asyncio.sleep(0.1)
            assert not line.broken_off.is_set()
            deleted = await asyncio.to_thread(client.delete, owner)
            assert deleted.status_code == 204
            await line.broken_off.wait()
            await asyncio.wait({reading})

    assert client.portal is not None
    client.portal.call(main)
