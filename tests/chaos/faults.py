"""What is done to the service while it works."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis

from tests.chaos.service import LEASE_S, Process, Service
from tests.jobs.workers.place import children_of


class Faults:
    """Faults by kind, drawn by a generator of their own.

    Attributes:
        done: how many of each kind there were.
    """

    def __init__(self, service: Service, random_: random.Random) -> None:
        self._service = service
        self._random = random_
        # Each function returns whether there was something that it could be done to.
        self._kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "kill -9 of a trainer": (5, lambda: self._kill_one(service.trainers)),
            "trainer frozen": (1, lambda: self._freeze_one(service.trainers)),
            "kill -9 of a fork server": (2, lambda: self._kill_one(service.fork_servers)),
            "fork server frozen": (1, lambda: self._freeze_one(service.fork_servers)),
            "kill -9 of a worker": (4, lambda: self._restart_one(service.working)),
            "SIGTERM to a worker": (2, lambda: self._restart_one(service.working, signal.SIGTERM)),
            "worker frozen past its lease": (2, self._freeze_worker),
            "kill -9 of the API": (3, lambda: self._restart_one(self._api())),
            "SIGTERM to the API": (1, lambda: self._restart_one(self._api(), signal.SIGTERM)),
            "API frozen": (1, lambda: self._freeze_one([api.pid for api in self._api()])),
            "kill -9 of Redis": (2, lambda: self._restart_one([service.redis])),
            "Redis frozen": (1, lambda: self._freeze_one([service.redis.pid])),
            "FLUSHALL": (2, self._flush),
        }
        if (postgres := service.postgres) is not None:
            self._kinds |= {
                "kill -9 of PostgreSQL": (
                    3,
                    lambda: self._restart_server(postgres.kill, postgres.restart),
                ),
                "PostgreSQL frozen": (
                    1,
                    lambda: self._freeze([postgres.pid, *children_of(postgres.pid)]),
                ),
            }
        if (bucket := service.bucket) is not None:
            self._kinds |= {
                "kill -9 of the store": (
                    6,
                    lambda: self._restart_server(bucket.kill, bucket.start),
                ),
                "store frozen": (2, lambda: self._freeze([bucket.pid])),
            }
        self.done: Counter[str] = Counter()

    @property
    def kills(self) -> int:
        """How many processes were killed without a warning."""
        return sum(number for kind, number in self.done.items() if kind.startswith("kill"))

    def one(self) -> None:
        """Do one, of a kind that finds something to be done to."""
        names = list(self._kinds)
        weights = [self._kinds[name][0] for name in names]
        while True:
            [name] = self._random.choices(names, weights)
            if self._kinds[name][1]():
                self.done[name] += 1
                return
            time.sleep(0.2)

    def _api(self) -> list[Process]:
        return [self._service.api] if self._service.api_ready else []

    def _kill_one(self, pids: list[int]) -> bool:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self._random.choice(pids), signal.SIGKILL)
            return True
        return False

    def _freeze_one(self, pids: list[int]) -> bool:
        return bool(pids) and self._freeze([self._random.choice(pids)])

    def _freeze_worker(self) -> bool:
        workers = self._service.working
        if not workers:
            return False
        return self._freeze([self._random.choice(workers).pid], at_least_s=LEASE_S)

    def _freeze(self, pids: Sequence[int], *, at_least_s: float = 0.0) -> bool:
        """Stop processes in mid-step, and let them go on as if nothing had been."""
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number is signal.SIGSTOP:
                time.sleep(at_least_s + self._random.uniform(0.5, 4))
        return True

    def _restart_one(
        self, processes: list[Process], number: signal.Signals = signal.SIGKILL
    ) -> bool:
        if not processes:
            return False
        process = self._random.choice(processes)
        process.end(number)
        process.start()
        return True

    def _restart_server(self, kill: Callable[[], None], start: Callable[[], None]) -> bool:
        kill()
        time.sleep(self._random.uniform(0, 4))
        start()
        return True

    def _flush(self) -> bool:
        url = self._service.settings.resolved_broker_url
        with suppress(redis.RedisError), redis.Redis.from_url(url) as client:
            client.flushall()
            return True
        return False
