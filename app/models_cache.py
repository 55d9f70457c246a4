"""The models in memory: loaded once, kept while there is room, checked against their hash."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from flows import CompiledFlow, compile_flow
from models_store.blobs import BlobStore
from models_store.checkpoints import load_model
from models_store.registry import Registry, Version

_MAX_REFS = 10_000
_CONCURRENT_LOADS = 2


@dataclass(eq=False)
class _Entry:
    load: "asyncio.Task[CompiledFlow]"
    users: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, eq=False)
class _Resolved:
    version: Version
    until: float


class LoadedModels:
    """Compiled flows, bounded by bytes, least recently used first to go.

    Belongs to one event loop. What a request uses is never evicted, so the bound is exceeded
    while more than fits is in use at once.

    Args:
        registry: knows which version a reference stands for.
        blobs: holds the weights.
        max_bytes: memory of all loaded models together.
        resolved_for_s: how long a reference stands for the same version without another look;
            an alias that another process moves takes effect here after at most that long.
    """

    def __init__(
        self,
        registry: Registry,
        blobs: BlobStore,
        *,
        max_bytes: int,
        resolved_for_s: float = 1.0,
    ) -> None:
        self._registry = registry
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._resolved_for_s = resolved_for_s
        self._resolved: dict[tuple[str, str], _Resolved] = {}
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading = asyncio.Semaphore(_CONCURRENT_LOADS)

    @property
    def size_bytes(self) -> int:
        """Memory that the loaded models take."""
        return sum(entry.size_bytes for entry in self._entries.values())

    async def resolve(self, project: str, ref: str) -> Version:
        """The version that `ref` stands for now.

        Raises:
            NotFoundError: the project has no such model, version or alias.
        """
        known = self._resolved.get((project, ref))
        if known is not None and time.monotonic() < known.until:
            return known.version
        resolved = self._resolved
        version = await asyncio.to_thread(self._registry.resolve, project, ref)
        if len(resolved) >= _MAX_REFS:
            resolved.clear()
        # Into the dictionary of before: what was read before a move is not kept after it.
        resolved[project, ref] = _Resolved(version, time.monotonic() + self._resolved_for_s)
        return version

    def forget(self) -> None:
        """Look again at what references stand for: an alias has moved. From any thread."""
        self._resolved = {}

    @asynccontextmanager
    async def use(self, version: Version) -> AsyncIterator[CompiledFlow]:
        """The compiled flow of a version; stays in memory until the context is left.

        Raises:
            BlobMissingError: its file is gone.
            BlobCorruptError: its file does not match its hash.
            CheckpointMismatchError: its file is that of another model.
        """
        key = version.checkpoint_key
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.create_task(self._load(version)))
        entry.users += 1
        try:
            # Shielded: the load goes on for the others when one of those who wait leaves.
            yield await asyncio.shield(entry.load)
        finally:
            entry.users -= 1
            if key in self._entries:
                self._entries.move_to_end(key)
            self._evict()

    async def _load(self, version: Version) -> CompiledFlow:
        key = version.checkpoint_key
        try:
            async with self._loading:
                compiled = await asyncio.to_thread(self._compile, version)
        except BaseException:
            del self._entries[key]  # whoever comes next tries again
            raise
        self._entries[key].size_bytes = compiled.size_bytes
        return compiled

    def _compile(self, version: Version) -> CompiledFlow:
        flow = load_model(
            self._blobs,
            version.checkpoint_key,
            version.checkpoint_sha256,
            spec=version.flow,
            columns=version.columns,
        )
        return compile_flow(flow)

    def _evict(self) -> None:
        excess = self.size_bytes - self._max_bytes
        for key, entry in list(self._entries.items()):
            if excess <= 0:
                return
            if entry.users == 0 and entry.load.done():
                excess -= entry.size_bytes
                del self._entries[key]
