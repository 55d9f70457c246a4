"""Gain of a second process: rows/s of API processes, jobs/min of workers; first score of a replica.

All run on one machine and one data directory. API processes take turns under the load of this
process, each alone while the other is stopped; rows are sent as npy, which costs the sender little.
On a machine that others use the ratio of the rates says what two processes get of it. Two controls say
how much there is to get: two processes that score in their own memory and share nothing, which take
turns with those measured, and the processor times of a row, of the API and of the sender.
"""

import functools
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

import httpx
import numpy as np
import torch
import uvloop

from bench.load import loads, post
from bench.scoring import DIM, NPY, npy_bytes, register_model
from bench.servers import Server
from bench.service import DENSITYD, Service, running_service
from densityd.service.ports import free_port
from flows import build, compile_flow, spec_from_dict

_FLOW: dict[str, Any] = {"family": "maf", "layers": 5, "hidden": [64, 64]}
_ROWS, _CONNECTIONS = 10_000, 8
_SIZES = (1_000, _ROWS)
_JOBS = 24  # the last ends alone: with few, two workers would seem slower than they are
_CONTROL_S = 3.0
_JOB = {"target": {"potential": "U1"}, "optimisation": {"iterations": 300}}
_READY_S = 300


def replicas(*, quick: bool = False) -> str:
    """Measure rows per second of one and of two API processes; return the table."""
    return _measured(_rows_per_second, quick=quick)


def first_score(*, quick: bool = False) -> str:
    """Measure the time from a replica's readiness to its first score; return a sentence."""
    return _measured(_first_scores, quick=quick)


def workers(*, quick: bool = False) -> str:
    """Measure jobs per minute of one and of two workers; return the table."""
    return _measured(_jobs_per_minute, quick=quick)


def _measured(part: Callable[..., str], *, quick: bool) -> str:
    with running_service() as service:
        register_model(service, flow=_FLOW)
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
        return f"{machine}\n\n{part(service, rounds=1 if quick else 3)}\n"


