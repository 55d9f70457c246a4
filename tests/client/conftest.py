"""A service in a thread, with models, and a server that answers as it is told."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.records import Version
from tests.api.serving import registered
from tests.client.scripted import ScriptedServer

HELD_OUT = {"rows": 100, "quantiles": [-30 + 0.025 * step for step in range(1001)]}


@dataclass
class Service:
    """The real application behind a real socket."""

    url: str
    database: Database
    blobs: Blobs

    def add(self, **fields: Any) -> Version:
        """Register a version that no training made."""
        return registered(self.database, self.blobs, **fields)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """The models `people` (height, weight, age), `heights` (given age), and `ranked`, which has
    calibrated scores; no worker, no broker.
    """
    folder = tmp_path_factory.mktemp("service")
    shutil.copy(sqlite_template, folder)
    with serving(folder) as service:
        service.add()
        service.add(name="heights", columns=["height", "weight"], context_columns=("age",))
        service.add(name="ranked", held_out=HELD_OUT)
        yield service


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    """A service without models on the data of a folder."""
    app = create_app(ApiSettings(data_dir=folder))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has ended"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Service(f"http://127.0.0.1:{port}", app.state.database, app.state.blobs)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A real server whose answers a test writes down."""
    server = ScriptedServer()
    yield server
    server.close()
