"""Commits of what works in a context, such as a request with its threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Commits:
    """Note of whether anything was committed.

    Attributes:
        any: True once a transaction that may write was committed, or may have been: it had no errors, and was
            about to be.
    """

    def __init__(self) -> None:
        self.any = False


_here: ContextVar[Commits | None] = ContextVar("commits", default=None)


@contextmanager
def noting_commits() -> Iterator[Commits]:
    """Yield the note of this context and of what it starts."""
    commits = Commits()
    token = _here.set(commits)
    try:
        yield commits
    finally:
        _here.reset(token)


def note_commit() -> None:
    """Note that a transaction that may write is about to be committed here."""
    commits = _here.get()
    if commits is not None:
        commits.any = True
