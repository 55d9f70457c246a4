"""End of a trainer without a result, read from its exit status."""

import signal
from pathlib import Path

from models_store.jobs.retries import AttemptEnd, Ending

_OWN_SIGNALS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_VMSTAT = Path("/proc/vmstat")


def end_of(
    status: int, *, started: bool, stalled_s: float | None, memory_ran_out: bool
) -> AttemptEnd | None:
    """Return the end of a trainer without a result; None if it was told to end.

    Args:
        status: Exit status, negative for a signal.
        started: True once it has begun with its job; before that nothing is the job's fault.
        stalled_s: Seconds without progress after which it was killed; None if it was not.
        memory_ran_out: True if the kernel killed a process for memory meanwhile.
    """
    if status == -signal.SIGTERM:
        return None
    if stalled_s is not None:
        detail = f"the training process made no progress for {stalled_s:g} s and was killed"
        return _end(Ending.STALLED, detail, started=started)
    if status >= 0:
        detail = f"the training process ended with status {status} and without a result"
        return _end(Ending.CRASHED, detail, started=started)
    if -status in _OWN_SIGNALS:
        detail = f"the training process crashed with {_signal_name(-status)}"
        return _end(Ending.CRASHED, detail, started=started)
    detail = f"the training process was killed by {_signal_name(-status)}"
    if -status == signal.SIGKILL and memory_ran_out:
        detail += " of the kernel, whose memory had run out"
        return AttemptEnd(ending=Ending.OUT_OF_MEMORY, detail=detail)
    return AttemptEnd(ending=Ending.KILLED, detail=f"{detail}, from outside")


def out_of_memory_kills(vmstat: Path = _VMSTAT) -> int:
    """Return the number of processes that the kernel has killed for memory since it started."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = (line.split() for line in lines)
    return next((int(value) for name, value in counts if name == "oom_kill"), 0)


def _end(ending: Ending, detail: str, *, started: bool) -> AttemptEnd:
    if started:
        return AttemptEnd(ending=ending, detail=detail)
    return AttemptEnd(ending=Ending.NOT_STARTED, detail=f"{detail}, before it began")


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"
