"""Tallies that are kept in memory and written now and then: computed rows, and uses of keys."""

import asyncio
import logging

from app.auth.callers import Callers
from models_store.computed import Usage
from models_store.errors import StoreError
from models_store.keys import Keys

log = logging.getLogger(__name__)

_PAUSE_S = 15.0


class Tallies:
    """Tallies of one process; what a crash loses is a quarter of a minute of them.

    Args:
        usage: Usage of all projects.
        keys: Keys of all projects.
        callers: Cache that knows which keys were used.
    """

    def __init__(self, usage: Usage, keys: Keys, callers: Callers) -> None:
        self._usage = usage
        self._keys = keys
        self._callers = callers
        self._rows: dict[str, int] = {}

    def add_rows(self, project: str, rows: int) -> None:
        """Count rows that were computed for a project."""
        self._rows[project] = self._rows.get(project, 0) + rows

    async def run(self) -> None:
        """Write the tallies now and then, for ever."""
        while True:
            await asyncio.sleep(_PAUSE_S)
            await self.write()

    async def write(self) -> None:
        """Write the tallies; those that cannot be written now are kept."""
        rows, self._rows = self._rows, {}
        used = self._callers.take_used()
        try:
            if rows:
                await asyncio.to_thread(self._usage.add_rows, rows)
        except StoreError as error:
            log.warning("usage cannot be written, trying again: %s", error)
            for project, count in rows.items():
                self._rows[project] = self._rows.get(project, 0) + count
        try:
            if used:
                await asyncio.to_thread(self._keys.note_uses, used)
        except StoreError as error:
            log.warning("uses of keys cannot be written: %s", error)
