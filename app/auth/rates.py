"""Rates of requests by key."""

import math
from time import monotonic

from app.limits import Caller
from app.problems.problem import Problem

_MAX_BUCKETS = 100_000
Headers = tuple[tuple[bytes, bytes], ...]


class Rates:
    """Buckets of requests, one for each key, that fill at the rate of the key.

    Args:
        rate: Requests per second for keys without a rate of their own; 0 is no limit.
        burst_s: Seconds in which a bucket fills; it holds at least one request.
        processes: Number of processes that serve the same address and share each rate evenly.
    """

    def __init__(self, *, rate: float, burst_s: float, processes: int = 1) -> None:
        self._rate = rate
        self._burst_s = burst_s
        self._processes = processes
        self._buckets: dict[str | None, tuple[float, float]] = {}

    def take(self, caller: Caller) -> Headers:
        """Take one request out of the caller's bucket; return headers that tell what is left.

        Raises:
            Problem: `rate-limited`, if it is empty.
        """
        rate = (self._rate if caller.rate is None else caller.rate) / self._processes
        if rate <= 0:
            return ()
        now = monotonic()
        full = max(1.0, rate * self._burst_s)
        left, since = self._buckets.get(caller.key_id, (full, now))
        left = min(full, left + (now - since) * rate)
        if left < 1:
            wait_s = math.ceil((1 - left) / rate)
            told = {name.decode(): value.decode() for name, value in self._told(full, left, rate)}
            raise Problem("rate-limited", headers={**told, "Retry-After": str(wait_s)})
        if len(self._buckets) >= _MAX_BUCKETS:
            self._buckets.clear()
        self._buckets[caller.key_id] = left - 1, now
        return self._told(full, left - 1, rate)

    def _told(self, full: float, left: float, rate: float) -> Headers:
        """Return the headers of the draft of RateLimit fields, for all processes together."""
        quota, rest = (int(count * self._processes) for count in (full, left))
        policy = f'"requests";q={max(1, quota)};w={math.ceil(full / rate)}'
        state = f'"requests";r={rest};t={math.ceil((full - left) / rate)}'
        return ((b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode()))
