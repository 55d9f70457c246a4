"""Bounds on open requests of a key, and of the keys of a project together."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.auth.callers import Caller
from app.problems.problem import Problem

_KEYS_A_PROJECT = 2
_ANYBODY = 8
"""Share of a service without keys, where all callers count as one."""


class OpenBound:
    """Counter of open requests of one kind; belongs to one event loop.

    Args:
        what: Name of the kind, in the plural.
        each_key: Most of one key; the keys of a project may have twice as many together.
    """

    def __init__(self, what: str, each_key: int) -> None:
        self._what = what
        self._each_key = each_key
        self._open: dict[tuple[str, str], int] = {}

    @contextmanager
    def hold(self, caller: Caller) -> Iterator[None]:
        """Count one more as long as the context lasts.

        Raises:
            Problem: `limit-open-requests`, when there are too many.
        """
        self.add(caller)
        try:
            yield
        finally:
            self.remove(caller)

    def add(self, caller: Caller) -> None:
        """Count one more, which `remove` must follow.

        Raises:
            Problem: `limit-open-requests`, when there are too many.
        """
        self.check(caller)
        for share in self._shares(caller):
            self._open[share] = self._open.get(share, 0) + 1

    def check(self, caller: Caller) -> None:
        """Refuse one more without counting it, before any work is done for it.

        Raises:
            Problem: `limit-open-requests`, when there are too many.
        """
        for share, most in self._shares(caller).items():
            if self._open.get(share, 0) >= most:
                whose = "This key" if share[0] == "key" else "This project"
                raise Problem(
                    "limit-open-requests",
                    f"{whose} has {most} {self._what} open, which is the most at once.",
                    members={"limit": most},
                )

    def remove(self, caller: Caller) -> None:
        """Count one fewer."""
        for share in self._shares(caller):
            if self._open[share] == 1:
                del self._open[share]
            else:
                self._open[share] -= 1

    def _shares(self, caller: Caller) -> dict[tuple[str, str], int]:
        if caller.key_id is None:
            return {("project", caller.project): _ANYBODY * self._each_key}
        return {
            ("key", caller.key_id): self._each_key,
            ("project", caller.project): _KEYS_A_PROJECT * self._each_key,
        }
