"""A watch over the engine's thread: a process that cannot compute any more says so, and ends."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

from app.engine.engine import Engine

log = logging.getLogger(__name__)

_LOOKS = 60
# An end by signal lets requests that need no computation finish; it may itself stand still.
_END_S = 10.0


class EngineWatch:
    """Looks again and again whether the engine gets on with its work.

    Time counts in looks, not by the clock: a process that was stopped, or whose event loop was
    busy, has not given the thread the time to compute either.

    Args:
        engine: the one that is watched.
        stall_s: seconds without a finished step after which the process is not ready; after twice
            as many it ends.

    Attributes:
        fault: description of what keeps the engine from computing, for `/readyz`; None: nothing.
    """

    def __init__(self, engine: Engine, *, stall_s: float) -> None:
        self.fault: str | None = None
        self._engine = engine
        self._stall_s = stall_s
        self._step: int | None = None
        self._looks = 0

    async def run(self, *, end: Callable[[], None]) -> None:
        """Look until the engine is beyond hope.

        Args:
            end: ends the process, to be started again by whoever started it.
        """
        while True:
            await asyncio.sleep(self._stall_s / _LOOKS)
            if self._is_beyond_hope():
                break
        stack = self._engine.stack()
        log.critical("%s The process ends, to be started again. %s", self.fault, stack)
        end()

    def _is_beyond_hope(self) -> bool:
        if not self._engine.alive:
            self.fault = "The thread that computes has ended."
            return True
        step = self._engine.standing
        self._looks = self._looks + 1 if step is not None and step == self._step else 0
        self._step = step
        stands = self._looks >= _LOOKS
        self.fault = f"Nothing was computed for {self._stall_s:g} s." if stands else None
        return self._looks >= 2 * _LOOKS


def end_process() -> None:
    """End this process by a signal, and without it if that takes too long."""
    last = threading.Timer(_END_S, os._exit, [1])
    last.daemon = True
    last.start()
    signal.raise_signal(signal.SIGTERM)
