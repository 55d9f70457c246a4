"""Waiting for what other threads and processes do."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_until(
    condition: Callable[[], object],
    what: str = "it did not happen in time",
    *,
    within_s: float = 300.0,
) -> float:
    """Wait for a condition, and return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, what
        time.sleep(0.02)
    return time.monotonic() - began


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the event loop does."""
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what happens tells nobody
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Return whether a process is there and not merely waiting to be buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Clock:
    """Stands in a module's place of ``time``, whose other functions it leaves as they are.

    Attributes:
        now: Seconds that ``monotonic`` returns.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
