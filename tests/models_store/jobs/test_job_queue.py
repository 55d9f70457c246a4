import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from app.server.broker_client import ApiBrokerClient
from models_store.database.database import Database
from models_store.errors import DatabaseBusyError
from models_store.jobs.job_queue import QUEUE, TASK_NAME, JobQueue
from models_store.jobs.jobs import Jobs
from models_store.settings import StoreSettings
from tests.models_store.makers import PROJECT, submitted
from tests.servers import RedisServer
from tests.waiting import wait_until


class Broker:
    """A real Redis that can be killed, frozen and started again."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._running = True
        self._pid = 0
        self.url = server.url
        self.client = redis.Redis.from_url(server.url)

    def start(self) -> None:
        if not self._running:
            self._server.start()
            self._running = True

    def kill(self) -> None:
        self._server.kill()
        self._running = False

    def freeze(self) -> None:
        self._pid = int(self.client.info("server")["process_id"])
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGCONT)
        self._pid = 0

    def restore(self) -> None:
        """As others expect to find it."""
        self.thaw()
        self.start()
        self.client.config_set("maxmemory", "0")
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("min-replicas-to-write", "0")
        self.client.close()

    def messages(self) -> list[str]:
        messages = [json.loads(text) for text in self.client.lrange(QUEUE, 0, -1)]
        assert all(message["headers"]["task"] == TASK_NAME for message in messages)
        return [message["headers"]["argsrepr"].strip("(',)") for message in messages]


@pytest.fixture
def broker(redis_server: RedisServer, redis_url: str) -> Iterator[Broker]:
    broker = Broker(redis_server)
    assert broker.url == redis_url
    yield broker
    broker.restore()


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def start(jobs: Jobs, broker: Broker) -> Iterator[Callable[..., JobQueue]]:
    """Starts a queue; by default one that never sweeps after its first look."""
    queues: list[JobQueue] = []

    def start(
        sweep_interval_s: float = 60.0,
        on: Jobs = jobs,
        after_sweep: Callable[[], None] = lambda: None,
        without_broker: Callable[[], None] = lambda: None,
    ) -> JobQueue:
        queue = JobQueue(
            on,
            ApiBrokerClient(StoreSettings(broker_url=broker.url)),
            sweep_interval_s=sweep_interval_s,
            after_sweep=after_sweep,
            without_broker=without_broker,
        )
        queue.start()
        queues.append(queue)
        return queue

    yield start
    for queue in queues:
        queue.stop()


def submit(jobs: Jobs) -> str:
    return submitted(jobs).id


def test_a_message_carries_the_job_id_and_the_ids_of_the_request(broker, jobs, start):
    sweeps: list[None] = []
    queue = start(after_sweep=lambda: sweeps.append(None))
    wait_until(lambda: sweeps)
    job_id = submit(jobs)
    assert queue.announce(job_id, request_id="r1", traceparent="00-a", wait_s=60)
    assert broker.messages() == [job_id]
    headers = json.loads(broker.client.lindex(QUEUE, 0))["headers"]
    assert (headers["request_id"], headers["traceparent"]) == ("r1", "00-a")
    wait_until(lambda: jobs.get(PROJECT, job_id).dispatched)


def test_a_broker_that_is_down_delays_nobody_and_gets_the_message_when_it_is_back(
    broker, jobs, start
):
    broker.kill()
    queue = start(sweep_interval_s=0.1)
    wait_until(lambda: not queue.broker_up)
    job_id = submit(jobs)
    began = time.monotonic()
    assert not queue.announce(job_id, wait_s=60)
    assert time.monotonic() - began < 60
    assert not jobs.get(PROJECT, job_id).dispatched
    broker.start()
    wait_until(lambda: broker.messages() == [job_id])
    wait_until(lambda: jobs.get(PROJECT, job_id).dispatched and queue.broker_up)


def test_a_broker_that_is_frozen_delays_a_submit_by_its_wait_alone(broker, jobs, start):
    queue = start(sweep_interval_s=0.1)
    wait_until(lambda: queue.broker_up)
    assert queue.announce(submit(jobs), wait_s=60)
    broker.freeze()
    began = time.monotonic()
    for _ in range(8):
        assert not queue.announce(submit(jobs))
    assert time.monotonic() - began < 60
    wait_until(lambda: not queue.broker_up)
    began = time.monotonic()
    assert not queue.announce(submit(jobs), wait_s=60)
    assert time.monotonic() - began < 60
    broker.thaw()
    wait_until(lambda: len(broker.messages()) >= 10)
    wait_until(lambda: queue.broker_up)


def test_messages_lost_with_the_broker_are_sent_again(broker, jobs, start):
    queue = start(sweep_interval_s=0.1)
    waiting = {submit(jobs) for _ in range(20)}
    wait_until(lambda: len(broker.messages()) == len(waiting))
    broker.kill()
    wait_until(lambda: not queue.broker_up)
    broker.start()
    wait_until(lambda: set(broker.messages()) == waiting)


def test_a_wiped_broker_gets_its_messages_again(broker, jobs, start):
    start(sweep_interval_s=0.1)
    waiting = {submit(jobs) for _ in range(5)}
    wait_until(lambda: len(broker.messages()) == len(waiting))
    broker.client.flushall()
    wait_until(lambda: len(broker.messages()) == len(waiting))


def test_a_sweep_sends_only_what_is_missing(broker, jobs, start):
    queue = start(sweep_interval_s=0.05)
    for _ in range(3):
        submit(jobs)
    wait_until(lambda: len(broker.messages()) == 3)
    time.sleep(0.5)
    assert len(broker.messages()) == 3
    broker.client.lpop(QUEUE)
    wait_until(lambda: len(broker.messages()) == 3)
    assert queue.broker_up


class BusyThenFine(Jobs):
    """Jobs whose database is busy at first."""

    left = 3

    def claimable(self, limit: int) -> list[str]:
        if self.left:
            self.left -= 1
            raise DatabaseBusyError
        return super().claimable(limit)


def test_a_busy_database_does_not_end_the_sweeps(broker, database, jobs, start):
    job_id = submit(jobs)
    start(sweep_interval_s=0.05, on=BusyThenFine(database))
    wait_until(lambda: broker.messages() == [job_id])


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
def test_a_broker_without_memory_keeps_the_job_pending(broker, jobs, start, policy):
    broker.client.config_set("maxmemory", "1")
    broker.client.config_set("maxmemory-policy", policy)
    queue = start(sweep_interval_s=0.1)
    job_id = submit(jobs)
    assert not queue.announce(job_id, wait_s=1)
    broker.client.config_set("maxmemory", "0")
    wait_until(lambda: job_id in broker.messages())


def test_a_broker_that_gives_no_message_away_counts_as_away(broker, jobs, start):
    """Refuse writes, as a broker does whose disk is full, or that has become a replica; messages can still be counted."""
    looks: list[None] = []
    queue = start(sweep_interval_s=0.1, without_broker=lambda: looks.append(None))
    job_id = submit(jobs)
    wait_until(lambda: broker.messages() == [job_id])
    broker.client.config_set("min-replicas-to-write", "1")
    wait_until(lambda: looks)
    assert not queue.broker_up
    broker.client.config_set("min-replicas-to-write", "0")
    wait_until(lambda: queue.broker_up)
    assert broker.messages() == [job_id]


def test_stopping_is_quick_even_if_the_broker_is_frozen(broker, jobs, start):
    queue = start()
    assert queue.announce(submit(jobs), wait_s=60)
    broker.freeze()
    began = time.monotonic()
    queue.stop()
    assert time.monotonic() - began < 60
    broker.thaw()


def test_a_job_whose_lease_ran_out_is_announced(broker, jobs, work, start):
    job_id = submit(jobs)
    work.claim("gone", lease_s=0)
    start(sweep_interval_s=0.05)
    wait_until(lambda: broker.messages() == [job_id])


class _Busy(Jobs):
    """Jobs of which the first look at them finds that others are changing them."""

    looks = 0

    def mark_dispatched(self, job_ids: list[str]) -> list[str]:
        self.looks += 1
        return super().mark_dispatched(job_ids) if self.looks > 1 else []


def test_a_later_sweep_records_what_an_earlier_one_could_not(broker, database, start):
    busy = _Busy(database)
    job_id = submit(busy)
    start(sweep_interval_s=0.05, on=busy)
    wait_until(lambda: busy.get(PROJECT, job_id).dispatched)
    assert broker.messages() == [job_id]


def test_a_cancelled_job_is_not_announced(broker, jobs, start):
    jobs.cancel(PROJECT, submit(jobs))
    sweeps: list[None] = []
    start(sweep_interval_s=0.05, after_sweep=lambda: sweeps.append(None))
    wait_until(lambda: len(sweeps) == 2)
    assert broker.messages() == []


def test_a_sweep_reports_even_if_the_broker_is_down(broker, jobs, start):
    submit(jobs)
    broker.kill()
    sweeps: list[None] = []
    start(sweep_interval_s=0.05, after_sweep=lambda: sweeps.append(None))
    wait_until(lambda: len(sweeps) == 2)


def test_without_a_broker_workers_are_told_to_look_for_themselves(database: Database) -> None:
    class Away:
        errors: tuple[type[Exception], ...] = (OSError,)
        away = True

        def send(self, job_ids, headers):
            pass

        def count_queued(self):
            if self.away:
                raise OSError
            return 0

        def close(self):
            pass

    client, told = Away(), threading.Event()
    queue = JobQueue(Jobs(database), client, sweep_interval_s=0.02, without_broker=told.set)
    queue.start()
    assert told.wait(120)
    client.away = False
    while not queue.broker_up:
        time.sleep(0.01)
    told.clear()
    time.sleep(0.15)
    assert not told.is_set()
    queue.stop()


def test_the_sweeps_go_on_when_a_thread_that_looks_for_jobs_cannot_be_started(broker, start):
    calls: list[str] = []

    def refused() -> None:
        calls.append("without broker")
        raise RuntimeError("can't start new thread")

    broker.kill()
    start(sweep_interval_s=0.02, after_sweep=lambda: calls.append("sweep"), without_broker=refused)
    wait_until(lambda: calls.count("without broker") >= 3)
    assert calls.count("sweep") >= 3
