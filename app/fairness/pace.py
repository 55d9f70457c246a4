"""Order in which work begins on the event loop, fair by caller."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

_ALONE_AFTER_S = 1.0


class Pace:
    """Beginning of work, of which each group has a few pieces in an iteration of the event loop.

    An iteration lasts as long as everything that is ready in it, and a request takes several
    iterations. Without a bound, a thousand connections that are ready at once would make one that
    lasts a second, for all. Work of one group begins in order of arrival. Belongs to one event
    loop.

    Args:
        each: Most pieces of one group in an iteration, as long as there are several groups.
        most: Most pieces in an iteration; so many may be those of a group that is alone.
    """

    def __init__(self, *, each: int, most: int) -> None:
        self._each = each
        self._most = most
        self._last = ""  # group
        self._shared_until = 0.0
        self._queues: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._begun: Counter[str] = Counter()  # in this iteration
        self._scheduled = False

    def begin(self, group: str, work: Callable[[], None]) -> bool:
        """Call a function now, or in a later iteration, when it is the group's turn.

        Returns:
            True if it was called now.
        """
        now = self._take(group)
        if now:
            work()
        else:
            self._queues.setdefault(group, deque()).append(work)
        return now

    async def turn(self, group: str) -> None:
        """Wait until it is the group's turn."""
        if not self._take(group):
            place = asyncio.get_running_loop().create_future()
            self._queues.setdefault(group, deque()).append(lambda: _wake(place))
            await place

    def _take(self, group: str) -> bool:
        """Count a piece of work that begins now; return False if it must wait."""
        loop = asyncio.get_running_loop()
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._next_iteration)
        if group != self._last:
            self._last = group
            self._shared_until = loop.time() + _ALONE_AFTER_S
        full = self._begun.total() >= self._most or self._begun[group] >= self._share(loop)
        if full or group in self._queues:
            return False
        self._begun[group] += 1
        return True

    def _share(self, loop: asyncio.AbstractEventLoop) -> int:
        return self._each if loop.time() < self._shared_until else self._most

    def _next_iteration(self) -> None:
        self._begun.clear()
        self._scheduled = bool(self._queues)
        if not self._queues:
            return
        loop = asyncio.get_running_loop()
        loop.call_soon(self._next_iteration)
        each = self._share(loop)
        for _ in range(self._most):
            group = next((g for g in self._queues if self._begun[g] < each), None)
            if group is None:
                return
            self._begun[group] += 1
            queue = self._queues.pop(group)
            work = queue.popleft()
            if queue:
                self._queues[group] = queue  # behind all others
            work()


def _wake(place: "asyncio.Future[None]") -> None:
    if not place.done():
        place.set_result(None)
