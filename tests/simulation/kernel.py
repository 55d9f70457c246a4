"""Simulated time, processes and threads: nothing runs but what the kernel switches to.

A thread of the product is a greenlet. It runs until it sleeps or waits, and the kernel alone says
who continues and what time it is, so that one seed gives one schedule, again and again.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")


class Killed(BaseException):
    """The process of the running thread is gone: nothing more of it has an effect."""


class Process:
    """What can be killed or frozen as one.

    Args:
        name: of the trace.
        parent: the process that takes this one with it when it is killed.
    """

    def __init__(self, name: str, parent: "Process | None" = None) -> None:
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        self.tasks: list[Task] = []
        self.children: list[Process] = []
        if parent is not None:
            parent.children.append(self)


class Task:
    """One thread of a simulated process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.thread: greenlet
        # Raised whenever it continues: a timer or a call of an earlier wait then means nothing.
        self.turn = 0
        self.woken = False
        self.done = False
        self.joiners: list[Wait] = []


Wait = tuple[Task, int]
"""A thread, and which of its waits."""


class Kernel:
    """Time, and who runs when.

    Args:
        seed: of every choice between things that happen at the same moment.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.database_offset_s = 0.0
        self.random = random.Random(seed)
        self.failures: list[BaseException] = []
        self._queue: list[tuple[float, float, int, Task, int]] = []
        self._count = 0
        self._dying: list[Task] = []
        self._hub = getcurrent()
        self._current: Task | None = None

    @property
    def process(self) -> Process:
        """The process whose thread runs."""
        return self._task().process

    def spawn(self, process: Process, body: Callable[[], object]) -> Task:
        """Start a thread."""
        task = Task(process)
        # What ends continues with its parent: the kernel, whoever started it.
        task.thread = greenlet(lambda: self._run_body(task, body), self._hub)
        process.tasks.append(task)
        self._push(self.now, task)
        return task

    def sleep(self, seconds: float) -> None:
        """Let the thread rest."""
        self.wait(max(0.0, seconds))

    def wait(self, timeout_s: float | None) -> bool:
        """Rest until somebody calls `wake`; False when the time was up first."""
        task = self._task()
        process = task.process
        if not process.alive:
            raise Killed
        task.woken = False
        if timeout_s is not None:
            self._push(self.now + timeout_s, task)
        self._hub.switch()
        if not process.alive:
            raise Killed
        return task.woken

    def here(self) -> Wait:
        """The next wait of the thread, for whoever shall end it."""
        task = self._task()
        return task, task.turn

    def wake(self, wait: Wait) -> None:
        """End a wait, if it still continues."""
        task, turn = wait
        if task.turn == turn and not task.done:
            task.woken = True
            task.turn += 1
            self._push(self.now, task)

    def check_alive(self) -> None:
        """End the running thread if its process is gone."""
        if not self.process.alive:
            raise Killed

    def kill(self, process: Process) -> None:
        """End a process and its children; nothing of them runs on, not even what cleans up."""
        if not process.alive:
            return
        process.alive = False
        self._dying += process.tasks
        for child in process.children:
            self.kill(child)

    def call(self, process: Process, body: Callable[[], T]) -> T:
        """Run something in another process and wait for its answer.

        Raises:
            ConnectionResetError: the process ended first.
            Exception: whatever the body raised.
        """
        if not process.alive:
            raise ConnectionResetError
        answers: list[T] = []
        errors: list[Exception] = []

        def answer() -> None:
            try:
                answers.append(body())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                errors.append(error)

        self.join(self.spawn(process, answer))
        if errors:
            raise errors[0]
        if not answers:
            raise ConnectionResetError
        return answers[0]

    def join(self, task: Task, timeout_s: float | None = None) -> None:
        """Wait for the end of a thread."""
        if not task.done:
            task.joiners.append(self.here())
            self.wait(timeout_s)

    def run(self, *, until: Callable[[], bool], limit_s: float) -> bool:
        """Let things happen until a condition holds; False when it did not hold in time."""
        while True:
            self._bury()
            if until():
                return True
            if not self._queue or self._queue[0][0] > limit_s:
                return False
            due_at, _, _, task, turn = heapq.heappop(self._queue)
            if task.done or turn != task.turn:
                continue
            if task.process.frozen_until > max(self.now, due_at):
                self._push(task.process.frozen_until, task)
                continue
            self.now = max(self.now, due_at)
            self._switch(task)

    def _push(self, at: float, task: Task) -> None:
        self._count += 1
        heapq.heappush(self._queue, (at, self.random.random(), self._count, task, task.turn))

    def _switch(self, task: Task) -> None:
        task.turn += 1
        self._current = task
        task.thread.switch()
        self._current = None

    def _bury(self) -> None:
        """Unwind the threads of what was killed; its clean-up is cut short by `check_alive`."""
        while self._dying:
            task = self._dying.pop()
            if not task.done:
                if task.thread:  # it has begun
                    self._current = task
                    task.thread.throw(Killed)
                    self._current = None
                self._end(task)

    def _run_body(self, task: Task, body: Callable[[], object]) -> None:
        try:
            body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the run fails of it
            self.failures.append(error)
        self._end(task)

    def _end(self, task: Task) -> None:
        if not task.done:
            task.done = True
            for joiner in task.joiners:
                self.wake(joiner)

    def _task(self) -> Task:
        assert self._current is not None, "only a simulated thread can do this"
        return self._current

    @property
    def in_thread(self) -> bool:
        """Whether a simulated thread runs, and not what drives the simulation."""
        return self._current is not None


class Queue:
    """A queue between simulated threads, as `queue.Queue`."""

    def __init__(self, kernel: Kernel, empty: type[Exception]) -> None:
        self._kernel = kernel
        self._empty = empty
        self._items: list[Any] = []
        self._waiting: list[Wait] = []

    def put_nowait(self, item: object) -> None:
        """Add an item."""
        self._items.append(item)
        for wait in self._waiting:
            self._kernel.wake(wait)
        self._waiting.clear()

    def get_nowait(self) -> Any:
        """Take the first item, if there is one."""
        if not self._items:
            raise self._empty
        return self._items.pop(0)

    def get(self, timeout: float) -> Any:
        """Take the first item, within a time."""
        if not self._items:
            self._waiting.append(self._kernel.here())
            self._kernel.wait(timeout)
        return self.get_nowait()
