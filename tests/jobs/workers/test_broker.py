"""A queue behind TLS, and one that a real Sentinel watches: the primary dies, and messages go to its replica."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from kombu import pools

from app.server.broker import Broker
from densityd.service.private_redis import find_server
from models_store.job_states import JobState
from models_store.settings import StoreSettings
from tests.jobs.workers.place import is_at_work
from tests.support.proxies import HAPROXY
from tests.support.servers import Guarded, free_port
from tests.support.waiting import wait_until

PASSWORD = "a b/c"  # noqa: S105 - of a server that ends with the test
MASTER = "queue"
StartWorker = Callable[..., "subprocess.Popen[bytes]"]
_SENTINEL = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {master} 127.0.0.1 {primary} 1
sentinel auth-pass {master} "{password}"
sentinel down-after-milliseconds {master} 500
sentinel failover-timeout {master} 3000
"""


class Watched:
    """A primary, its replica and a Sentinel."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        first, second, self.port = (free_port() for _ in range(3))
        self.primary = self._serve(first)
        self.replica = self._serve(second, "--replicaof", "127.0.0.1", str(first))
        config = folder / "sentinel.conf"
        names = {"folder": folder, "master": MASTER, "password": PASSWORD}
        config.write_text(_SENTINEL.format(port=self.port, primary=first, **names))
        self.sentinel = self._guard(find_server(), str(config), "--sentinel")
        gone = free_port()  # one of the Sentinels does not answer
        hosts = f"127.0.0.1:{gone},127.0.0.1:{self.port}"
        self.url = f"sentinel://:{quote(PASSWORD, safe='')}@{hosts}/0?master_name={MASTER}"

    def _serve(self, port: int, *more: str) -> Guarded:
        folder = self._folder / str(port)
        folder.mkdir()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        passwords = ["--requirepass", PASSWORD, "--primaryauth", PASSWORD]
        server = self._guard(find_server(), *options, *passwords, *more)
        with redis.Redis(port=port, password=PASSWORD) as client:
            server.wait_until(client.ping, errors=redis.ConnectionError)
        return server

    def _guard(self, *command: str) -> Guarded:
        return Guarded(command, end=signal.SIGTERM, log=self._folder / "log")

    def replicas(self) -> int:
        """The replicas that the Sentinel knows and that follow."""
        with redis.Redis(port=self.port) as client:
            known = client.sentinel_slaves(MASTER)
        return sum(one["master-link-status"] == "ok" for one in known)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "redis").mkdir()
    servers = Watched(tmp_path / "redis")
    yield servers
    for one in (servers.sentinel, servers.replica):
        one.stop()


def test_messages_go_to_the_new_primary_once_the_old_one_is_dead(place, watched, start_worker):
    broker = Broker(place.with_settings(broker_url=watched.url))
    wait_until(lambda: broker.ping() is None and watched.replicas() == 1)
    worker = start_worker(DENSITYD_BROKER_URL=watched.url)
    wait_until(lambda: is_at_work(place))
    dataset = place.add_dataset()

    watched.primary.kill()
    wait_until(lambda: watched.replicas() == 0 and broker.ping() is None)
    job_id = place.submit(dataset, max_epochs=1)
    broker.announce(place.job(job_id))

    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    assert place.version(job_id).version == 1
    broker.close()
    worker.terminate()
    assert worker.wait(120) == 0


TLS_PASSWORD = "s3cret"  # noqa: S105 - of a server that ends with the test
OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(HAPROXY is None or OPENSSL is None, reason="needs HAProxy and openssl"),
]
_HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend tls
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem
    default_backend redis
backend redis
    server a 127.0.0.1:{redis}
"""
_CERTIFICATE = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=queue"
    " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.pem"
)


@pytest.fixture
def tls_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis whose certificate is that of `ca.pem`."""
    command = [str(OPENSSL), *_CERTIFICATE.split()]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)  # noqa: S603 - of Debian
    pem = tmp_path / "both.pem"
    pem.write_text((tmp_path / "ca.pem").read_text() + (tmp_path / "key.pem").read_text())
    port, plain = free_port(), free_port()
    options = ["--port", str(plain), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    server = Guarded(
        [find_server(), *options, "--requirepass", TLS_PASSWORD],
        end=signal.SIGTERM,
        log=tmp_path / "redis.log",
    )
    with redis.Redis(port=plain, password=TLS_PASSWORD) as client:
        server.wait_until(client.ping, errors=redis.ConnectionError)
    config = tmp_path / "haproxy.conf"
    config.write_text(_HAPROXY.format(port=port, folder=tmp_path, redis=plain))
    proxy = Guarded(
        [str(HAPROXY), "-db", "-f", config], end=signal.SIGTERM, log=tmp_path / "haproxy.log"
    )
    address = "127.0.0.1", port
    proxy.wait_until(lambda: socket.create_connection(address).close(), errors=OSError)
    yield f"rediss://:{TLS_PASSWORD}@127.0.0.1:{port}/0"
    proxy.stop()
    server.stop()


def test_messages_go_through_tls_and_only_to_a_server_whose_certificate_is_known(tls_url, tmp_path):
    with closing(Broker(StoreSettings(broker_url=tls_url))) as stranger:
        assert "CERTIFICATE_VERIFY_FAILED" in str(stranger.ping())
    pools.reset()  # of a process: they tell connections by where these go, not by how they are secured
    with closing(
        Broker(StoreSettings(broker_url=f"{tls_url}?ssl_ca_certs={tmp_path}/ca.pem"))
    ) as broker:
        assert broker.ping() is None