def _rows_per_second(service: Service, *, rounds: int) -> str:
    found = {size: {1: list[_Load](), 2: list[_Load]()} for size in _SIZES}
    control: dict[int, list[float]] = {1: [], 2: []}
    with _api(service, processes=1) as one, _api(service, processes=2) as two:
        servers = {1: one, 2: two}
        for _ in range(3 * rounds):
            for size, loads_of in found.items():
                for count, server in servers.items():
                    with servers[3 - count].asleep():
                        loads_of[count].append(_load(server, size))
            with one.asleep(), two.asleep():
                _compute_alone(control)
    lines = [
        "| rows a request | API processes | rows/s | ratio | µs of a row | of its sender | processors |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for size, loads_of in found.items():
        middle = {count: _Load.median(loads) for count, loads in loads_of.items()}
        lines += [
            f"| {size:,} | {count} | {load.rate:,.0f} | {load.rate / middle[1].rate:.2f} |"
            f" {load.own_s * 1e6:.2f} | {load.sender_s * 1e6:.2f} |"
            f" {load.rate * (load.own_s + load.sender_s):.2f} |"
            for count, load in middle.items()
        ]
    return "\n".join([*lines, "", _told(control)])


@dataclass(frozen=True)
class _Load:
    """Rows per second, and the processor times of a row and of its sender in seconds."""

    rate: float
    own_s: float
    sender_s: float

    @classmethod
    def median(cls, loads: "list[_Load]") -> "_Load":
        return cls(
            *(statistics.median(values) for values in zip(*map(astuple, loads), strict=True))
        )


def _middle(found: dict[int, list[float]]) -> dict[int, float]:
    return {count: statistics.median(values) for count, values in found.items()}


def _load(server: Server, rows: int) -> _Load:
    group = [server.request("", rows)] * _CONNECTIONS
    before, own_before = server.cpu_s(), time.process_time()
    (load,) = uvloop.run(loads(server.port, [group], seconds=3.0))
    share = load.seconds / (load.seconds + load.warm_up_s)
    sent = rows * len(load.latencies_s) / share
    return _Load(
        load.rate * rows,
        (server.cpu_s() - before) / sent,
        (time.process_time() - own_before) / sent,
    )


def _first_scores(service: Service, *, rounds: int) -> str:
    seconds = []
    for _ in range(rounds):
        with _api(service, processes=1) as replica:
            began = time.perf_counter()
            body = {"rows": [[0.0] * DIM]}
            url = f"http://127.0.0.1:{replica.port}/v1/models/bench/log_prob"
            httpx.post(url, json=body, timeout=60).raise_for_status()
            seconds.append(time.perf_counter() - began)
    times = ", ".join(f"{one * 1e3:.0f}" for one in seconds)
    return f"First score of a replica, in ms after the answer that it is ready: {times}."


def _jobs_per_minute(service: Service, *, rounds: int) -> str:
    rates: dict[int, list[float]] = {1: [], 2: []}
    control: dict[int, list[float]] = {1: [], 2: []}
    _run_jobs(service, 1)  # the first job waits for what others find in the cache
    for _ in range(rounds):
        rates[1].append(_run_jobs(service, _JOBS))
        with _second_worker(service):
            rates[2].append(_run_jobs(service, _JOBS))
        _compute_alone(control)
    middle = _middle(rates)
    lines = ["| workers | jobs/min | ratio |", "| --- | --- | --- |"]
    lines += [
        f"| {count} | {middle[count]:.1f} | {middle[count] / middle[1]:.2f} |" for count in (1, 2)
    ]
    lines += ["", _told(control)]
    return "\n".join(lines)


def _compute_alone(rates: dict[int, list[float]]) -> None:
    """Add the rows per second of one and of two processes that share nothing but the machine."""
    context = multiprocessing.get_context("spawn")
    for count in (1, 2):
        ready, results = context.Barrier(count), context.SimpleQueue()
        processes = [
            context.Process(target=_score_alone, args=(ready, results)) for _ in range(count)
        ]
        for process in processes:
            process.start()
        rates[count].append(sum(results.get() for _ in processes))
        for process in processes:
            process.join()


def _score_alone(ready: Barrier, results: "SimpleQueue[float]") -> None:
    """Put the rows per second that this process scores in its own memory."""
    torch.set_num_threads(1)
    compiled = compile_flow(build(spec_from_dict(_FLOW), DIM, seed=0).eval())
    rows = np.random.default_rng(0).normal(size=(_ROWS, DIM)).astype(np.float32)
    compiled.log_prob(rows)
    ready.wait()
    began, turns = time.perf_counter(), 0
    while time.perf_counter() - began < _CONTROL_S:
        compiled.log_prob(rows)
        turns += 1
    results.put(turns * _ROWS / (time.perf_counter() - began))


def _told(control: dict[int, list[float]]) -> str:
    ratios = sorted(two / one for one, two in zip(control[1], control[2], strict=True))
    return (
        "Two processes that score alone, in the same run, give"
        f" {statistics.median(ratios):.2f} times one ({ratios[0]:.2f} to {ratios[-1]:.2f})."
    )


def _run_jobs(service: Service, count: int) -> float:
    """Return the jobs per minute, from the first request to the last end.

    Each is waited for as a client does, with one request: asking again and again would take a
    twentieth of a processor from the second worker.
    """
    began = time.perf_counter()
    ids = [
        service.client.post("/v1/jobs/variational", json={"model_name": "u1", **_JOB})
        .raise_for_status()
        .json()["id"]
        for _ in range(count)
    ]
    for job_id in ids:
        state = "queued"
        while state in ("queued", "running"):
            asked = service.client.get(f"/v1/jobs/{job_id}?wait=60").raise_for_status()
            state = asked.json()["state"]
        if state != "succeeded":
            raise RuntimeError(f"job {job_id}: {state}")
    return 60 * count / (time.perf_counter() - began)


@contextmanager
def _api(service: Service, *, processes: int) -> Iterator[Server]:
    """Run a further API on the data directory of a service, and yield it once it is ready."""
    port = free_port("127.0.0.1", 0)
    variables = {
        "DENSITYD_PORT": str(port),
        "DENSITYD_API_PROCESSES": str(processes),
        "DENSITYD_PRELOAD": "bench",
    }
    with _process(service, "app", variables) as process:
        deadline = time.monotonic() + _READY_S
        ready = 0  # answers in a row: each may be another process's
        while ready < (1 if processes == 1 else 20):
            with suppress(httpx.HTTPError):
                is_ready = httpx.get(f"http://127.0.0.1:{port}/readyz").is_success
                ready = ready + 1 if is_ready else 0
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the API does not become ready")
            time.sleep(0.0 if ready else 0.02)
        yield Server(f"{processes} processes", port, process.pid, _request)


@functools.cache
def _request(_text: str, rows: int) -> bytes:
    body = npy_bytes(np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float32))
    return post("/v1/models/bench/log_prob", body, media_type=NPY)


@contextmanager
def _second_worker(service: Service) -> Iterator[None]:
    variables = {"DENSITYD_WORKER_NAME": "second"}
    with _process(service, "workers", variables):
        check = [str(DENSITYD), "worker", "--check"]
        environment = _environment(service, variables)
        deadline = time.monotonic() + _READY_S
        while subprocess.run(check, env=environment, capture_output=True, check=False).returncode:  # noqa: S603
            if time.monotonic() > deadline:
                raise RuntimeError("the second worker does not start")
        yield


@contextmanager
def _process(
    service: Service, module: str, variables: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(  # noqa: S603  our own module
        [sys.executable, "-m", module],
        env=_environment(service, variables),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _environment(service: Service, variables: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "DENSITYD_DATA_DIR": str(service.data_dir), **variables}
