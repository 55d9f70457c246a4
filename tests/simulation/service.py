"""The service's processes: API and workers, as their entry points put the real parts together."""

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

import app.queue
from app.queue import JobQueue
from models_store.jobs import Jobs
from models_store.registry import Registry
from tests.simulation.broker import Broker
from tests.simulation.database import SimulatedDatabase
from tests.simulation.kernel import Kernel, Process
from tests.simulation.plan import WorkerPlan
from workers.settings import WorkerSettings
from workers.supervisor import Supervisor
from workers.sweep import Sweep

_END_S = 10.0


class Api:
    """One API process: accepts, hints, sweeps."""

    def __init__(
        self, name: str, kernel: Kernel, broker: Broker, database: SimulatedDatabase
    ) -> None:
        self.name = name
        self._kernel = kernel
        self._broker = broker
        self._database = database
        self.starts = 0
        self.process = Process(name)
        self.process.alive = False
        self.jobs: Jobs
        self.registry: Registry
        self.queue: JobQueue

    def boot(self) -> None:
        """Start the process."""
        self.starts += 1
        self.process = Process(f"{self.name}.{self.starts}")
        self._kernel.spawn(self.process, self._main)

    def _main(self) -> None:
        self.jobs = Jobs(self._database)
        self.registry = Registry(self._database)
        self.queue = JobQueue(
            self.jobs, broker_url="simulated", celery_broker_url="simulated", sweep_interval_s=2.0
        )
        self.queue.start()


class Worker:
    """One worker: the threads of `workers.main`, with a loop for Celery's consumer."""

    def __init__(
        self,
        name: str,
        plan: WorkerPlan,
        *,
        kernel: Kernel,
        broker: Broker,
        database: SimulatedDatabase,
        settings: WorkerSettings,
    ) -> None:
        self.name = name
        self.plan = plan
        self.starts = 0
        self.process = Process(name)
        self.process.alive = False
        self._kernel = kernel
        self._broker = broker
        self._database = database
        self._settings = settings
        self._supervisor: Supervisor | None = None

    def boot(self) -> None:
        """Start the process."""
        self.starts += 1
        self._supervisor = None
        self.process = Process(f"{self.name}.{self.starts}")
        vars(self.process)["worker"] = self
        self._kernel.spawn(self.process, self._main)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not end."""
        process, supervisor = self.process, self._supervisor
        if supervisor is not None:
            supervisor.stop()
            self._kernel.sleep(_END_S)
        self._kernel.kill(process)

    def _main(self) -> None:
        supervisor = Supervisor(
            self._database, self._settings, worker=self.process.name, tested=False
        )
        self._supervisor = supervisor
        sweep = Sweep(
            Jobs(self._database),
            self._broker.as_celery(OperationalError),
            interval_s=self._settings.sweep_interval_s,
            alive=lambda: None,
        )
        sweep.start()
        process = self.process
        for _ in range(self.plan.slots):
            self._kernel.spawn(process, lambda: self._consume(supervisor))

    def _consume(self, supervisor: Supervisor) -> None:
        while True:
            self._broker.receive()
            supervisor.run_next()


def patch_queue(patch: pytest.MonkeyPatch, broker: Broker) -> None:
    """Give the API's queue the simulated broker."""
    patch.setattr(app.queue, "_celery_client", lambda _url: broker.as_celery(OperationalError))
    client: Any = SimpleNamespace(from_url=lambda *_, **__: broker.as_redis())
    patch.setattr(app.queue, "redis", SimpleNamespace(Redis=client, RedisError=redis.RedisError))
