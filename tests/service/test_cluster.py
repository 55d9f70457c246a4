"""Two APIs and two workers on PostgreSQL, Redis and an S3 server, with keys.

They are behind HAProxy, which looks at their health and sends nothing twice, and behind nginx, which
does neither but for another try where the first was not sent. A caller of each sends scores all the
time; nothing may be lost while processes are replaced, and while the database, Redis or the store is
away, and no more than what was in flight when a process is killed.
"""

import contextlib
import http.client
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

from models_store.database.database import Database, migrate
from models_store.files.blobs import Blobs
from models_store.keys import Keys, Scope
from tests.api.serving import registered
from tests.support.bucket_servers import S3Server
from tests.support.proxies import HAPROXY, NGINX
from tests.support.servers import Guarded, PostgresServer, RedisServer, free_port, tied

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(HAPROXY is None or NGINX is None, reason="needs HAProxy and nginx"),
]
AWAY_S = 12.0
_SEEN_S = 2.0
PAUSE_S = 0.05  # of each of two callers: about 40 requests a second
JOBS = 8
BODY = {"rows": [[170, 70, 40]]}

_HAPROXY = """
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 5s  # a check that a busy machine delays is no sign of a server that is down
frontend callers
    bind 127.0.0.1:{port}
    default_backend apis
backend apis
    balance roundrobin
    option httpchk GET /readyz
    default-server inter 300ms fall 1 rise 1 check observe layer4 error-limit 1 on-error mark-down
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
"""

_NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/responses;
    fastcgi_temp_path {folder}/unused;
    uwsgi_temp_path {folder}/unused;
    scgi_temp_path {folder}/unused;
    upstream apis {{
        server 127.0.0.1:{a} max_fails=1 fail_timeout=1s;
        server 127.0.0.1:{b} max_fails=1 fail_timeout=1s;
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://apis;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


class Cluster:
    """The processes of a cluster, of which each can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.postgres, self.redis, self.s3 = PostgresServer(), RedisServer(), S3Server()
        url = self.postgres.create("cluster")
        migrate(url)
        database = Database(url)
        address = self.s3.address(folder / "cache")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.s3.environment.items():
                patch.setenv(name, value)
            blobs = Blobs(address)
            self.s3.wait_ready(blobs)
            registered(database, blobs)
        token = Keys(database).create("default", Scope.WRITE).token
        database.dispose()
        self.headers = {"Authorization": f"Bearer {token}"}
        self._folder = folder
        self._environment = {
            **os.environ,
            **self.s3.environment,
            "DENSITYD_DATABASE_URL": url,
            "DENSITYD_BROKER_URL": self.redis.url,
            "DENSITYD_STORE_URL": address.url,
            "DENSITYD_STORE_ENDPOINT": self.s3.endpoint,
            "DENSITYD_PRELOAD": "people",
            "DENSITYD_BEHIND_PROXY": "true",
            "DENSITYD_DRAIN_DELAY_S": "3",
            "DENSITYD_TEST_READY_LOOK_S": "1",
            "DENSITYD_TEST_LEASE_S": "5",
        }
        self.ports = {name: free_port() for name in "ab"}
        self.apis = {name: self._start_api(name) for name in "ab"}
        self.workers = {name: self.start_worker(name) for name in "cd"}
        for name in "ab":
            self.wait_ready(name)
        self._proxies: list[Guarded] = []
        self.urls = [self._front(HAPROXY, _HAPROXY, "-db", "-f")]
        self.urls.append(self._front(NGINX, _NGINX, "-p", str(folder), "-c"))

    def _front(self, binary: str | None, text: str, *arguments: str) -> str:
        """Start a balancer; return its URL."""
        port = free_port()
        config = self._folder / f"{port}.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(text.format(port=port, folder=self._folder, user=user, **self.ports))
        command: list[str | Path] = [str(binary), *arguments, config]
        proxy = Guarded(command, end=signal.SIGTERM, log=self._folder / f"{port}.log")
        self._proxies.append(proxy)
        url = f"http://127.0.0.1:{port}"

        def look() -> None:
            httpx.get(f"{url}/readyz", timeout=60).raise_for_status()

        proxy.wait_until(look, errors=httpx.HTTPError)
        return url

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

    def start_worker(self, name: str) -> "subprocess.Popen[bytes]":
        """Start a worker."""
        return self._spawn(name, "workers", DENSITYD_WORKER_NAME=name)

    def wait_ready(self, name: str) -> None:
        deadline = time.monotonic() + 200
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (
                    httpx.get(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=60).status_code
                    == 200
                ):
                    return
            assert time.monotonic() < deadline, (self._folder / f"{name}.log").read_text()[-3000:]
            time.sleep(0.1)

    def replace(self, name: str) -> None:
        """Let one API drain and end, and start another in its place."""
        self.apis[name].send_signal(signal.SIGTERM)
        assert self.apis[name].wait(60) == 0
        self._restart(name)

    def kill_api(self, name: str) -> None:
        """Kill one API, and start another in its place."""
        self.apis[name].kill()
        self.apis[name].wait()
        self._restart(name)

    def _restart(self, name: str) -> None:
        self.apis[name] = self._start_api(name)
        self.wait_ready(name)
        time.sleep(_SEEN_S)  # as an orchestrator waits until the balancer has seen it

    def kill_worker(self, name: str) -> None:
        """Kill a worker, and start another in its place."""
        self.workers[name].kill()
        self.workers[name].wait()
        self.workers[name] = self.start_worker(name)

    def close(self) -> None:
        for process in (*self.apis.values(), *self.workers.values()):
            process.kill()
            process.wait()
        for proxy in self._proxies:
            proxy.stop()
        self.redis.close()
        self.s3.close()
        self.postgres.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    cluster = Cluster(folder)
    yield cluster
    cluster.close()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def asking(cluster: Cluster) -> Iterator[list[Counter[str]]]:
    """Send scores through each balancer all the time, and count how they end."""
    ends: list[Counter[str]] = [Counter() for _ in cluster.urls]
    stop = threading.Event()

    def run(url: str, ends: Counter[str]) -> None:
        with httpx.Client(base_url=url, headers=cluster.headers, timeout=30) as client:
            while not stop.wait(PAUSE_S):
                try:
                    answer = client.post("/v1/models/people/log_prob", json=BODY)
                    ends[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    ends[type(error).__name__] += 1

    threads = [
        threading.Thread(target=run, args=pair) for pair in zip(cluster.urls, ends, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_for(client: httpx.Client, ids: list[str], wanted: set[str]) -> None:
    """Wait until jobs are in some states; a request that fails is sent again."""
    deadline = time.monotonic() + 300
    states = dict.fromkeys(ids, "queued")
    while not set(states.values()) <= wanted:
        assert time.monotonic() < deadline, states
        time.sleep(0.5)
        with contextlib.suppress(httpx.HTTPError):
            page = client.get("/v1/jobs?limit=200").raise_for_status().json()
            found = {job["id"]: job["state"] for job in page["items"]}
            assert states.keys() <= found.keys()
            states = {one: found[one] for one in ids}


def test_a_rolling_restart_loses_no_request(cluster):
    with asking(cluster) as ends:
        for name in "ab":
            cluster.replace(name)
    print("rolling restart:", ends)  # noqa: T201
    haproxy, nginx = ends
    assert set(haproxy) == {"200"}
    # What waits for a process to accept it while that closes its socket, nginx took for sent.
    assert nginx.pop("502", 0) <= 1
    assert set(nginx) == {"200"}


def test_idle_connections_are_left_to_the_proxy_to_close(cluster):
    kept = http.client.HTTPConnection("127.0.0.1", cluster.ports["a"], timeout=7)
    with contextlib.closing(kept):
        kept.request("GET", "/livez")
        assert kept.getresponse().read() == b'{"status":"ok"}'
        with pytest.raises(TimeoutError):  # without a proxy it is closed after five seconds
            kept.sock.recv(1)


def test_scores_go_on_while_the_database_is_away(cluster):
    with asking(cluster) as ends:
        time.sleep(2)
        cluster.postgres.kill()
        time.sleep(AWAY_S)
        for port in cluster.ports.values():
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60)
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        cluster.postgres.restart()
        time.sleep(2)
    print("database away:", ends)  # noqa: T201
    assert [set(one) for one in ends] == [{"200"}, {"200"}]


def test_jobs_run_while_redis_is_away_once_the_store_is_back(cluster):
    cluster.redis.kill()
    cluster.s3.kill()
    with (
        asking(cluster) as ends,
        httpx.Client(base_url=cluster.urls[0], headers=cluster.headers, timeout=60) as client,
    ):
        ids = []
        for seed in range(6):
            body = {"model": "people", "n": 1000, "seed": seed}
            answer = client.post("/v1/jobs/sampling", json=body)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
        time.sleep(AWAY_S)
        cluster.s3.start()
        wait_for(client, ids, {"succeeded"})
    cluster.redis.start()
    print("store and Redis away:", ends)  # noqa: T201
    assert [set(one) for one in ends] == [{"200"}, {"200"}]


def test_killed_processes_cost_no_job_and_only_what_was_in_flight(cluster):
    with (
        asking(cluster) as ends,
        httpx.Client(base_url=cluster.urls[1], headers=cluster.headers, timeout=60) as client,
    ):
        ids = []
        for seed in range(JOBS):
            body = {
                "model_name": "banana",
                "target": {"potential": "U1"},
                "optimisation": {"iterations": 300, "seed": seed},
            }
            headers = {"Idempotency-Key": f"banana-{seed}"}
            first, again = (
                client.post("/v1/jobs/variational", json=body, headers=headers) for _ in range(2)
            )
            assert (first.status_code, again.status_code) == (202, 202), first.text
            assert first.json()["id"] == again.json()["id"]
            ids.append(first.json()["id"])
        wait_for(client, ids[:1], {"running", "succeeded"})
        for name in "cd":
            cluster.kill_worker(name)
        for name in "ab":
            cluster.kill_api(name)
        wait_for(client, ids, {"succeeded"})
        versions = client.get("/v1/models/banana/versions?limit=200").json()["items"]
        assert sorted(one["version"] for one in versions) == list(range(1, JOBS + 1))
        assert {one["lineage"]["job_id"] for one in versions} == set(ids)
    print("killed:", ends)  # noqa: T201
    # Each caller has one request in flight. HAProxy looks each 300 ms, and sends half of 20 requests a
    # second to the killed one until it has noticed.
    kills = 2
    for lost, most in zip(ends, (4 * kills, kills), strict=True):
        assert lost.total() - lost["200"] <= most, ends
