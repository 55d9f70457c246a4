"""What happens at a moment: processes die and freeze, servers go away, clocks jump."""

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from tests.simulation.broker import Broker
from tests.simulation.kernel import Kernel, Process
from tests.simulation.plan import Fault, Kind
from tests.simulation.service import Api, Worker
from tests.simulation.trainer import SimulatedTrainer

_RESTART_S = (0.2, 2.0)
_WAIT_FOR_TRAINER_S = 10.0
_FORGED = 5


class Targets(Protocol):
    """What there is to break; see `World`."""

    kernel: Kernel
    broker: Broker
    database_away_until: float

    @property
    def apis(self) -> list[Api]:
        """API processes."""

    @property
    def workers(self) -> list[Worker]:
        """Workers."""

    @property
    def trainers(self) -> list[SimulatedTrainer]:
        """Trainers that run."""

    def say(self, who: str, what: str) -> None:
        """Add a line to the trace."""


class Faults:
    """The faults of a plan that have a time, and whoever starts again what has died."""

    def __init__(self, faults: Sequence[Fault], targets: Targets) -> None:
        self._faults = faults
        self._targets = targets
        self._kernel = targets.kernel
        self._process = Process("faults")
        self._actions: dict[Kind, Callable[[Fault], None]] = {
            Kind.KILL_WORKER: lambda fault: self._restart(self._worker(fault)),
            Kind.STOP_WORKER: self._stop_worker,
            Kind.FREEZE_WORKER: lambda fault: self._freeze(self._worker(fault).process, fault),
            Kind.KILL_API: lambda fault: self._restart(self._api(fault)),
            Kind.FREEZE_API: lambda fault: self._freeze(self._api(fault).process, fault),
            Kind.KILL_TRAINER: lambda fault: self._signal_trainer(fault, signal.SIGKILL),
            Kind.TERMINATE_TRAINER: lambda fault: self._signal_trainer(fault, signal.SIGTERM),
            Kind.FREEZE_TRAINER: self._freeze_trainer,
            Kind.DATABASE_AWAY: self._database_goes_away,
            Kind.DATABASE_CLOCK_JUMPS: self._clock_jumps,
            Kind.BROKER_AWAY: self._broker_goes_away,
            Kind.BROKER_WIPED: lambda _: targets.broker.wipe(),
            Kind.FORGED_MESSAGES: self._forge_messages,
        }

    @property
    def busy(self) -> bool:
        """Whether something still is to happen, or to be started again."""
        self._process.tasks = [task for task in self._process.tasks if not task.done]
        return bool(self._process.tasks)

    def begin(self) -> None:
        """Let time bring them."""
        for fault in self._faults:
            self._later(partial(self._happen, fault))

    def end(self) -> None:
        """Break nothing more."""
        self._kernel.kill(self._process)

    def restart(self, process: Process) -> None:
        """Have a part of the service that is about to die started again."""
        parts: list[Api | Worker] = [*self._targets.apis, *self._targets.workers]
        for part in parts:
            if part.process is process:
                self._later(partial(self._restart, part))

    def _later(self, body: Callable[[], None]) -> None:
        self._kernel.spawn(self._process, body)

    def _happen(self, fault: Fault) -> None:
        self._kernel.sleep(fault.at)
        self._targets.say("faults", f"{fault.kind} {fault.target} for {fault.for_s:g} s")
        self._actions[fault.kind](fault)

    def _worker(self, fault: Fault) -> Worker:
        workers = self._targets.workers
        busy = [
            worker for worker in workers if any(child.alive for child in worker.process.children)
        ]
        # Mostly where it hurts.
        some = busy if busy and fault.target else workers
        return some[fault.target % len(some)]

    def _api(self, fault: Fault) -> Api:
        return self._targets.apis[fault.target % len(self._targets.apis)]

    def _restart(self, part: Api | Worker) -> None:
        self._kernel.kill(part.process)
        self._kernel.sleep(self._kernel.random.uniform(*_RESTART_S))
        if not part.process.alive:
            part.boot()

    def _stop_worker(self, fault: Fault) -> None:
        worker = self._worker(fault)
        worker.stop()
        self._restart(worker)

    def _freeze(self, process: Process, fault: Fault) -> None:
        process.frozen_until = self._kernel.now + fault.for_s

    def _signal_trainer(self, fault: Fault, number: int) -> None:
        trainer = self._trainer(fault)
        if trainer is not None:
            trainer.signal(number)

    def _freeze_trainer(self, fault: Fault) -> None:
        trainer = self._trainer(fault)
        if trainer is not None:
            self._freeze(trainer.process, fault)

    def _trainer(self, fault: Fault) -> SimulatedTrainer | None:
        """A trainer that runs, or the next one that is started; None if there is none soon."""
        give_up_at = self._kernel.now + _WAIT_FOR_TRAINER_S
        while not (running := self._targets.trainers):
            if self._kernel.now > give_up_at:
                return None
            self._kernel.sleep(0.1)
        trainer = running[fault.target % len(running)]
        self._targets.say("faults", f"strikes {trainer.process.name}")
        return trainer

    def _database_goes_away(self, fault: Fault) -> None:
        self._targets.database_away_until = self._kernel.now + fault.for_s

    def _broker_goes_away(self, fault: Fault) -> None:
        self._targets.broker.away_until = self._kernel.now + fault.for_s

    def _clock_jumps(self, fault: Fault) -> None:
        forwards = fault.target % 2 == 1
        self._kernel.database_offset_s += fault.for_s if forwards else -fault.for_s

    def _forge_messages(self, _fault: Fault) -> None:
        for _ in range(_FORGED):
            self._targets.broker.send("forged")
