"""How often a key may ask: a bucket of requests for each, which fills at the key's rate."""

import math
from time import monotonic

from app.auth.callers import Caller
from app.problems.problem import Problem

_MAX_BUCKETS = 100_000


class Rates:
    """The buckets of one process; several processes share a key's rate evenly.

    Args:
        rate: requests a second of callers whose key says nothing; 0: any number.
        burst_s: a full bucket holds what comes in so many seconds, and one request at the least.
        processes: that serve the same address.
    """

    def __init__(self, *, rate: float, burst_s: float, processes: int = 1) -> None:
        self._rate = rate
        self._burst_s = burst_s
        self._processes = processes
        self._buckets: dict[str | None, tuple[float, float]] = {}

    def take(self, caller: Caller) -> None:
        """Take one request out of the caller's bucket.

        Raises:
            Problem: `rate-limited`, if it is empty.
        """
        rate = (self._rate if caller.rate is None else caller.rate) / self._processes
        if rate <= 0:
            return
        now = monotonic()
        full = max(1.0, rate * self._burst_s)
        left, since = self._buckets.get(caller.key_id, (full, now))
        left = min(full, left + (now - since) * rate)
        if left < 1:
            wait_s = math.ceil((1 - left) / rate)
            raise Problem("rate-limited", headers={"Retry-After": str(wait_s)})
        if len(self._buckets) >= _MAX_BUCKETS:
            self._buckets.clear()
        self._buckets[caller.key_id] = left - 1, now
