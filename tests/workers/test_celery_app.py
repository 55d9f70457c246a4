import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from models_store.jobs.job_queue import QUEUE, TASK_NAME
from models_store.settings import StoreSettings
from workers.celery_app import WorkerBrokerClient, create_celery
from workers.main import register_tasks


def test_neither_the_queue_nor_the_supervisor_imports_torch() -> None:
    """A parent that is warm with torch hangs what it forks; this one never gets warm."""
    code = (
        "import sys, workers.celery_app, workers.main, workers.supervisor;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'flows')))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False)  # noqa: S603 - our own code
    assert run.returncode == 0


def test_only_json_is_accepted(tmp_path: Path) -> None:
    app = create_celery(StoreSettings(data_dir=tmp_path))

    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.task_serializer == "json"


def test_nothing_waits_for_a_message(tmp_path: Path) -> None:
    app = create_celery(StoreSettings(data_dir=tmp_path))

    assert app.conf.result_backend is None
    assert app.conf.task_acks_late is False
    assert app.conf.worker_prefetch_multiplier == 1
    assert [queue.name for queue in app.conf.task_queues] == [QUEUE]


def test_a_socket_is_spelled_as_celery_wants_it(tmp_path: Path) -> None:
    settings = StoreSettings(data_dir=tmp_path)

    assert create_celery(settings).conf.broker_url == f"redis+socket://{settings.redis_socket}"


class _Looks:
    """Supervisor whose looks find what a test says."""

    def __init__(self, *found: bool) -> None:
        self.run_next = iter(found).__next__


def test_looks_in_vain_are_followed_by_pauses_and_others_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("workers.main.time.sleep", pauses.append)
    app = create_celery(StoreSettings(data_dir=tmp_path))
    found = [True, False, True, False, *[False] * 40, True, False]
    register_tasks(app, _Looks(*found))  # type: ignore[arg-type]  # all that it uses
    for _ in found:
        app.tasks[TASK_NAME]("job_1")
    assert len(pauses) == 40
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.1
    assert pauses[-1] == pauses[-10] == 0.5


def test_the_client_sends_messages_that_a_worker_takes(redis_url: str) -> None:
    settings = StoreSettings(broker_url=redis_url)
    client = WorkerBrokerClient(create_celery(settings))
    client.send(["job_1", "job_2"], {"request_id": "r1"})
    assert client.count_queued() == 2
    [message, _] = map(json.loads, redis.Redis.from_url(redis_url).lrange(QUEUE, 0, -1))
    assert (message["headers"]["task"], message["headers"]["request_id"]) == (TASK_NAME, "r1")


def test_what_has_the_name_of_the_queue_and_is_none_is_deleted(redis_url: str) -> None:
    server = redis.Redis.from_url(redis_url)
    server.hset(QUEUE, "a", "b")
    client = WorkerBrokerClient(create_celery(StoreSettings(broker_url=redis_url)))
    assert client.count_queued() == 0
    client.send(["job_1"], {})
    assert client.count_queued() == 1


def test_a_queue_that_nobody_can_take_from_is_not_counted(redis_url: str) -> None:
    server = redis.Redis.from_url(redis_url)
    client = WorkerBrokerClient(create_celery(StoreSettings(broker_url=redis_url)))
    client.send(["job_1"], {})
    server.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(client.errors):
            client.count_queued()
    finally:
        server.config_set("min-replicas-to-write", "0")
    assert client.count_queued() == 1


def test_the_client_keeps_its_connection_and_replaces_one_that_is_gone(redis_url: str) -> None:
    server = redis.Redis.from_url(redis_url)
    others = clients(server)  # of earlier tests: collected, and so closed, at any time
    client = WorkerBrokerClient(create_celery(StoreSettings(broker_url=redis_url)))
    client.send(["job_1"], {})
    client.count_queued()
    known = clients(server) - others
    assert known
    for _ in range(3):
        client.send(["job_1"], {})
        client.count_queued()
    assert clients(server) - others == known

    server.client_kill_filter(_type="normal", skipme=True)
    for _ in range(2):  # the first call may meet the connection that was cut
        with suppress(*client.errors):
            client.send(["job_2"], {})
    assert client.count_queued() >= 4
    client.close()
    assert not clients(server) & known


def clients(server: "redis.Redis") -> set[str]:
    """Return the ids of the connections to a server, but this one."""
    own = str(server.client_id())
    return {one["id"] for one in server.client_list(_type="normal")} - {own}


def test_faults_156_161_a_broker_that_is_away_is_reported_soon(tmp_path: Path) -> None:
    client = WorkerBrokerClient(create_celery(StoreSettings(data_dir=tmp_path)))
    began = time.monotonic()
    with pytest.raises(client.errors):
        client.count_queued()
    assert time.monotonic() - began < 60
