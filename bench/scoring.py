"""`/log_prob` with 10,000 rows as npy against the same flow called in this process."""

import io
import statistics
import time

import numpy as np
import torch

from bench.service import Service, finished_job, running_service
from flows import Flow, compile_flow
from models_store.database.database import Database
from models_store.files.checkpoints import load_model
from models_store.files.local_blobs import LocalBlobs
from models_store.registry import Registry, Version

DIM = 21
FLOW = {"family": "maf", "layers": 5, "hidden": [512], "activation": "relu"}
NPY = "application/x-npy"


def measure(rows: int = 10_000, rounds: int = 40) -> str:
    """Alternate HTTP and in-process calls and return a table of the ratio."""
    torch.set_num_threads(1)
    with running_service() as service:
        register_model(service)
        compiled = compile_flow(stored_flow(service))
        table = np.random.default_rng(1).normal(size=(rows, DIM)).astype(np.float32)
        body = npy_bytes(table)
        headers = {"Content-Type": NPY, "Accept": NPY}
        over_http: list[float] = []
        in_process: list[float] = []
        for _ in range(rounds + 5):
            started = time.perf_counter()
            answer = service.client.post(
                "/v1/models/bench/log_prob", content=body, headers=headers
            ).raise_for_status()
            between = time.perf_counter()
            expected = compiled.log_prob(table)
            in_process.append(time.perf_counter() - between)
            over_http.append(between - started)
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), expected, atol=1e-3)
        http_s, process_s = (statistics.median(s[5:]) for s in (over_http, in_process))
        return (
            "| log_prob, 10,000 x 21 as npy | rows/s | share |\n| --- | --- | --- |\n"
            f"| in process | {rows / process_s:,.0f} | 1 |\n"
            f"| over HTTP | {rows / http_s:,.0f} | {process_s / http_s:.2f} |\n"
        )


def npy_bytes(table: np.ndarray) -> bytes:
    """Return the table as an npy file."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def register_model(service: Service) -> None:
    """Train a MAF for two epochs, as the model `bench`."""
    table = np.random.default_rng(0).normal(size=(5_000, DIM))
    dataset = service.client.post(
        "/v1/datasets", content=npy_bytes(table), headers={"Content-Type": NPY}
    ).raise_for_status()
    body = {
        "model_name": "bench",
        "dataset_id": dataset.json()["id"],
        "flow": FLOW,
        "optimisation": {"max_epochs": 2},
    }
    finished_job(service.client, body)


def stored_version(service: Service) -> Version:
    """Return the version of the model `bench` that the service holds."""
    database = Database(f"sqlite:///{service.data_dir / 'densityd.sqlite3'}")
    try:
        return Registry(database).resolve("default", "bench")
    finally:
        database.dispose()


def stored_flow(service: Service) -> Flow:
    """Return the flow of the model `bench`."""
    version = stored_version(service)
    blobs = LocalBlobs(service.data_dir / "blobs")
    return load_model(blobs, version.checkpoint_key, version.checkpoint_sha256)
