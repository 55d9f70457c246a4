"""A real worker process on a real Redis: what kills, wipes and restarts do to accepted jobs."""

import json
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import redis

from densityd import private_redis
from models_store.job_states import JobState
from tests.workers.place import (
    ENDLESS,
    Place,
    PlaceRedis,
    is_alive,
    trainers_of,
    wait_until,
)
from workers.celery_app import QUEUE
from workers.heartbeat import heartbeat_of

EPOCHS = 15

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


def test_faults_157_to_165_the_queue_may_lose_forge_and_repeat_messages_but_no_job_is_lost(
    place: Place, place_redis: PlaceRedis, start_worker: StartWorker
) -> None:
    dataset = place.add_dataset()
    worker = start_worker()
    client = redis.Redis(unix_socket_path=str(place.settings.redis_socket))
    wait_until(lambda: heartbeat_of(place.settings).age_s() is not None)

    # Bytes that are no message, a pickle, an unknown task, and a thousand hints at nothing.
    client.lpush(QUEUE, "no message", "17", "{}", _message(content_type="application/x-python"))
    client.lpush(QUEUE, _message(task="evil"), *[_message(job="job_" + "0" * 32)] * 1000)
    client.flushall()
    client.lpush(QUEUE, "no message", _message(task="evil"), *[_message()] * 1000)
    place_redis.kill()
    job_id = place.submit(dataset, max_epochs=1)
    place_redis.start()

    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    assert place.version(job_id).version == 1
    assert place.job(job_id).attempt == 1
    assert worker.poll() is None


def test_faults_120_162_kill_9_of_worker_and_redis_gives_one_version(
    place: Place, place_redis: PlaceRedis, start_worker: StartWorker
) -> None:
    job_id = place.submit(place.add_dataset(), max_epochs=EPOCHS, patience=EPOCHS, batch_size=20)
    first = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 2)
    [trainer] = trainers_of(first.pid)

    first.kill()
    wait_until(lambda: not is_alive(trainer))
    place_redis.kill()
    second = start_worker()
    place_redis.start()

    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    assert place.version(job_id).version == 1
    assert place.epochs(job_id) == list(range(1, EPOCHS + 1))
    assert place.job(job_id).attempt == 2
    second.terminate()
    assert second.wait(10) == 0


@pytest.mark.usefixtures("place_redis")
def test_fault_124_sigterm_checkpoints_releases_and_ends_within_ten_seconds(
    place: Place, start_worker: StartWorker
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [trainer] = trainers_of(worker.pid)
    assert heartbeat_of(place.settings).age_s() is not None

    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 0

    assert time.monotonic() - began < 10
    assert not is_alive(trainer)
    job = place.job(job_id)
    assert job.state is JobState.QUEUED, "the lease was not released"
    assert job.checkpoints
    assert heartbeat_of(place.settings).age_s() is None
    assert private_redis.answers(place.settings.resolved_broker_url)


def _message(
    *, task: str = "densityd.run", job: str = "job_x", content_type: str = "application/json"
) -> str:
    return json.dumps(
        {
            "body": json.dumps([[job], {}, {}]),
            "headers": {"task": task, "id": "1", "lang": "py"},
            "content-type": content_type,
            "content-encoding": "utf-8",
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "delivery_tag": "1",
            },
        }
    )
