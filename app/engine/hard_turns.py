"""Projects whose turns at the engine may take much longer than those before."""

import time
from collections.abc import Callable

_HARD_S = 0.016
_LONGER = 4.0
_KEPT_FACTOR, _KEPT_S = 200, 60.0


class HardTurns:
    """Prices of the rows of projects one of whose turns took much longer than as many rows had before.

    The time of some functions depends on their values, which nobody knows before, and how many rows a turn
    has follows from the rows before. So a project that had such a turn has those of fewer rows for a while,
    as if all rows were as hard. Belongs to one thread.

    Args:
        clock: Function that returns the time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[float, float]] = {}  # price and end, by project

    def learn(self, owner: str, seconds: float, *, longer: float, price: float) -> None:
        """Record a turn.

        Args:
            owner: Project that had it.
            seconds: Processor time that it took.
            longer: Ratio of that to the time that it would have taken with rows as those before.
            price: Ratio of the time of a row to that in the quickest turn of the function.
        """
        if seconds < _HARD_S or longer < _LONGER:
            return
        now = self._clock()
        self._found = {other: kept for other, kept in self._found.items() if kept[1] > now}
        known, until = self._found.get(owner, (1.0, 0.0))
        end = now + min(_KEPT_S, _KEPT_FACTOR * seconds)
        self._found[owner] = max(known, price), max(until, end)

    def price(self, owner: str) -> float:
        """Return how many times as long as in its quickest turn a row of a project may take."""
        price, until = self._found.get(owner, (1.0, 0.0))
        return price if self._clock() < until else 1.0
