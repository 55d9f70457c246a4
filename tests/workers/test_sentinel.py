"""A queue on a Redis that a real Sentinel watches: the primary dies, and messages go to its replica."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from app.server.broker import Broker
from densityd.service.private_redis import find_server
from models_store.job_states import JobState
from tests.ports import free_port
from tests.servers import Guarded
from tests.waiting import wait_until
from tests.workers.place import Place, is_at_work

PASSWORD = "a b/c"  # noqa: S105 - of a server that ends with the test
MASTER = "queue"
StartWorker = Callable[..., "subprocess.Popen[bytes]"]
pytestmark = pytest.mark.cluster

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


def test_messages_go_to_the_new_primary_once_the_old_one_is_dead(
    place: Place, watched: Watched, start_worker: StartWorker
) -> None:
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
