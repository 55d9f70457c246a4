"""Database writes that outlast an outage of the database."""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from models_store.errors import DatabaseError, StorageFullError

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 4.0


class Writes:
    """Queue of writes; while the database is unavailable they wait, tried again with back-off."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], object]] = deque()
        self._retry_at = 0.0
        self._retry_s = 0.0

    @property
    def waiting(self) -> bool:
        """Return whether writes wait for the database to come back."""
        return bool(self._queue)

    def add(self, write: Callable[[], object]) -> None:
        """Queue a write; it may run more than once, so the store's writes are fenced."""
        self._queue.append(write)

    def flush(self) -> bool:
        """Do the writes that can be done now; return whether none is left.

        Raises:
            FencedError: A write found that another attempt holds the job.
        """
        while self._queue and time.monotonic() >= self._retry_at:
            self._run(self._done_first)
        return not self._queue

    def now(self, write: Callable[[], T]) -> T | None:
        """Do a write that is not worth keeping; return None when the database is unavailable.

        Raises:
            FencedError: The write found that another attempt holds the job.
        """
        return self._run(write) if time.monotonic() >= self._retry_at else None

    def _done_first(self) -> None:
        self._queue[0]()
        self._queue.popleft()

    def _run(self, write: Callable[[], T]) -> T | None:
        try:
            result = write()
        except (DatabaseError, StorageFullError) as error:
            if not self._retry_s:
                log.warning("the database cannot be written, training continues: %s", error)
            self._retry_s = min(self._retry_s * 2 or _RETRY_FIRST_S, _RETRY_MOST_S)
            self._retry_at = time.monotonic() + self._retry_s
            return None
        if self._retry_s:
            log.warning("the database can be written again")
            self._retry_s = 0.0
        return result
