"""Whole service for a measurement: `densityd up` on a free port and a folder of its own."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from flows import Flow
from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.files.checkpoints import load_model
from models_store.records import Version
from models_store.registry import Registry

DIM = 21
FLOW: dict[str, Any] = {"family": "maf", "layers": 5, "hidden": [512], "activation": "relu"}
NPY = "application/x-npy"
_MODEL = "bench"
_START_S = 300  # kernels may have to be compiled
DENSITYD = Path(sys.executable).with_name("densityd")


@dataclass(frozen=True)
class Service:
    """Running service.

    Attributes:
        client: Client of it.
        pid: Process that started all others.
        api_pid: Process of its API.
        data_dir: Its data directory.
        densityd: Its command.
    """

    client: httpx.Client
    pid: int
    api_pid: int
    data_dir: Path
    densityd: Path

    def new_key(self) -> str:
        """Return a key with scope `read`; the service then refuses requests without a key."""
        made = subprocess.run(  # noqa: S603  our own command line
            [self.densityd, "keys", "create", "--scope", "read", "--json"],
            env={**os.environ, "DENSITYD_DATA_DIR": str(self.data_dir)},
            check=True,
            capture_output=True,
        )
        return str(json.loads(made.stdout)["token"])


@contextmanager
def running_service(densityd: Path = DENSITYD) -> Iterator[Service]:
    """Start the service, yield it, stop it.

    Args:
        densityd: Command of the environment that has the service.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="densityd-bench-") as folder:
        process = subprocess.Popen(  # noqa: S603  our own command line
            [densityd, "up", "--port", str(port), "--data-dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                _wait_until_ready(client, process)
                yield Service(client, process.pid, _api_pid(process.pid), Path(folder), densityd)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def finished_job(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Submit a training job, wait for its end, return it."""
    job: dict[str, Any] = client.post("/v1/jobs/training", json=body).raise_for_status().json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.5)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "succeeded":
        raise RuntimeError(f"job {job['state']}: {job['error']}")
    return job


def npy_bytes(table: np.ndarray) -> bytes:
    """Return the table as an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def register_model(service: Service) -> None:
    """Train a MAF 5 x 512 of 21 columns for two epochs, as the model `bench`."""
    table = np.random.default_rng(0).normal(size=(5_000, DIM))
    dataset = service.client.post(
        "/v1/datasets", content=npy_bytes(table), headers={"Content-Type": NPY}
    ).raise_for_status()
    wishes = {"model_name": _MODEL, "dataset_id": dataset.json()["id"], "flow": FLOW}
    finished_job(service.client, {**wishes, "optimisation": {"max_epochs": 2}})


def stored_version(service: Service) -> Version:
    """Return the version of that model."""
    database = Database(f"sqlite:///{service.data_dir / 'densityd.sqlite3'}")
    try:
        return Registry(database).resolve("default", _MODEL)
    finally:
        database.dispose()


def stored_flow(service: Service) -> Flow:
    """Return the flow of that model."""
    version = stored_version(service)
    blobs = Blobs.in_folder(service.data_dir / "blobs")
    return load_model(blobs, version.checkpoint_key, version.checkpoint_sha256)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with code {process.returncode}")
        try:
            if client.get("/readyz").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready within {_START_S} s")


def _api_pid(parent: int) -> int:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"app" in command:
            return int(child)
    raise RuntimeError("the service has no API process")
