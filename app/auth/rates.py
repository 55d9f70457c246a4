"""Rates of requests and of refusals, by key."""

import asyncio
import math
from time import monotonic

from starlette.types import Scope

from app.auth.callers import Caller, group_of_address
from app.problems.problem import Problem
from app.problems.types import REFUSALS

KEY_ID = "key_id"
"""Key of a request's state under which the id of a valid key is, of a refused request as well."""

_MAX_BUCKETS = 100_000
_REFUSALS_A_SECOND = 100
Headers = tuple[tuple[bytes, bytes], ...]
_BURST_S = 0.5
_LONGEST_S = 10.0
_MAX_OWNERS = 10_000


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


class Refusals:
    """Delay of refusals, once one owner gets many of them; belongs to one event loop.

    A refusal costs its caller nothing and the event loop a little: a thousand connections that send
    the next request at once, or connect again, would keep it busy. No owner gets more than a hundred
    a second.
    """

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    async def pause(self, scope: Scope, status: int) -> None:
        """Wait until it is time for the next refusal of a request's owner.

        Args:
            scope: Request that is refused.
            status: Status of its response; others than refusals do not wait.
        """
        if status not in REFUSALS:
            return
        owner = _owner(scope)
        now = monotonic()
        at = max(now - _BURST_S, self._next.get(owner, 0.0))
        if len(self._next) >= _MAX_OWNERS:
            self._next.clear()
        self._next[owner] = min(at + 1 / _REFUSALS_A_SECOND, now + _LONGEST_S)
        if at > now:
            await asyncio.sleep(at - now)


def _owner(scope: Scope) -> str:
    """Return the id of a request's key, or the address of a caller without one."""
    key_id: str | None = scope["state"].get(KEY_ID)
    return key_id or group_of_address(scope.get("client"))
