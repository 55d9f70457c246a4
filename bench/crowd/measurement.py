"""Latency of one tenant beside two thousand connections of another: scores and `/livez`."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from bench.crowd.callers import KINDS
from bench.load import post
from bench.scoring import DIM, register_model
from bench.service import DENSITYD, Service, resident_bytes, running_service

CONNECTIONS = 2_000
_PAUSE_S = 0.01
_SETTLE_S = 30.0  # the service gives memory back twice, 11 and 21 s after the last connections
_MIB = 2**20


def measure(*, quick: bool = False) -> str:
    """Run crowds of each kind, one after the other, and return a table."""
    seconds = 5.0 if quick else 20.0
    crowds: dict[str, list[str]] = {"nobody": []}
    crowds |= {kind: [kind] for kind in KINDS}
    crowds["idle, half heads, bodies"] = ["idle", "half heads", "bodies"]
    crowds["streams, bodies, lists, zstd"] = ["streams", "bodies", "lists", "zstd"]
    with running_service() as service:
        few, many = (_tenant(service, project) for project in ("few", "many"))
        rows = []
        with _workers_asleep(service):
            job = _waiting_job(service, many)
            _probe(service, few, seconds=2.0)
            time.sleep(_SETTLE_S)
            idle = resident_bytes(service.api_pid, peak=False)
            for name, kinds in crowds.items():
                with _crowd(service, many, job, kinds):
                    seen = _probe(service, few, seconds=seconds)
                time.sleep(_SETTLE_S)
                grown = (resident_bytes(service.api_pid, peak=False) - idle) / _MIB
                rows.append(f"| {name} | {seen} | {grown:+.0f} |\n")
                print(rows[-1], seen.reasons, file=sys.stderr)
    return (
        f"{CONNECTIONS:,} connections of one key that ask again at once, and another project's"
        " scores of one row meanwhile (ms):\n\n"
        "| crowd | scores | median | p99 | worst | not answered | /livez p99 | worst"
        " | MiB more than idle, afterwards |\n| --- |" + " --- |" * 8 + "\n" + "".join(rows)
    )


@dataclasses.dataclass
class _Seen:
    scores_s: list[float] = dataclasses.field(default_factory=list)
    livez_s: list[float] = dataclasses.field(default_factory=list)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)

    def __str__(self) -> str:
        median, p99, worst = np.percentile(self.scores_s or [np.nan], (50, 99, 100)) * 1e3
        livez, longest = np.percentile(self.livez_s or [np.nan], (99, 100)) * 1e3
        return (
            f"{len(self.scores_s):,} | {median:.1f} | {p99:.1f} | {worst:.1f}"
            f" | {self.reasons.total()} | {livez:.1f} | {longest:.1f}"
        )


def _probe(service: Service, token: str, *, seconds: float) -> _Seen:
    """Request scores on one connection, and `/livez` on a new one each time."""
    port = httpx.URL(str(service.client.base_url)).port
    assert port is not None
    body = json.dumps({"rows": [[0.0] * DIM]}).encode()
    headers = {"Authorization": f"Bearer {token}"}
    score = post("/v1/models/bench/log_prob", body, headers=headers)
    look = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    seen = _Seen()
    asyncio.run(_ask_all(port, score, look, seconds=seconds, seen=seen))
    return seen


async def _ask_all(port: int, score: bytes, look: bytes, *, seconds: float, seen: _Seen) -> None:
    until = time.perf_counter() + seconds
    await asyncio.gather(
        _ask(port, score, until, seen, seen.scores_s, pause_s=_PAUSE_S, keep=True),
        _ask(port, look, until, seen, seen.livez_s, pause_s=5 * _PAUSE_S, keep=False),
    )


async def _ask(  # noqa: PLR0913 - each is another thing
    port: int,
    request: bytes,
    until: float,
    seen: _Seen,
    latencies_s: list[float],
    *,
    pause_s: float,
    keep: bool,
) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while time.perf_counter() < until:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                reader, writer = connection
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                seen.reasons[head[9:12].decode()] += 1
            latencies_s.append(time.perf_counter() - began)
        except (OSError, EOFError, TimeoutError) as error:
            seen.reasons[type(error).__name__] += 1
            keep_it = False
        else:
            keep_it = keep
        if connection is not None and not keep_it:
            connection[1].close()
            connection = None
        await asyncio.sleep(pause_s)
    if connection is not None:
        connection[1].close()


def _tenant(service: Service, project: str) -> str:
    """Return a key of a project that has the model `bench`."""
    made = subprocess.run(  # noqa: S603  our own command line
        [DENSITYD, "keys", "create", "--project", project, "--scope", "write", "--json"],
        env={**os.environ, "DENSITYD_DATA_DIR": str(service.data_dir)},
        check=True,
        capture_output=True,
    )
    token = str(json.loads(made.stdout)["token"])
    with _client(service, token) as client:
        register_model(dataclasses.replace(service, client=client))
    return token


def _client(service: Service, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=service.client.base_url, headers=headers, timeout=600)


def _waiting_job(service: Service, token: str) -> str:
    body = {"model_name": "other", "target": {"potential": "U1"}}
    with _client(service, token) as client:
        jobs = [client.post("/v1/jobs/variational", json=body) for _ in range(300)]
    return str(jobs[0].raise_for_status().json()["id"])


@contextmanager
def _crowd(service: Service, token: str, job: str, kinds: list[str]) -> Iterator[None]:
    """Run the connections in a separate process of low priority."""
    if not kinds:
        yield
        return
    port = str(httpx.URL(str(service.client.base_url)).port)
    command = [sys.executable, "-m", "bench.crowd.callers", port, token, job, *kinds]
    process = subprocess.Popen(  # noqa: S603  our own command line
        [*command, "--connections", str(CONNECTIONS)]
    )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("the crowd has left")
    finally:
        process.kill()
        process.wait()


@contextmanager
def _workers_asleep(service: Service) -> Iterator[None]:
    """Stop the worker, so that the jobs wait, and the processor is the API's."""
    parent = int(Path(f"/proc/{service.api_pid}/stat").read_text().rpartition(")")[2].split()[1])
    asleep = [pid for pid in _below(parent) if b"workers" in _command(pid)]
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _below(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from _below(int(child))


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
