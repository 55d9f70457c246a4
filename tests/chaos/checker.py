"""Holds a history of calls and answers against what the service promises; nothing else is known.

A promise counts from the answer that gave it. Calls that overlap may have happened in any order,
and one whose answer was lost may have happened or not, at any time from then on until the checks
would notice: at once or never.
"""

from collections.abc import Sequence

from tests.chaos.check_aliases import check_aliases
from tests.chaos.check_jobs import check_jobs, check_queue
from tests.chaos.check_things import check_things
from tests.chaos.history import Call


def violations(
    calls: Sequence[Call],
    *,
    complete: bool = False,
    max_queued: int | None = None,
    returning: int = 0,
) -> list[str]:
    """Return each broken promise as a sentence.

    Args:
        calls: The history, in any order.
        complete: Whether all jobs had the time to end, and were looked at after it.
        max_queued: Limit of jobs that wait; None: it is not checked.
        returning: Most jobs that may come back to the queue at once, limit or not.
    """
    found = [*check_things(calls), *check_jobs(calls, complete=complete), *check_aliases(calls)]
    if max_queued is not None:
        found += check_queue(calls, max_queued=max_queued, returning=returning)
    return found
