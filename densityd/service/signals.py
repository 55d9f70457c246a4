"""A wait that signals end; no handler does anything itself."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

from models_store.process.endings import ending_signals


class Signals:
    """A context in which some signals ask for the end, and SIGCHLD ends a wait.

    Attributes:
        asked_to_end: Number of signals that asked for the end.
    """

    def __init__(self) -> None:
        self.asked_to_end = 0
        self._ending = ending_signals()

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = {
            number: signal.signal(number, _ignore) for number in (*self._ending, signal.SIGCHLD)
        }
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal or for `timeout_s` seconds, and count the signals."""
        select.select([self._read], [], [], max(0.0, timeout_s))
        try:
            arrived = os.read(self._read, 4096)
        except BlockingIOError:
            return
        self.asked_to_end += sum(number in self._ending for number in arrived)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the wake-up descriptor has the signal already."""
