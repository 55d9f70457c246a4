"""Order in which work begins on the event loop, fair by caller."""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable

_ALONE_AFTER_S = 1.0
_LONG_S = 0.004  # as sixty-four heads of requests on a machine that does nothing else


class Waiting:
    """Piece of work that waits for its turn.

    Args:
        work: Function to call.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def drop(self) -> None:
        """Do it never, and refer to nothing from now on."""
        self._work = None

    def take(self) -> Callable[[], None] | None:
        """Return the function, if there still is one, and refer to nothing from now on."""
        work, self._work = self._work, None
        return work


class _Queue:
    """Pieces of work of one group that wait; its parts take turns, each in order of arrival."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()

    def __bool__(self) -> bool:
        """Return whether there is any work."""
        return bool(self._parts)

    def put(self, part: Hashable, work: Waiting) -> None:
        """Put a piece of work behind those of its part."""
        self._parts.setdefault(part, deque()).append(work)

    def take(self) -> Callable[[], None] | None:
        """Take the next piece of work out; None if it was dropped."""
        part, works = self._parts.popitem(last=False)
        work = works.popleft()
        if works:
            self._parts[part] = works  # behind all others
        return work.take()


class Pace:
    """Beginning of work, of which each group has a few pieces in an iteration of the event loop.

    An iteration lasts as long as everything that is ready in it, and a request takes several
    iterations. Without a bound, a thousand connections that are ready at once would make one that
    lasts a second, for all. Work of one group begins in order of arrival, and where it has parts,
    these take turns. Belongs to one event loop.

    Args:
        each: Most pieces of one group in an iteration, as long as there are several groups.
        most: Most pieces in an iteration; so many may be those of a group that is alone, and fewer where
            they take long.
        clock: Function that returns the time in seconds.
    """

    def __init__(
        self, *, each: int, most: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._each = each
        self._most = most
        self._clock = clock
        self._spent_s = 0.0  # in this iteration
        self._is_at_work = False
        self._last = ""  # group
        self._shared_until = 0.0
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._begun: Counter[str] = Counter()  # in this iteration
        self._scheduled = False

    def begin(
        self, group: str, work: Callable[[], None], *, part: Hashable = None
    ) -> Waiting | None:
        """Call a function now, or in a later iteration, when it is the group's turn.

        What work itself begins always waits: the time that it takes is not known before.

        Args:
            group: Group that the work belongs to.
            work: Function to call.
            part: Part of the group, which has its turn among the group's work that waits.

        Returns:
            What waits; None if the function was called now.
        """
        if self._take(group):
            self._do(work)
            return None
        return self._wait(group, part, work)

    async def turn(self, group: str) -> None:
        """Wait until it is the group's turn."""
        if not self._take(group):
            place = asyncio.get_running_loop().create_future()
            self._wait(group, None, lambda: _wake(place))
            await place

    def _wait(self, group: str, part: Hashable, work: Callable[[], None]) -> Waiting:
        waiting = Waiting(work)
        self._queues.setdefault(group, _Queue()).put(part, waiting)
        return waiting

    def _take(self, group: str) -> bool:
        """Count a piece of work that begins now; return False if it must wait."""
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._next_iteration)
        if group != self._last:
            self._last = group
            self._shared_until = loop.time() + _ALONE_AFTER_S
        if self._is_full() or self._begun[group] >= self._share(loop) or group in self._queues:
            return False
        self._begun[group] += 1
        return True

    def _do(self, work: Callable[[], None]) -> None:
        began, self._is_at_work = self._clock(), True
        try:
            work()
        finally:
            self._is_at_work = False
            self._spent_s += self._clock() - began

    def _is_full(self) -> bool:
        many = self._begun.total() >= self._most or self._spent_s >= _LONG_S
        return many or self._is_at_work

    def _share(self, loop: asyncio.AbstractEventLoop) -> int:
        return self._each if loop.time() < self._shared_until else self._most

    def _next_iteration(self) -> None:
        self._begun.clear()
        self._spent_s = 0.0
        self._scheduled = bool(self._queues)
        if not self._queues:
            return
        loop = asyncio.get_running_loop()
        loop.call_soon(self._next_iteration)
        each = self._share(loop)
        for _ in range(self._most):
            group = next((g for g in self._queues if self._begun[g] < each), None)
            if group is None or self._is_full():
                return
            queue = self._queues.pop(group)
            work = queue.take()
            if queue:
                self._queues[group] = queue  # behind all others
            if work is not None:
                self._begun[group] += 1
                self._do(work)


def _wake(place: "asyncio.Future[None]") -> None:
    if not place.done():
        place.set_result(None)
