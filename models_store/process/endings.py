"""Signals that ask a process to end."""

import signal


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask this process to end.

    Also that of a terminal which is closed, unless it is ignored, as `nohup` has it.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return signal.SIGTERM, signal.SIGINT
    return signal.SIGTERM, signal.SIGINT, signal.SIGHUP
