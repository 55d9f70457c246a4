"""The API as a process of its own with small limits, and a worker where a job is to run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from app.settings import ApiSettings
from densityd.service import private_redis
from models_store.database.database import Database
from models_store.files.local_blobs import LocalBlobs
from tests.app.serving import registered
from tests.faults.invariants import MIB, resident_bytes
from tests.ports import free_port
from tests.servers import tied
from tests.waiting import wait_until

TIMEOUT_S = 2.0
MAX_BYTES = 8 * MIB
MAX_CONNECTIONS = 1_200
LIMITS: dict[str, Any] = {
    "header_timeout_s": TIMEOUT_S,
    "body_timeout_s": TIMEOUT_S,
    "write_timeout_s": TIMEOUT_S,
    "max_connections": MAX_CONNECTIONS,
    "max_upload_bytes": MAX_BYTES,
    "max_score_bytes": MAX_BYTES,
    "max_json_bytes": MIB,
    "max_table_bytes": 16 * MIB,
    "max_rows": 1_000_000,
    "max_columns": 100,
    "parse_memory_bytes": 256 * MIB,
    "max_queued_jobs": 5,
    "model_cache_bytes": 2 * MIB,
}
ROWS = json.dumps({"rows": [[171.5, 68.2, 33.0], [180.1, 80.9, 51.0]]}).encode()
JSON = {"Content-Type": "application/json"}
_START_S = 300.0


@dataclass
class Service:
    """A running service.

    Args:
        folder: its data directory.
        port: where it listens.
        pid: the API process.
        database: its rows.
        blobs: its files.
    """

    folder: Path
    port: int
    pid: int
    database: Database
    blobs: LocalBlobs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=120, verify=False)

    def log_prob(self, model: str) -> bytes:
        """The answer for two rows, byte by byte."""
        with self.client() as client:
            response = client.post(f"/v1/models/{model}/log_prob", content=ROWS, headers=JSON)
        assert response.status_code == 200, response.text
        return response.content

    def left(self) -> list[Path]:
        """Files that are neither a table nor a model yet."""
        return list((self.folder / "blobs" / "staging").glob("*"))


@contextmanager
def running_service(folder: Path, template: Path) -> Iterator[Service]:
    """The API, with the models `people` and `others`, of which the attacks ask the first."""
    shutil.copy(template, folder)
    settings = ApiSettings(data_dir=folder, **LIMITS)
    database = Database(settings.resolved_database_url)
    blobs = LocalBlobs(settings.blob_root)
    registered(database, blobs, name="people")
    registered(database, blobs, name="others", seed=1)
    port = free_port()
    with process(folder, "app", DENSITYD_PORT=str(port)) as started:
        service = Service(folder, port, started.pid, database, blobs)
        wait_until(lambda: answers(service.url, started), within_s=_START_S, what="no answer")
        yield service
        started.send_signal(signal.SIGTERM)
        assert started.wait(120) == 0
    database.dispose()


@contextmanager
def running_worker(service: Service) -> Iterator[None]:
    """Redis and a worker for the service's jobs."""
    socket = service.folder / "redis" / "redis.sock"
    socket.parent.mkdir(exist_ok=True)
    with (service.folder / "redis.log").open("wb") as log:
        redis = subprocess.Popen(tied(*private_redis.build_command(socket)), stdout=log)  # noqa: S603 - ours
    try:
        with process(service.folder, "workers", DENSITYD_CHECKPOINT_INTERVAL_S="0"):
            yield
    finally:
        redis.kill()
        redis.wait()


@contextmanager
def process(folder: Path, module: str, **variables: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A module as a process; its log is in the folder."""
    limits = {f"DENSITYD_{name.upper()}": str(value) for name, value in LIMITS.items()}
    environment = os.environ | limits | {"DENSITYD_DATA_DIR": str(folder)} | variables
    with (folder / f"{module}.log").open("wb") as log:
        started = subprocess.Popen(  # noqa: S603 - our own command
            tied(sys.executable, "-P", "-m", module), env=environment, stderr=log
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def answers(url: str, started: "subprocess.Popen[bytes]") -> bool:
    assert started.poll() is None, "the process ended early"
    try:
        return httpx2.get(f"{url}/readyz", timeout=60, verify=False).status_code == 200
    except httpx2.TransportError:
        return False


def idle_bytes(service: Service) -> int:
    """What the process takes once everything was used for the first time."""
    service.log_prob("people")
    service.log_prob("others")
    with service.client() as client:
        table = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(50))
        csv = {"Content-Type": "text/csv"}
        uploaded = client.post("/v1/datasets", content=table, headers=csv)
        assert uploaded.status_code == 201, uploaded.text
        for kind in ("application/json", "text/csv", "application/vnd.apache.parquet"):
            sampled = client.post(
                "/v1/models/people/sample", json={"n": 50_000}, headers={"Accept": kind}
            )
            assert sampled.status_code == 200
    return resident_bytes(service.pid)
