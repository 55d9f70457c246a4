"""Watch over the engine's thread, which ends a process that cannot compute any more."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

from app.engine.engine import Engine

log = logging.getLogger(__name__)

_CHECKS = 60
# An end by signal lets requests that need no computation finish; it may itself stand still.
_END_S = 10.0


class EngineWatch:
    """Periodic check that the engine makes progress.

    Time is counted in checks, not by the clock: while a process is stopped, or its event loop is
    busy, the thread has no time to compute either.

    Args:
        engine: Engine to watch.
        stall_s: Seconds without a finished step after which the process is not ready; after twice
            as many it ends.

    Attributes:
        fault: Description of the fault of the engine, for `/readyz`; None: no fault.
    """

    def __init__(self, engine: Engine, *, stall_s: float) -> None:
        self.fault: str | None = None
        self._engine = engine
        self._stall_s = stall_s
        self._step: int | None = None
        self._checks = 0

    async def run(self, *, end: Callable[[], None]) -> None:
        """Check until the engine has failed for good.

        Args:
            end: Function that ends the process, which its parent starts again.
        """
        while True:
            await asyncio.sleep(self._stall_s / _CHECKS)
            if self._has_failed():
                break
        stack = self._engine.stack()
        log.critical("%s The process ends, to be started again. %s", self.fault, stack)
        end()

    def _has_failed(self) -> bool:
        if not self._engine.alive:
            self.fault = "The thread that computes has ended."
            return True
        step = self._engine.standing
        self._checks = self._checks + 1 if step is not None and step == self._step else 0
        self._step = step
        stands = self._checks >= _CHECKS
        self.fault = f"Nothing was computed for {self._stall_s:g} s." if stands else None
        return self._checks >= 2 * _CHECKS


def end_process() -> None:
    """End this process by a signal, and without it if that takes too long."""
    last = threading.Timer(_END_S, os._exit, [1])
    last.daemon = True
    last.start()
    signal.raise_signal(signal.SIGTERM)
