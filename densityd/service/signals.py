"""A wait that signals end: they are blocked, and taken where the service waits."""

import signal
from types import TracebackType
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
        self._all = {*self._ending, signal.SIGCHLD}

    def __enter__(self) -> Self:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while signal.sigtimedwait(self._all, 0) is not None:
            pass  # it has been heeded
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a signal or for `timeout_s` seconds, and count the signals."""
        found = signal.sigtimedwait(self._all, max(0.0, timeout_s))
        while found is not None:
            self.asked_to_end += found.si_signo in self._ending
            found = signal.sigtimedwait(self._all, 0)
