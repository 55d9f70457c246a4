"""Training of MAF 5 x 512 on 21 columns, batch 100, one thread: nflows, `flows`, the service."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import httpx
import numpy as np
import torch

from bench.peer import epoch_seconds, maf
from bench.scoring import DIM, FLOW, NPY, npy_bytes
from bench.service import finished_job, running_service
from flows import FitOptions, build, fit, spec_from_dict

TRAIN_ROWS, VALIDATION_ROWS = 40_000, 5_000
OPTIMISATION: dict[str, Any] = {
    "batch_size": 100,
    "learning_rate": 1e-4,
    "weight_decay": 1e-6,
    "max_gradient_norm": 5.0,
    "patience": 1000,
}


def measure(epochs: int = 4, rounds: int = 4) -> str:
    """Alternate the three, each in a fresh process, and return a table of medians and ratios.

    The first epoch of each run warms up and is left out.
    """
    peer: list[float] = []
    direct: list[float] = []
    served: list[float] = []
    around: list[float] = []
    with running_service() as service:
        dataset = service.client.post(
            "/v1/datasets", content=npy_bytes(_table()), headers={"Content-Type": NPY}
        ).raise_for_status()
        body = {
            "model_name": "bench",
            "dataset_id": dataset.json()["id"],
            "flow": FLOW,
            "split": {"train": 0.8, "shuffle": False},
            "optimisation": OPTIMISATION | {"max_epochs": epochs, "seed": 0},
        }
        for _ in range(rounds):
            peer += _in_fresh_process(peer_seconds, epochs)
            direct += _in_fresh_process(direct_seconds, epochs)
            of_epochs, whole = _served_seconds(service.client, body)
            served += of_epochs
            around.append(whole - statistics.mean(of_epochs) * epochs)
    peer_s, direct_s, served_s = (statistics.median(s) for s in (peer, direct, served))
    return (
        "| training, MAF 5 x 512, D = 21, batch 100 | seconds an epoch | rows/s | ratio to nflows |"
        "\n| --- | --- | --- | --- |\n"
        + "".join(
            f"| {name} | {s:.2f} | {TRAIN_ROWS / s:,.0f} | {peer_s / s:.2f} |\n"
            for name, s in (
                ("nflows, DataLoader, Adam", peer_s),
                ("`flows.training.fit`, called directly", direct_s),
                ("through the worker", served_s),
            )
        )
        + f"\nThe worker adds {100 * (served_s / direct_s - 1):.1f} % an epoch and"
        f" {statistics.median(around):.1f} s a job (start of the process, test scores, model file).\n"
    )


def peer_seconds(epochs: int) -> list[float]:
    """Return seconds per epoch of nflows."""
    torch.set_num_threads(1)
    return epoch_seconds(maf(DIM, layers=5, hidden=512), *_rows(), epochs=epochs)


def direct_seconds(epochs: int) -> list[float]:
    """Return seconds per epoch of `flows.training.fit`."""
    torch.set_num_threads(1)
    train, validation = _rows()
    moments = (train.mean(dim=0), train.std(dim=0))
    flow = build(spec_from_dict(FLOW), DIM, standardise=moments, seed=0)
    options = FitOptions(max_epochs=epochs, seed=0, **OPTIMISATION)
    seconds = []
    started = time.perf_counter()
    for _ in fit(flow, train, validation, options=options):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return seconds


def _in_fresh_process(seconds: Callable[[int], list[float]], epochs: int) -> list[float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(seconds, epochs).result()[1:]


def _table() -> np.ndarray:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(DIM, DIM)) / DIM**0.5
    rows = TRAIN_ROWS + 2 * VALIDATION_ROWS
    return np.tanh(generator.normal(size=(rows, DIM)) @ mixing).astype(np.float32)


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.from_numpy(_table())
    return rows[:TRAIN_ROWS], rows[TRAIN_ROWS : TRAIN_ROWS + VALIDATION_ROWS]


def _served_seconds(client: httpx.Client, body: dict[str, Any]) -> tuple[list[float], float]:
    """Return seconds between the job's recorded epoch events, and of the whole job."""
    job = finished_job(client, body)
    events = client.get(f"/v1/jobs/{job['id']}/events", params={"format": "json"}).json()["items"]
    times = [_seconds(e["created_at"]) for e in events if e["event"] == "epoch"]
    whole = _seconds(job["finished_at"]) - _seconds(job["started_at"])
    return [b - a for a, b in pairwise(times)], whole


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()
