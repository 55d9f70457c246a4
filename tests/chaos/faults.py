"""What is done to the service while it works."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import redis

from tests.chaos.network import Link
from tests.chaos.parts import LEASE_S, Part, Service
from tests.workers.place import children_of


class Faults:
    """Faults by kind, drawn by a generator of their own.

    Attributes:
        done: how many of each kind there were.
        links: Number of faults of each connection between parts.
        ends_s: the seconds that workers took to end at SIGTERM.
    """

    def __init__(self, service: Service, random_: random.Random) -> None:
        self._service = service
        self._random = random_
        self._kinds: dict[str, tuple[int, Callable[[], bool]]] = {
            "kill -9 of a trainer": (5, self._kill_trainer),
            "kill -9 of a worker": (4, self._kill_worker),
            "kill -9 of the API": (3, self._kill_api),
            "kill -9 of Redis": (2, self._kill_redis),
            "FLUSHALL": (2, self._flush),
            "worker frozen past its lease": (2, self._freeze_worker),
            "trainer frozen": (1, self._freeze_trainer),
            "kill -9 of a fork server": (2, self._kill_fork_server),
            "fork server frozen": (1, self._freeze_fork_server),
            "Redis frozen": (1, self._freeze_redis),
            "SIGTERM to a worker": (2, self._deploy_worker),
            "SIGTERM to the API": (1, self._deploy_api),
            "API frozen": (1, self._freeze_api),
            "connections cut": (2, self._cut),
            "connections refused": (1, self._refuse),
            "connections stalled": (2, self._stall),
            "answers lost": (3, self._lose_answers),
            "connections half closed": (1, self._close_half),
        }
        if service.postgres is not None:
            self._kinds["kill -9 of PostgreSQL"] = (3, self._kill_postgres)
            self._kinds["PostgreSQL frozen"] = (1, self._freeze_postgres)
        if service.bucket is not None:
            self._kinds["kill -9 of the store"] = (6, self._kill_store)
            self._kinds["store frozen"] = (2, self._freeze_store)
        self.done: Counter[str] = Counter()
        self.links: Counter[str] = Counter()
        self.ends_s: list[float] = []

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

    def _kill_trainer(self) -> bool:
        return self._kill_one(self._service.trainers)

    def _freeze_trainer(self) -> bool:
        return self._freeze_one(self._service.trainers)

    def _kill_fork_server(self) -> bool:
        return self._kill_one(self._service.fork_servers)

    def _freeze_fork_server(self) -> bool:
        return self._freeze_one(self._service.fork_servers)

    def _kill_one(self, pids: list[int]) -> bool:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self._random.choice(pids), signal.SIGKILL)
            return True
        return False

    def _freeze_one(self, pids: list[int]) -> bool:
        if not pids:
            return False
        pid = self._random.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0.5, 2))
            os.kill(pid, signal.SIGCONT)
        return True

    def _kill_worker(self) -> bool:
        return self._to_worker(lambda worker: worker.kill())

    def _freeze_worker(self) -> bool:
        seconds = LEASE_S + self._random.uniform(0.5, 3)
        return self._to_worker(lambda worker: worker.freeze(seconds))

    def _deploy_worker(self) -> bool:
        return self._to_worker(lambda worker: self.ends_s.append(worker.deploy()))

    def _to_worker(self, fault: Callable[[Part], None]) -> bool:
        """Do it to a worker that works: one killed while it starts, again and again, cannot."""
        workers = self._service.working
        if workers:
            fault(self._random.choice(workers))
        return bool(workers)

    def _kill_api(self) -> bool:
        return self._to_api(self._service.api.kill)

    def _deploy_api(self) -> bool:
        return self._to_api(self._service.api.deploy)

    def _to_api(self, fault: Callable[[], object]) -> bool:
        ready = self._service.api_ready
        if ready:
            fault()
        return ready

    def _freeze_api(self) -> bool:
        return self._to_api(partial(self._service.api.freeze, self._random.uniform(0.5, 4)))

    def _cut(self) -> bool:
        self._link().cut()
        return True

    def _refuse(self) -> bool:
        self._link().refuse(self._random.uniform(0.5, 4))
        return True

    def _stall(self) -> bool:
        self._link().stall(self._random.uniform(0.5, 2 * LEASE_S))
        return True

    def _lose_answers(self) -> bool:
        self._link().lose_answers(self._random.uniform(0.2, 2))
        return True

    def _close_half(self) -> bool:
        self._link().close_half()
        return True

    def _link(self) -> Link:
        links = self._service.network.links
        name = self._random.choice(sorted(links))
        self.links[name] += 1
        return links[name]

    def _kill_redis(self) -> bool:
        self._service.redis.kill()
        return True

    def _freeze_redis(self) -> bool:
        self._service.redis.freeze(self._random.uniform(1, 4))
        return True

    def _flush(self) -> bool:
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(self._service.settings.resolved_broker_url) as client,
        ):
            client.flushall()
            return True
        return False

    def _kill_postgres(self) -> bool:
        server = self._service.postgres
        if server is None:
            return False
        server.kill()
        time.sleep(self._random.uniform(0, 2))
        server.restart()
        return True

    def _freeze_postgres(self) -> bool:
        server = self._service.postgres
        if server is None:
            return False
        self._freeze([server.pid, *children_of(server.pid)])
        return True

    def _kill_store(self) -> bool:
        server = self._service.bucket
        if server is None:
            return False
        server.kill()
        time.sleep(self._random.uniform(0, 4))
        server.start()
        return True

    def _freeze_store(self) -> bool:
        server = self._service.bucket
        if server is None:
            return False
        self._freeze([server.pid])
        return True

    def _freeze(self, pids: list[int]) -> None:
        """Stop a server in mid-step, and let it continue."""
        for number, pause_s in (
            (signal.SIGSTOP, self._random.uniform(0.5, 4)),
            (signal.SIGCONT, 0),
        ):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(pause_s)
