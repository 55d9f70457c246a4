"""Garbage collection at moments that the service chooses: a full one stops every request."""

import asyncio
import gc
import time
from collections.abc import Sized

from app.server.limits import resident_bytes, return_memory

_LOOK_S = 1.0
_NEVER = 2**31 - 1
_YOUNG = 700, 3  # the second generation is a few milliseconds, not ten
_FEW = 64  # connections
_QUIET_S = 11.0  # longer than a refusal waits
_PAUSE_S = 10.0
_PAUSES = 1_000  # as long as the last full collection took
_LONGEST_S = 600.0
_LONG_S = 0.01  # of a collection: what is there by then is excluded from the next ones
_GROWN_BYTES = 16 * 1024 * 1024  # less is not worth the locks of the heaps
_MANY = 10  # collections of the second generation: each tells of some 2,800 more objects


def freeze_heap() -> None:
    """Exclude objects that live as long as the process from garbage collection.

    A full collection would visit all modules and models while every request waits.
    """
    gc.collect()
    gc.freeze()


class GarbageCollection:
    """Full collections of garbage; those of young objects, which are short, stay automatic.

    A full one looks at every object that is not excluded: with two thousand connections and their
    requests, or before the first model was loaded, that takes more than a tenth of a second. Requests
    leave no cycles, so that there is little to collect. It waits until many objects were made that are
    still there and there have been few connections for a while, or for ten minutes. The longer one
    takes, the longer the next one waits: few connections may keep many threads busy.

    Memory that requests have left in pieces is given back to the system once the process has grown and
    there have been few connections for a while, whether garbage was collected or not.

    Args:
        connections: Open connections.
    """

    def __init__(self, connections: Sized) -> None:
        self._connections = connections
        self._pause_s = _PAUSE_S
        self._last = self._busy = self._returned = time.monotonic()
        self._least_bytes = resident_bytes()
        self._once_more = False

    async def run(self) -> None:
        """Collect garbage and return memory, for ever."""
        gc.set_threshold(*_YOUNG, _NEVER)
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            self.look(now)
            if self._has_grown(now):
                await asyncio.to_thread(return_memory)
                self._note_return(now)

    def look(self, now: float) -> bool:
        """Collect garbage if it is time; return True if it was.

        Args:
            now: Time of a clock that never goes back, in seconds.
        """
        if len(self._connections) > _FEW:
            self._busy = now
        is_time = self._is_quiet(now) and gc.get_count()[2] >= _MANY
        if now < self._last + (self._pause_s if is_time else _LONGEST_S):
            return False
        began = time.thread_time()
        gc.collect()
        took_s = time.thread_time() - began
        if took_s > _LONG_S and self._is_quiet(now):
            gc.freeze()
        self._pause_s = min(max(_PAUSE_S, _PAUSES * took_s), _LONGEST_S)
        self._last = now
        return True

    def _has_grown(self, now: float) -> bool:
        """Return whether there may be memory to return, and nobody whom that would delay."""
        present = resident_bytes()
        self._least_bytes = min(self._least_bytes, present)
        is_time = self._is_quiet(now) and now >= self._returned + _PAUSE_S
        return is_time and (self._once_more or present > self._least_bytes + _GROWN_BYTES)

    def _note_return(self, now: float) -> None:
        self._returned, self._least_bytes = now, resident_bytes()
        # What was in use just then, of the last requests of a crowd, would stay for good.
        self._once_more = not self._once_more

    def _is_quiet(self, now: float) -> bool:
        return now >= self._busy + _QUIET_S
