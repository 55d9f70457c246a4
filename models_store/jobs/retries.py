"""Decisions on a job whose attempt ended without a result: try again, when, or give it up.

Pure functions of what its row remembers, so that any history can be played to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from models_store.job_states import JobError


class Ending(StrEnum):
    """Kind of end of an attempt that gave no result."""

    CRASHED = "crashed"
    """The trainer ended by itself: an exit status, or a signal of its own making."""
    STALLED = "stalled"
    """The trainer stood still and was killed for it."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed the trainer because memory had run out."""
    KILLED = "killed"
    """Somebody else killed the trainer."""
    LOST = "lost"
    """The worker went silent until its lease had run out."""
    NOT_STARTED = "not_started"
    """The trainer ended before it had looked at the job."""
    ENVIRONMENT = "environment"
    """The worker lacks what any job needs: its store, its device, a library."""


OWN = frozenset({Ending.CRASHED, Ending.STALLED, Ending.OUT_OF_MEMORY})
"""Ends that speak against the job; all others may be the fault of where it ran."""

OWN_LIMIT = 3
"""Failures in a row of the job's own that make it fail."""

OUTSIDE_LIMIT = 20
"""Failures in a row from outside that make it fail: a job may take its whole worker down."""

QUOTA_STORAGE = "quota_storage"
"""Code of a failure whose cause is what the job's project stores: it says nothing of a worker."""

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0


class Failure(TypedDict):
    """Failed attempt, which the job's row keeps until there is progress."""

    attempt: int
    worker: str
    ending: str
    code: str | None


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """End of an attempt that gave no result.

    Attributes:
        ending: Kind of the end.
        detail: Part of a sentence about the end, such as ``the trainer was killed by signal 9``.
        code: Stable name of a fault of the environment, such as ``storage_full``.
    """

    ending: Ending
    detail: str
    code: str | None = None


def verdict(failures: Sequence[Failure]) -> JobError | None:
    """Return the error of a job that has failed for good; None: it is tried again.

    Args:
        failures: those since its last progress, oldest first.
    """
    for own, limit in ((True, OWN_LIMIT), (False, OUTSIDE_LIMIT)):
        counted = [failure for failure in failures if (failure["ending"] in OWN) == own]
        if len(counted) >= limit:
            return _error(counted, own=own)
    return None


def wait_s(failures: Sequence[Failure]) -> float:
    """Return how many seconds pass before the next attempt: 1, 2, 4, ... 300.

    A worker that went silent was waited for already, until its lease ran out.
    """
    number = len(failures)
    if failures and failures[-1]["ending"] == Ending.LOST:
        number -= 1
    if number == 0:
        return 0.0
    return min(_FIRST_WAIT_S * 2.0 ** min(number - 1, 30), _LONGEST_WAIT_S)


def _error(counted: Sequence[Failure], *, own: bool) -> JobError:
    workers = {failure["worker"] for failure in counted}
    where = "one worker" if len(workers) == 1 else f"{len(workers)} workers"
    kinds = ", ".join(sorted({failure["ending"].replace("_", " ") for failure in counted}))
    detail = (
        f"{len(counted)} attempts in a row, on {where}, ended without any progress ({kinds});"
        " the job's events tell each."
    )
    code = None if own else counted[-1]["code"]
    return JobError(code=code or "crash_loop", detail=detail)
