"""The order in which projects get the engine."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Owned(Protocol):
    """Work on the account of a project."""

    owner: str


_Work = TypeVar("_Work", bound=Owned)


class FairOrder:
    """Gives the engine to the project that had least of its time, among those that wait.

    By time and not by turns, because one turn of a flow that is inverted step by step takes as
    long as a thousand of another (start-time fair queueing). Who comes anew starts where the
    others are: time in which a project asked for nothing is not saved up.

    Belongs to the engine's thread.
    """

    def __init__(self) -> None:
        self._had: dict[str, float] = {}  # seconds; only of those that are ahead of the floor
        self._floor = 0.0

    def first(self, waiting: Iterable[_Work]) -> _Work:
        """Return the work whose turn it is; of one project the one that stands first.

        Args:
            waiting: at least one.
        """
        chosen = min(waiting, key=lambda work: self._had.get(work.owner, self._floor))
        self._floor = self._had.get(chosen.owner, self._floor)
        self._had = {owner: had for owner, had in self._had.items() if had > self._floor}
        return chosen

    def charge(self, owner: str, seconds: float) -> None:
        """Note how long the engine worked for a project, in seconds."""
        self._had[owner] = self._had.get(owner, self._floor) + seconds
