import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import Database, migrate
from models_store.files.blobs import STORE_ID, Blobs
from models_store.keys import Keys, Scope
from models_store.registry import Registry
from tests.api.serving import registered, stores
from tests.store.makers import PROJECT
from tests.support.servers import free_port, tied

CSV = {"Content-Type": "text/csv"}
JSON = {"Content-Type": "application/json"}
FIT = {"model_name": "m", "target": {"potential": "U1"}}  # what needs no dataset
TABLE = b"height,weight\n171.5,68.2\n180.1,80.9\n165.0,55.3\n177.7,71.0\n"


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the schema, to copy."""
    file = tmp_path_factory.mktemp("migrated") / "densityd.sqlite3"
    migrate(f"sqlite:///{file}")
    return file


@pytest.fixture
def data_dir(tmp_path: Path, migrated_database: Path) -> Path:
    """A data directory with an empty database and no broker."""
    shutil.copy(migrated_database, tmp_path)
    return tmp_path


@pytest.fixture
def setting_values() -> dict[str, Any]:
    """Settings of the test's application; a test module overrides this to change them."""
    return {}


@pytest.fixture
def settings(data_dir: Path, setting_values: dict[str, Any]) -> ApiSettings:
    return ApiSettings(data_dir=data_dir, **setting_values)


@pytest.fixture
def client(settings: ApiSettings) -> Iterator[TestClient]:
    """The whole application, without a server."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def shared_setting_values() -> dict[str, Any]:
    """Settings of the module's application; a test module overrides this to change them."""
    return {}


@pytest.fixture(scope="module")
def shared_settings(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
    shared_setting_values: dict[str, Any],
) -> ApiSettings:
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(migrated_database, folder)
    return ApiSettings(data_dir=folder, **shared_setting_values)


@pytest.fixture(scope="module")
def shared_client(shared_settings: ApiSettings) -> Iterator[TestClient]:
    """One application for all tests of a module that leave nothing in it.

    It ends with the module: its threads draw random numbers, which Hypothesis notices.
    """
    with TestClient(create_app(shared_settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def two_versions(client: TestClient) -> None:
    """Two versions of `people`."""
    for seed in (1, 2):
        registered(*stores(client), seed=seed)


@pytest.fixture
def registry(client: TestClient) -> Registry:
    registry: Registry = client.app.state.registry  # type: ignore[attr-defined]  # a FastAPI
    return registry


@pytest.fixture
def blobs(client: TestClient) -> Blobs:
    blobs: Blobs = client.app.state.blobs  # type: ignore[attr-defined]  # a FastAPI
    return blobs


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """The URL of a real server process with the model `people`."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated_database, folder)
    with served(folder) as url:
        yield url


@pytest.fixture(scope="session")
def guarded_folder(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """The data directory of the server that asks for a key."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(migrated_database, folder)
    return folder


@pytest.fixture(scope="session")
def guarded_server(guarded_folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A server that asks for a key, with the time-outs of the product, and the headers of an admin."""
    headers = admin_of(guarded_folder, PROJECT)
    with served(guarded_folder) as url:
        yield url, headers


def admin_of(folder: Path, project: str) -> dict[str, str]:
    """The headers of an admin of a project of the service in a folder."""
    database = Database(ApiSettings(data_dir=folder).resolved_database_url)
    token = Keys(database).create(project, Scope.ADMIN).token
    database.dispose()
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def served(folder: Path, **variables: str) -> Iterator[str]:
    """The URL of a server process on the database in a folder, to which `people` is added."""
    add_model(folder)
    with listening(folder, **variables) as (url, process):
        yield url
    assert process.returncode == 0


def add_model(folder: Path, **options: Any) -> None:
    """Add `people`, or what the options say, to the service in a folder."""
    settings = ApiSettings(data_dir=folder)
    database = Database(settings.resolved_database_url)
    registered(database, Blobs.in_folder(settings.blob_root), **options)
    database.dispose()


@contextmanager
def listening(
    folder: Path, *command: str, **variables: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The URL and the process of an API, or of another command, on a data directory."""
    port = free_port()
    own = {"DENSITYD_DATA_DIR": str(folder), "DENSITYD_PORT": str(port)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            tied(sys.executable, "-P", *(command or ("-m", "app"))),
            env=os.environ | own | variables,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(120)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended early"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the server does not listen")


@cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of an application, which takes a third of a second to make."""
    return create_app(ApiSettings()).openapi()


def asgi_scope(path: str, kind: str = "application/json", query: str = "") -> dict[str, Any]:
    """A POST, for an application that is called without a client."""
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"content-type", kind.encode()), (b"transfer-encoding", b"chunked")],
    }


def files_of(settings: ApiSettings) -> list[Path]:
    found = settings.blob_root.rglob("*")
    return [path for path in found if path.is_file() and path.name != STORE_ID]


def assert_nothing_was_left(client: TestClient, settings: ApiSettings) -> None:
    assert client.get("/v1/datasets").json()["items"] == []
    assert files_of(settings) == []


def slug(response: httpx2.Response) -> str:
    """Return the type of the problem that a response is."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return str(response.json()["type"]).removeprefix("/problems/")


def assert_refused(response: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    """Look at the status and the type of a problem, which is returned."""
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["type"]) == (status, f"/problems/{slug}")
    assert response.headers["content-type"] == "application/problem+json"
    return problem
