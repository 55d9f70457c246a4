"""Shares of projects in time that computations take one after the other."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Owned(Protocol):
    """Work that is charged to a project."""

    owner: str


_Work = TypeVar("_Work", bound=Owned)


class FairOrder:
    """Order in which projects get the engine: the one that had least of its time comes first.

    It counts time and not turns, because a turn of a flow that is inverted step by step takes as
    long as a thousand of another (start-time fair queueing). A project that returns starts where
    the others are: unused time is not saved.

    It belongs to one thread.
    """

    def __init__(self) -> None:
        self._had: dict[str, float] = {}  # seconds; only of those that are ahead of the floor
        self._floor = 0.0

    def first(self, waiting: Iterable[_Work]) -> _Work:
        """Return the work to compute next, the first one of its project.

        Args:
            waiting: Work in the order of the queue, which is not empty.
        """
        chosen = min(waiting, key=lambda work: self._had.get(work.owner, self._floor))
        self._floor = self._had.get(chosen.owner, self._floor)
        self._had = {owner: had for owner, had in self._had.items() if had > self._floor}
        return chosen

    def charge(self, owner: str, seconds: float) -> None:
        """Charge a project with seconds of the engine."""
        self._had[owner] = self._had.get(owner, self._floor) + seconds
