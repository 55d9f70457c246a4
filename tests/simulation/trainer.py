"""A trainer process: the real one from its first task to its last message, in a thread."""

import workers.trainer.__main__
from tests.simulation.kernel import Kernel, Process, Wait
from tests.simulation.plan import JobPlan, Sickness
from workers.protocol import Message, Task

_SIGNAL_TERM, _SIGNAL_KILL, _SIGNAL_SEGV = 15, 9, 11


class Died(BaseException):
    """The trainer ends by itself, without a word."""


class TrainerPlans:
    """What a trainer asks of the world; see `World`."""

    kernel: Kernel
    boot_s: float

    def job_plan(self, request_id: str | None) -> JobPlan:
        """How a job's training goes."""
        raise NotImplementedError

    def sickness(self, process: Process) -> Sickness | None:
        """What the worker of a trainer has."""
        raise NotImplementedError

    def spawned(self, trainer: "SimulatedTrainer") -> None:
        """Note a new trainer.

        Raises:
            OSError: it cannot be started.
        """
        raise NotImplementedError


class SimulatedTrainer:
    """Stands where `workers.supervisor.process.TrainerProcess` stands, with a thread for the process."""

    def __init__(self, world: TrainerPlans, task: Task, fork_server: None = None) -> None:
        self.task = task
        self.at_end = False
        self.status: int | None = None
        self.pid = 0
        self._world = world
        self._kernel = world.kernel
        self._interrupted = False
        self._messages: list[Message] = []
        self._reader: Wait | None = None
        worker = self._kernel.process
        world.spawned(self)
        self.process = Process(
            f"trainer of {task.request_id or task.job_id} #{task.attempt}", worker
        )
        vars(self.process)["trainer"] = self
        self._kernel.spawn(self.process, self._main)

    def read(self, timeout_s: float) -> list[Message]:
        """Messages that arrive within a time; at their end sets `at_end`."""
        if not self._messages and self.running:
            self._reader = self._kernel.here()
            self._kernel.wait(timeout_s)
        else:
            self._kernel.check_alive()
        messages, self._messages = self._messages, []
        self.at_end = not messages and not self.running
        return messages

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.status is None

    def terminate(self) -> None:
        """Ask for a checkpoint and an end (SIGTERM)."""
        self._kernel.check_alive()
        self.signal(_SIGNAL_TERM)

    def kill(self) -> None:
        """End it now (SIGKILL)."""
        self._kernel.check_alive()
        self.signal(_SIGNAL_KILL)

    def wait(self, timeout_s: float) -> int:
        """The exit status; kills a process that outstays a time."""
        if self.status is None:
            self._reader = self._kernel.here()
            self._kernel.wait(timeout_s)
        if self.status is None:
            self.signal(_SIGNAL_KILL)
        assert self.status is not None
        return self.status

    def close(self) -> None:
        """End what still runs."""
        self.kill()

    def signal(self, number: int) -> None:
        """What the kernel does with a signal."""
        if self.status is not None:
            return
        if number == _SIGNAL_TERM:  # blocked until it has a handler
            self._interrupted = True
        else:
            self._end(-number)

    def _main(self) -> None:
        kernel = self._kernel
        try:
            kernel.sleep(kernel.random.uniform(0.05, self._world.boot_s))
            last = workers.trainer.__main__._work(
                self.task,
                self,  # type: ignore[arg-type]  # it has what a channel has
                lambda: self._interrupted,  # type: ignore[arg-type]  # as above
            )
            if last is not None:
                self.send(last)
            self._end(0)
        except Died:
            self._end(-_SIGNAL_SEGV)

    def send(self, message: Message) -> None:
        """Write to the pipe."""
        self._kernel.check_alive()
        self._messages.append(message)
        self._tell()

    def _end(self, status: int) -> None:
        self.status = status
        self._kernel.kill(self.process)
        self._tell()

    def _tell(self) -> None:
        if self._reader is not None:
            self._kernel.wake(self._reader)
            self._reader = None
