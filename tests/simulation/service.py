"""The service's processes: API and workers, as their entry points put the real parts together."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

import workers.main
from models_store.errors import BlobError, DatabaseUnavailableError
from models_store.jobs.job_queue import JobQueue
from models_store.jobs.jobs import Jobs
from models_store.registry import Registry
from tests.simulation.broker import Broker
from tests.simulation.database import SimulatedDatabase
from tests.simulation.kernel import Kernel, Process
from tests.simulation.modules import Event
from tests.simulation.plan import WorkerPlan
from workers.settings import WorkerSettings

_END_S = 10.0


class NoForkServer:
    """Stands where `ForkServer` stands: a simulated trainer is a thread, which nothing forks."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Start nothing."""

    def is_loading(self, timeout_s: float) -> bool:
        """Return False: there is nothing to wait for."""
        return False

    def close(self) -> None:
        """End nothing."""


class NoSender:
    """Stands where `Sender` stands: no project has a webhook."""

    def __init__(self, _deliveries: object, *, private: bool) -> None:
        """Start nothing."""

    def start(self) -> None:
        """Send nothing."""

    def stop(self) -> None:
        """End nothing."""


class Api:
    """One API process: accepts, sends messages, sweeps."""

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
        self.queue = JobQueue(self.jobs, self._broker.as_client(), sweep_interval_s=2.0)
        self.queue.start()


class Worker:
    """One worker: what `workers.main` puts together, but for Celery's consumer."""

    def __init__(
        self,
        name: str,
        plan: WorkerPlan,
        *,
        kernel: Kernel,
        database: SimulatedDatabase,
        settings: WorkerSettings,
        ended: Callable[[Process], None],
    ) -> None:
        self.name = name
        self.plan = plan
        self.starts = 0
        self.process = Process(name)
        self.process.alive = False
        self._kernel = kernel
        self._database = database
        self._settings = settings
        self._ended = ended

    def boot(self) -> None:
        """Start the process."""
        self.starts += 1
        self.process = Process(f"{self.name}.{self.starts}")
        self._kernel.spawn(self.process, self._main)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not end."""
        process = self.process
        consumer: Consumer | None = vars(process).get("consumer")
        if consumer is not None:
            consumer.stop()
            give_up_at = self._kernel.now + _END_S
            while process.alive and self._kernel.now < give_up_at:
                self._kernel.sleep(0.1)
        self._kernel.kill(process)

    def _main(self) -> None:
        process = self.process
        try:
            workers.main._prepare_store(self._database, self._settings)
            workers.main._consume(self._database, self._settings)
        except (BlobError, DatabaseUnavailableError):
            self._ended(process)  # with an error, as `run_worker` does
        self._kernel.kill(process)


class Consumer:
    """Stands for Celery in one worker: its application, its consumer, its signals."""

    exitcode = 0

    def __init__(self, kernel: Kernel, broker: Broker) -> None:
        self._kernel = kernel
        self._broker = broker
        self._slots = 0
        self._busy = 0
        self._stopped = Event(kernel)
        self._run: Callable[[str], None]
        self.shutting_down: list[Callable[[], None]] = []

    def task(self, *, name: str) -> Callable[[Callable[[str], None]], None]:
        """Take the function that handles a message."""

        def register(run: Callable[[str], None]) -> None:
            self._run = run

        return register

    def Worker(self, *, concurrency: int, **_: object) -> "Consumer":  # noqa: N802 - Celery's name
        """The consumer itself."""
        self._slots = concurrency
        return self

    def start(self) -> None:
        """Consume until asked to stop, and until what runs has ended."""
        for _ in range(self._slots):
            self._kernel.spawn(self._kernel.process, self._consume)
        self._stopped.wait()
        while self._busy:
            self._kernel.sleep(0.1)

    def stop(self) -> None:
        """What SIGTERM does."""
        for handler in self.shutting_down:
            handler()
        self._stopped.set()

    def _consume(self) -> None:
        while True:
            job_id = self._broker.receive()
            if self._stopped.is_set():
                return
            self._busy += 1
            self._run(job_id)
            self._busy -= 1


def patch_celery(patch: pytest.MonkeyPatch, kernel: Kernel, broker: Broker) -> None:
    """Give each worker a Celery of its own, which is not there."""

    def consumer() -> Consumer:
        held = vars(kernel.process)
        if "consumer" not in held:
            held["consumer"] = Consumer(kernel, broker)
        return held["consumer"]  # type: ignore[no-any-return]  # put there above

    def connect(handler: Callable[[], None], **_: object) -> None:
        consumer().shutting_down.append(handler)

    nothing = SimpleNamespace(connect=lambda *_, **__: None)
    signals = SimpleNamespace(
        worker_shutting_down=SimpleNamespace(connect=connect),
        worker_ready=nothing,
        setup_logging=nothing,
    )
    patch.setattr(workers.main, "WorkerBrokerClient", lambda _app: broker.as_client())
    patch.setattr(workers.main, "create_celery", lambda _settings: consumer())
    patch.setattr(workers.main, "signals", signals)
    patch.setattr(workers.main, "ForkServer", NoForkServer)
    patch.setattr(workers.main, "Sender", NoSender)
