"""The pace of refusals: whoever is refused and asks again at once gets the next answer later."""

import asyncio
from time import monotonic

_A_SECOND = 100
_BURST_S = 0.5
_LONGEST_S = 10.0
_MAX_OWNERS = 10_000


class Refusals:
    """Holds refusals back, once one owner gets many of them; belongs to one event loop.

    A refusal costs the caller nothing and the event loop a little, so that a thousand connections
    which ask again at once would keep it busy. Nobody gets more than a hundred a second.
    """

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    async def pause(self, owner: str) -> None:
        """Wait until it is time for the owner's next refusal.

        Args:
            owner: a key, or the address of whoever has none.
        """
        now = monotonic()
        at = max(now - _BURST_S, self._next.get(owner, 0.0))
        if len(self._next) >= _MAX_OWNERS:
            self._next.clear()
        self._next[owner] = min(at + 1 / _A_SECOND, now + _LONGEST_S)
        if at > now:
            await asyncio.sleep(at - now)
