"""Two APIs and a worker on PostgreSQL and Redis behind HAProxy without retries, with keys.

A caller sends scores all the time; nothing may be lost while processes are replaced, and while the
database or Redis is away.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from densityd.service.ports import free_port
from models_store.database.database import Database, migrate
from models_store.files.local_blobs import LocalBlobs
from models_store.keys import Keys, Scope
from tests.app.serving import registered
from tests.servers import Guarded, PostgresServer, RedisServer, tied

HAPROXY = shutil.which("haproxy")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed"),
]
AWAY_S = 20.0
_SEEN_S = 2.0
PAUSE_S = 0.025  # about 40 requests a second
BODY = {"rows": [[170, 70, 40]]}

_HAPROXY = """
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend callers
    bind 127.0.0.1:{port}
    default_backend apis
backend apis
    balance roundrobin
    option httpchk GET /readyz
    default-server inter 300ms fall 1 rise 1 check
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
"""


class Cluster:
    """The processes of a cluster, of which each can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.postgres, self.redis = PostgresServer(), RedisServer()
        url = self.postgres.create("cluster")
        migrate(url)
        database = Database(url)
        registered(database, LocalBlobs(folder / "blobs"))
        token = Keys(database).create("default", Scope.WRITE).token
        database.dispose()
        self.headers = {"Authorization": f"Bearer {token}"}
        self._folder = folder
        self._environment = {
            **os.environ,
            "DENSITYD_DATABASE_URL": url,
            "DENSITYD_BROKER_URL": self.redis.url,
            "DENSITYD_STORE_URL": str(folder / "blobs"),
            "DENSITYD_PRELOAD": "people",
            "DENSITYD_DRAIN_DELAY_S": "3",
            "DENSITYD_READY_LOOK_S": "1",
        }
        self.ports = {name: free_port("127.0.0.1", 0) for name in "ab"}
        self.processes = {name: self._start_api(name) for name in "ab"}
        self.worker = self._spawn("worker", "workers")
        for name in "ab":
            self.wait_ready(name)
        port = free_port("127.0.0.1", 0)
        config = folder / "haproxy.cfg"
        config.write_text(_HAPROXY.format(port=port, **self.ports))
        self._proxy = Guarded(
            [str(HAPROXY), "-f", config, "-db"], end=signal.SIGTERM, log=folder / "haproxy.log"
        )
        self.url = f"http://127.0.0.1:{port}"

        def look() -> None:
            httpx.get(f"{self.url}/readyz").raise_for_status()

        self._proxy.wait_until(look, errors=httpx.HTTPError)

    def _spawn(self, name: str, module: str, **variables: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own module
                tied(sys.executable, "-P", "-m", module),
                env={
                    **self._environment,
                    "DENSITYD_DATA_DIR": str(self._folder / name),
                    **variables,
                },
                stderr=log,
            )

    def _start_api(self, name: str) -> "subprocess.Popen[bytes]":
        return self._spawn(name, "app", DENSITYD_PORT=str(self.ports[name]))

    def wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + 200
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.ports[name]}/readyz").status_code == 200:
                    return
            assert time.monotonic() < deadline, (self._folder / f"{name}.log").read_text()[-3000:]
            time.sleep(0.1)

    def replace(self, name: str) -> None:
        """Let one API drain and end, and start another in its place."""
        self.processes[name].send_signal(signal.SIGTERM)
        assert self.processes[name].wait(60) == 0
        self.processes[name] = self._start_api(name)
        self.wait_ready(name)
        time.sleep(_SEEN_S)  # as an orchestrator waits until the balancer has seen it

    def close(self) -> None:
        for process in (*self.processes.values(), self.worker):
            process.kill()
            process.wait()
        self._proxy.stop()
        self.redis.close()
        self.postgres.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    cluster = Cluster(folder)
    yield cluster
    cluster.close()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def asking(cluster: Cluster) -> Iterator[Counter[str]]:
    """Send scores all the time, and count how they end."""
    ends: Counter[str] = Counter()
    stop = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=cluster.url, headers=cluster.headers, timeout=30) as client:
            while not stop.wait(PAUSE_S):
                try:
                    answer = client.post("/v1/models/people/log_prob", json=BODY)
                    ends[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    ends[type(error).__name__] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ends
    finally:
        stop.set()
        thread.join()


def test_a_rolling_restart_loses_no_request(cluster: Cluster) -> None:
    with asking(cluster) as ends:
        for name in "ab":
            cluster.replace(name)
    print("rolling restart:", dict(ends))  # noqa: T201
    assert set(ends) == {"200"}


def test_scores_go_on_while_the_database_is_away(cluster: Cluster) -> None:
    with asking(cluster) as ends:
        time.sleep(2)
        cluster.postgres.kill()
        time.sleep(AWAY_S)
        for port in cluster.ports.values():
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        cluster.postgres.restart()
        time.sleep(2)
    print("database away:", dict(ends))  # noqa: T201
    assert set(ends) == {"200"}


def test_jobs_run_while_redis_is_away(cluster: Cluster) -> None:
    cluster.redis.kill()
    with (
        asking(cluster) as ends,
        httpx.Client(base_url=cluster.url, headers=cluster.headers, timeout=60) as client,
    ):
        ids = []
        for seed in range(6):
            body = {"model": "people", "n": 1000, "seed": seed}
            answer = client.post("/v1/jobs/sampling", json=body)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        deadline = time.monotonic() + 200
        states = dict.fromkeys(ids, "queued")
        while set(states.values()) != {"succeeded"}:
            assert time.monotonic() < deadline, states
            time.sleep(0.5)
            states = {one: client.get(f"/v1/jobs/{one}").json()["state"] for one in ids}
    cluster.redis.start()
    print("Redis away:", dict(ends))  # noqa: T201
    assert set(ends) == {"200"}
