import time
from collections.abc import Iterator

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.workers.place import Place, PlaceRedis, wait_until
from workers.celery_app import QUEUE, create_celery
from workers.sweep import Sweep


@pytest.fixture
def queue(place: Place, place_redis: PlaceRedis) -> redis.Redis:  # noqa: ARG001 - it must run
    return redis.Redis(unix_socket_path=str(place.settings.redis_socket))


@pytest.fixture
def sweep(place: Place) -> Iterator[Sweep]:
    app = create_celery(place.settings)
    yield Sweep(place.jobs, app, interval_s=0.05, alive=lambda: None)
    app.close()


def test_as_many_hints_are_sent_as_are_missing(
    place: Place, sweep: Sweep, queue: redis.Redis
) -> None:
    assert sweep.once() == 0
    dataset = place.add_dataset()
    first = place.submit(dataset)
    place.submit(dataset)

    assert sweep.once() == 2
    assert sweep.once() == 0, "it floods the queue"
    assert queue.llen(QUEUE) == 2
    assert place.job(first).dispatched
    queue.lpop(QUEUE)
    assert sweep.once() == 1


@pytest.mark.fault(159)
def test_fault_159_flushall_costs_one_sweep(place: Place, sweep: Sweep, queue: redis.Redis) -> None:
    place.submit(place.add_dataset())
    sweep.once()

    queue.flushall()

    assert sweep.once() == 1
    assert queue.llen(QUEUE) == 1


def test_a_job_whose_lease_ran_out_is_hinted_at(
    place: Place, sweep: Sweep, queue: redis.Redis
) -> None:
    job_id = place.submit(place.add_dataset())
    place.work.claim("gone", lease_s=60)
    assert sweep.once() == 0

    place.expire_lease(job_id)

    assert sweep.once() == 1
    assert queue.llen(QUEUE) == 1


def test_a_cancelled_job_is_not_hinted_at(place: Place, sweep: Sweep, queue: redis.Redis) -> None:
    job_id = place.submit(place.add_dataset())
    place.jobs.cancel("default", job_id)

    assert sweep.once() == 0
    assert queue.llen(QUEUE) == 0


@pytest.mark.fault(156)
def test_faults_156_161_a_broker_that_is_away_is_reported_soon(place: Place, sweep: Sweep) -> None:
    place.submit(place.add_dataset())

    began = time.monotonic()
    with pytest.raises(OperationalError):
        sweep.once()
    assert time.monotonic() - began < 5


@pytest.mark.fault(157)
def test_fault_157_the_loop_outlives_an_outage_of_the_broker(
    place: Place, place_redis: PlaceRedis
) -> None:
    beats: list[float] = []
    app = create_celery(place.settings)
    sweep = Sweep(place.jobs, app, interval_s=0.05, alive=lambda: beats.append(time.monotonic()))
    queue = redis.Redis(unix_socket_path=str(place.settings.redis_socket))
    place_redis.kill()
    place.submit(place.add_dataset())
    sweep.start()
    try:
        wait_until(lambda: len(beats) >= 2)
        place_redis.start()
        wait_until(lambda: queue.llen(QUEUE) == 1)
    finally:
        sweep.stop()
        app.close()
