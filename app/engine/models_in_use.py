"""Bound on the models that the requests of a project use at once."""

import asyncio
from collections import Counter

from app.engine.batches import OverloadedError
from models_store.records import Version

_WAIT_S = 30.0


class ModelsInUse:
    """Models that requests use, by project, in bytes of their files; who would use more waits.

    A model in use stays in memory, and a caller who reads slowly uses one for hours. One model may
    always be used, however large it is. It belongs to one event loop.

    Args:
        max_bytes: Most bytes of several models that a project uses at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._users: dict[str, Counter[str]] = {}
        self._bytes: Counter[str] = Counter()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def add(self, version: Version) -> None:
        """Count one more user of a version, once there is room for it.

        Raises:
            OverloadedError: There was none for too long.
        """
        if not self._fits(version):
            await self._wait(version)
        users = self._users.setdefault(version.project, Counter())
        users[version.checkpoint_key] += 1
        if users[version.checkpoint_key] == 1:
            self._bytes[version.project] += version.checkpoint_bytes

    def remove(self, version: Version) -> None:
        """Count one user less."""
        users = self._users[version.project]
        users[version.checkpoint_key] -= 1
        if users[version.checkpoint_key] > 0:
            return
        del users[version.checkpoint_key]
        self._bytes[version.project] -= version.checkpoint_bytes
        if not users:
            del self._users[version.project], self._bytes[version.project]
        for place in self._waiting.pop(version.project, ()):
            if not place.done():
                place.set_result(None)

    def _fits(self, version: Version) -> bool:
        users = self._users.get(version.project)
        if users is None or version.checkpoint_key in users:
            return True
        return self._bytes[version.project] + version.checkpoint_bytes <= self._max_bytes

    async def _wait(self, version: Version) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                while not self._fits(version):
                    place = asyncio.get_running_loop().create_future()
                    waiting = self._waiting.setdefault(version.project, set())
                    waiting.add(place)
                    try:
                        await place
                    finally:
                        waiting.discard(place)
        except TimeoutError:
            raise OverloadedError from None
