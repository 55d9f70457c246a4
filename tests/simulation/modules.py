"""Stand-ins for the modules by which the product meets time, threads and chance.

Every module of the product that has imported one of them gets the stand-in instead, so that what
runs is the code that ships, and a new module is simulated without anybody thinking of it.
"""

import queue
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import pytest

from tests.simulation.kernel import Kernel, Queue, Task, Wait

_OURS = ("models_store.", "workers.")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_EPOCH_S = _EPOCH.timestamp()
_REPLACED = {
    "time": time,
    "random": random,
    "secrets": secrets,
    "queue": queue,
    "threading": threading,
}


class Time:
    """`time`, as the running process sees it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.sleep = kernel.sleep

    def monotonic(self) -> float:
        """Seconds since the simulation began."""
        return self._kernel.now

    def time(self) -> float:
        """Seconds since 1970."""
        return _EPOCH_S + self._kernel.now

    perf_counter = monotonic


class Event:
    """`threading.Event`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._set = False
        self._waiting: list[Wait] = []

    def set(self) -> None:
        """Wake whoever waits."""
        self._set = True
        for wait in self._waiting:
            self._kernel.wake(wait)
        self._waiting.clear()

    def clear(self) -> None:
        """Take it back."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it happened."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it."""
        if not self._set:
            self._waiting.append(self._kernel.here())
            self._kernel.wait(timeout)
        return self._set


class Lock:
    """`threading.Lock`: only waits have others run, so one that is held is waited for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._free = Event(kernel)
        self._free.set()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        until = self._kernel.now + timeout if timeout >= 0 else float("inf")
        while not self._free.is_set():
            left = until - self._kernel.now
            if not blocking or left <= 0:
                return False
            self._free.wait(None if left == float("inf") else left)
        self._free.clear()
        return True

    def release(self) -> None:
        """Give it back."""
        self._free.set()

    def locked(self) -> bool:
        """Whether somebody has it."""
        return not self._free.is_set()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Thread:
    """`threading.Thread`: one more thread of the process that starts it."""

    def __init__(
        self,
        kernel: Kernel,
        *,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str | None = None,
        daemon: bool | None = None,
    ) -> None:
        self.name = name
        self.daemon = daemon
        self._kernel = kernel
        self._body = lambda: target(*args)
        self._task: Task | None = None

    def start(self) -> None:
        """Begin."""
        self._task = self._kernel.spawn(self._kernel.process, self._body)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        if self._task is not None:
            self._kernel.join(self._task, timeout)

    def is_alive(self) -> bool:
        """Whether it has begun and not ended."""
        return self._task is not None and not self._task.done


def _module(name: str, **members: object) -> ModuleType:
    """A module of these members alone: what else the product asks of it is an error that says so."""
    module = ModuleType(f"simulated {name}")
    vars(module).update(members)
    return module


@contextmanager
def substituted(kernel: Kernel) -> Iterator[pytest.MonkeyPatch]:
    """Put the stand-ins in, and take them out again with whatever else was patched."""
    chance = random.Random(kernel.random.random())
    stand_ins: dict[str, object] = {
        "time": Time(kernel),
        "random": chance,
        "secrets": _module(
            "secrets",
            token_bytes=chance.randbytes,
            token_hex=lambda n: chance.randbytes(n).hex(),
            randbelow=chance.randrange,
        ),
        "queue": _module(
            "queue",
            Queue=lambda _size=0: Queue(kernel, queue.Empty),
            Empty=queue.Empty,
            Full=queue.Full,
        ),
        "threading": _module(
            "threading",
            Event=lambda: Event(kernel),
            Lock=lambda: Lock(kernel),
            Thread=lambda **given: Thread(kernel, **given),
        ),
    }
    places = _places(len(sys.modules))
    for members, attribute in places:
        members[attribute] = stand_ins[attribute]
    try:
        with pytest.MonkeyPatch.context() as patch:
            yield patch
    finally:
        for members, attribute in places:
            members[attribute] = _REPLACED[attribute]


@cache
def _places(_modules: int) -> list[tuple[dict[str, Any], str]]:
    """Find what the modules of the product have imported; again once there are more of them."""
    return [
        (vars(module), attribute)
        for name, module in list(sys.modules.items())
        if name.startswith(_OURS)
        for attribute, real in _REPLACED.items()
        if vars(module).get(attribute) is real
    ]


def database_time(kernel: Kernel, offset: str) -> str:
    """The database's clock as `models_store.database.clock` spells it for SQLite, shifted as it asks."""
    shift = float(offset.removesuffix(" seconds"))
    return _spelt(kernel.now + kernel.database_offset_s + shift)


@lru_cache(maxsize=100)
def _spelt(seconds: float) -> str:
    """A moment, which the statements of a transaction ask for one after the other."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"
