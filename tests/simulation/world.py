"""One schedule: the parts of a plan, its faults, and what is seen of it."""

import errno
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from models_store.database.database import Database
from models_store.errors import BlobError, DatabaseUnavailableError
from models_store.files.store_identity import adopt
from models_store.registry import Registry
from tests.simulation.broker import Broker
from tests.simulation.callers import Asked, Caller
from tests.simulation.computing import Computing
from tests.simulation.database import SharedDatabase, SimulatedDatabase, Transactions
from tests.simulation.faults import Faults
from tests.simulation.invariants import BrokenPromiseError, Monitor
from tests.simulation.kernel import Kernel, Killed, Process
from tests.simulation.modules import database_time, substituted
from tests.simulation.plan import SPAWN, Effect, JobPlan, Plan, Sickness, WorkerPlan
from tests.simulation.service import Api, Worker, patch_celery
from tests.simulation.store import PROJECTS, Store, patch_files
from tests.simulation.trainer import SimulatedTrainer, TrainerPlans
from workers.settings import WorkerSettings

LIMIT_S = 2000.0
"""Simulated seconds after which a schedule that continues is a failure."""

LOGGERS = ("app", "models_store", "workers")
"""Roots of what the product logs, all of which is in the trace."""

_LATENCY_S = 0.01
# What the product logs with its traceback because a fault of the plan is behind it.
_FORESEEN = (OSError, ImportError, BlobError)

_SETTINGS: dict[str, Any] = {
    "lease_s": 3.0,
    "stall_timeout_s": 5.0,
    "cancel_grace_s": 1.0,
    "stop_grace_s": 2.0,
    "sweep_interval_s": 2.0,
    "checkpoint_interval_s": 0.5,
    "long_epoch_s": 0.7,
    "trainer_memory_bytes": 2**30,
}


class Grounds:
    """What all schedules of a process share: a database and a store."""

    def __init__(self) -> None:
        self.store = Store()
        self.database = SharedDatabase(self._fill)
        self._settings: dict[tuple[str, WorkerPlan], WorkerSettings] = {}

    def settings(self, name: str, worker: WorkerPlan) -> WorkerSettings:
        """A worker's settings, which hold what it lacks."""
        known = self._settings.get((name, worker))
        if known is None:
            given = _SETTINGS | {
                "data_dir": self.store.data_dir,
                "worker_name": name,
                "worker_concurrency": worker.slots,
            }
            if worker.sickness is Sickness.NO_GPU:
                given["device"] = "cuda:0"
            if worker.sickness is Sickness.STORE_NOT_MOUNTED:
                given["store_url"] = str(self.store.elsewhere)
            known = self._settings[name, worker] = WorkerSettings(**given)
        return known

    def _fill(self, database: Database) -> None:
        registry = Registry(database)
        for dataset in self.store.datasets:
            registry.add_dataset(dataset)
        for project in PROJECTS:
            registry.add_version(project, "base", self.store.model)
        adopt(database, self.store.blobs)

    def close(self) -> None:
        """Give everything back."""
        self.database.close()
        self.store.close()


@dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    Attributes:
        violation: what was broken, None if nothing was.
        trace: a line for each thing that happened.
    """

    plan: Plan
    violation: str | None
    trace: list[str]
    simulated_s: float


class World(Transactions, TrainerPlans):
    """Runs one plan."""

    def __init__(self, plan: Plan, grounds: Grounds) -> None:
        self.kernel = Kernel(plan.seed)
        self.boot_s = plan.boot_s
        self._plan = plan
        self._grounds = grounds
        self._calls: Counter[str] = Counter()
        self._trace: list[tuple[float, str, str]] = []
        self.database_away_until = 0.0
        self._trainers: list[SimulatedTrainer] = []
        grounds.database.reset(self.kernel)
        grounds.store.reset()
        self._monitor = Monitor(
            grounds.database.rows,
            grounds.store.blobs,
            sick=frozenset(
                f"w{number}"
                for number, worker in enumerate(plan.workers)
                if worker.sickness is not None
            ),
        )
        self.broker = Broker(self.kernel, loss=plan.message_loss)
        self._database = SimulatedDatabase(grounds.database, self)
        self._faults = Faults(plan.faults, self)
        self.apis = [
            Api(f"api{number}", self.kernel, self.broker, self._database)
            for number in range(plan.apis)
        ]
        self.workers = [
            Worker(
                f"w{number}",
                worker,
                kernel=self.kernel,
                database=self._database,
                settings=grounds.settings(f"w{number}", worker),
                ended=self._faults.restart,
            )
            for number, worker in enumerate(plan.workers)
        ]
        self.parts: list[Api | Worker] = [*self.apis, *self.workers]
        self._callers = [self._caller(number, job) for number, job in enumerate(plan.jobs)]

    def run(self) -> Outcome:
        """Let it happen."""
        violation = None
        with substituted(self.kernel) as patch, _listening(self._log):
            patch_celery(patch, self.kernel, self.broker)
            patch_files(patch, self._around_write)
            Computing(self).patch(patch)
            try:
                self._begin()
                ended = self.kernel.run(until=self._ended, limit_s=LIMIT_S)
                self._check(ended=ended)
            except BrokenPromiseError as error:
                violation = str(error)
            finally:
                self._finish()
        trace = [f"{at:9.3f} {who:<28} {what}" for at, who, what in self._trace]
        return Outcome(self._plan, violation, trace, self.kernel.now)

    def _begin(self) -> None:
        for part in self.parts:
            part.boot()
        for caller in self._callers:
            caller.begin()
        self._faults.begin()

    def _check(self, *, ended: bool) -> None:
        self._raise_failures()
        if not ended:
            raise BrokenPromiseError(
                " | ".join([f"not over after {LIMIT_S:g} s", *map(str, self._monitor.unfinished)])
            )
        self._monitor.check_end([caller.asked for caller in self._callers])

    def _finish(self) -> None:
        for part in self.parts:
            self.kernel.kill(part.process)
        self._faults.end()
        for caller in self._callers:
            caller.end()
        self.kernel.run(until=lambda: True, limit_s=0)

    def _ended(self) -> bool:
        self._raise_failures()
        return (
            not self._monitor.unfinished
            and not self._faults.busy
            and not any(caller.busy for caller in self._callers)
        )

    def _raise_failures(self) -> None:
        for failure in self.kernel.failures:
            if isinstance(failure, BrokenPromiseError):
                raise failure
            raise BrokenPromiseError(f"a thread ended with {failure!r}") from failure

    def _caller(self, number: int, job: JobPlan) -> Caller:
        which = number % len(self._grounds.store.datasets)
        return Caller(
            number,
            Asked(job, self._grounds.store.datasets[which]),
            kernel=self.kernel,
            apis=self.apis,
            request=self._grounds.store.request(job, which),
            say=lambda text: self.say(f"caller {number}", text),
        )

    # What database, store and trainers ask.

    def before(self, call: str) -> Effect | None:
        """Wait for the transaction's turn; what happens to it."""
        chance = self.kernel.random
        self.kernel.sleep(chance.expovariate(1 / _LATENCY_S))
        if self.kernel.now < self.database_away_until:
            raise DatabaseUnavailableError
        return self._effect(call)

    def after(self, call: str) -> None:
        """Look at what was committed."""
        process = self.kernel.process.name
        for told in self._monitor.look(call, process, database_time(self.kernel, "0 seconds")):
            self.say(process, f"{call}: {told}")

    def die(self) -> NoReturn:
        """End the process that runs; it is started again."""
        process = self.kernel.process
        self.say(process.name, "dies")
        for trainer in self.trainers:
            if trainer.process is process:
                trainer.signal(signal.SIGKILL)
        self._faults.restart(process)
        self.kernel.kill(process)
        raise Killed

    def job_plan(self, request_id: str | None) -> JobPlan:
        """How a job's training goes."""
        assert request_id is not None
        return self._plan.jobs[int(request_id.partition(" ")[2])]

    def sickness(self, process: Process) -> Sickness | None:
        """What the worker of a trainer has."""
        return next(
            (worker.plan.sickness for worker in self.workers if process in worker.process.children),
            None,
        )

    @property
    def trainers(self) -> list[SimulatedTrainer]:
        """Those that run."""
        self._trainers = [trainer for trainer in self._trainers if trainer.process.alive]
        return self._trainers

    def spawned(self, trainer: SimulatedTrainer) -> None:
        """Note a new trainer."""
        if self._effect(SPAWN) is Effect.FAILS:
            raise OSError("cannot fork")
        self._trainers.append(trainer)

    def _around_write(self, folder: str, write: Callable[[], Any]) -> Any:
        if not self.kernel.in_thread:
            return write()
        self.kernel.sleep(self.kernel.random.expovariate(1 / _LATENCY_S))
        effect = self._effect(folder)
        if effect is Effect.FAILS:
            raise OSError(errno.EIO, "simulated")
        if effect is Effect.DIES_BEFORE:
            self.die()
        stored = write()
        if effect is Effect.DIES_AFTER:
            self.die()
        return stored

    def _effect(self, call: str) -> Effect | None:
        self._calls[call] += 1
        for fault in self._plan.call_faults:
            if fault.call == call and fault.nth == self._calls[call]:
                self.say(self.kernel.process.name, f"{call} number {fault.nth} {fault.effect}")
                return fault.effect
        return None

    # What is seen of it.

    def say(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self._trace.append((self.kernel.now, who, what))

    def _log(self, record: logging.LogRecord) -> None:
        who = self.kernel.process.name if self.kernel.in_thread else "-"
        self.say(who, f"{record.levelname.lower()}: {record.getMessage()}")
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, _FORESEEN):
            self.kernel.failures.append(BrokenPromiseError(f"{record.name}: {error!r}"))


@contextmanager
def _listening(log: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Have the product's logs in the trace, and nowhere else."""
    handler = logging.Handler()
    vars(handler)["emit"] = log
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if logger.level != logging.INFO:  # each change makes all loggers forget what they know
            logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            if logger.level != level:
                logger.setLevel(level)
            logger.propagate = propagate
