"""Garbage collection at moments that the service chooses: a full one stops every request."""

import asyncio
import gc
import time
from collections.abc import Sized

from app.server.limits import return_memory

_LOOK_S = 1.0
_NEVER = 2**31 - 1
_YOUNG = 700, 3  # the second generation is a few milliseconds, not ten
_FEW = 64  # connections
_QUIET_S = 11.0  # longer than a refusal waits
_PAUSE_S = 10.0
_LONGEST_S = 600.0


def freeze_heap() -> None:
    """Exclude objects that live as long as the process from garbage collection.

    A full collection would visit all modules and models while every request waits.
    """
    gc.collect()
    gc.freeze()


class GarbageCollection:
    """Full collections of garbage; those of young objects, which are short, stay automatic.

    A full one looks at every object: with two thousand connections and their requests that takes
    more than a tenth of a second. Requests leave no cycles, so that there is little to collect, and
    it can wait until there have been few connections for a while, or for ten minutes. Then the memory
    that a crowd has left in pieces is given back to the system, too.

    Args:
        connections: Open connections.
    """

    def __init__(self, connections: Sized) -> None:
        self._connections = connections
        self._last = self._busy = time.monotonic()

    async def run(self) -> None:
        """Collect garbage, for ever."""
        gc.set_threshold(*_YOUNG, _NEVER)
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.look(time.monotonic()):
                await asyncio.to_thread(return_memory)

    def look(self, now: float) -> bool:
        """Collect garbage if it is time; return True if it was.

        Args:
            now: Time of a clock that never goes back, in seconds.
        """
        if len(self._connections) > _FEW:
            self._busy = now
        pause_s = _PAUSE_S if now >= self._busy + _QUIET_S else _LONGEST_S
        if now < self._last + pause_s:
            return False
        gc.collect()
        self._last = now
        return True
