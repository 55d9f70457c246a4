"""Cache of models in memory, which are verified by their hash when they are loaded."""

import asyncio
import gc
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from prometheus_client import CollectorRegistry

from app.limits import Threads, in_thread
from app.metrics import ModelMetrics
from app.remembered import Remembered
from flows import CompiledFlow, spec_from_dict
from models_store.errors import BlobMissingError, NotFoundError, StoreError
from models_store.files.blobs import Blobs
from models_store.files.served_models import load_compiled
from models_store.records import Version
from models_store.registry import Registry
from models_store.requests.flow_limits import Described, check_model

log = logging.getLogger(__name__)

_MAX_REFS = 1000  # of a project, whose versions may have megabytes of levels
_CONCURRENT_LOADS = 2


@dataclass(eq=False, slots=True)
class Held:
    """Model in memory, or on its way there.

    Attributes:
        users: Number of requests that hold it.
        size_bytes: Memory of its weights; 0 until it is loaded.
    """

    key: tuple[str, bool]
    load: "asyncio.Task[CompiledFlow]"
    users: int = 0
    size_bytes: int = 0

    async def flow(self) -> CompiledFlow:
        """Return the compiled flow, once it is loaded; raises as `LoadedModels.use`."""
        if self.load.done():
            return self.load.result()
        # Shielded: the load continues for the others when one of those who wait leaves.
        return await asyncio.shield(self.load)


@dataclass(frozen=True)
class CacheLimits:
    """Bounds of the models in memory.

    Args:
        max_bytes: Memory in bytes of all loaded models together.
        max_model_bytes: Estimated memory in bytes of one of them while it computes.
        resolved_for_s: Seconds for which a resolved reference is kept; after at most that long an
            alias that another process has moved takes effect. One in use is looked up again before,
            so that its requests do not wait for the database.
        stale_s: Seconds for which it is used when the database cannot be reached.
    """

    max_bytes: int
    max_model_bytes: int
    resolved_for_s: float = 1.0
    stale_s: float = 0.0


class LoadedModels:
    """Cache of compiled flows, bounded in bytes, which evicts the least recently used first.

    It belongs to one event loop. Models that requests use are not evicted, so that the bound is
    exceeded while more than fits is in use.

    Args:
        registry: Registry that resolves references.
        limits: Bounds of the cache.
        metrics: Metrics that count loads and evictions.
    """

    def __init__(
        self,
        registry: Registry,
        blobs: Blobs,
        *,
        limits: CacheLimits,
        metrics: ModelMetrics | None = None,
    ) -> None:
        self._registry = registry
        self._blobs = blobs
        self._limits = limits
        self._references: dict[str, dict[str, Remembered[Version]]] = {}  # by project
        self._leaves_out: dict[str, bool] = {}
        self._entries: OrderedDict[tuple[str, bool], Held] = OrderedDict()
        self._size_bytes = 0
        self._metrics = metrics or ModelMetrics(CollectorRegistry())
        self._loads = Threads("loads", _CONCURRENT_LOADS, each=1)

    def close(self) -> None:
        """Load no further models."""
        self._loads.close()

    @property
    def size_bytes(self) -> int:
        """Memory of the loaded models in bytes."""
        return self._size_bytes

    async def resolve(self, project: str, ref: str) -> Version:
        """Return the version that a reference stands for now, or did before the database was unavailable.

        Raises:
            NotFoundError: The project has no such model, version or alias.
            DatabaseError: The database is unavailable, and the reference is not known, or not any more.
        """
        references = self._references.setdefault(project, {})
        known = references.get(ref)
        if known is not None and (version := known.at_hand(self._limits.resolved_for_s)):
            return version
        if known is None:  # all who ask meanwhile share it
            query = partial(in_thread, self._resolve, project, ref)
            known = references[ref] = Remembered(query, stale_s=self._limits.stale_s)
            if len(references) > _MAX_REFS:
                del references[next(iter(references))]
        try:
            return await known.get(self._limits.resolved_for_s)
        except StoreError:
            if not known.is_known:
                references.pop(ref, None)
            raise

    def _resolve(self, project: str, ref: str) -> Version:
        """Return the version of a reference, and learn whether its file has other columns, too."""
        version = self._registry.resolve(project, ref)
        key, dataset_id = version.checkpoint_key, version.dataset_id
        if dataset_id is None or key in self._leaves_out or not version.is_plain:
            return version
        if len(self._leaves_out) >= _MAX_REFS:
            self._leaves_out.clear()
        with suppress(NotFoundError):
            names = {one["name"] for one in self._registry.dataset(project, dataset_id).columns}
            self._leaves_out[key] = not names <= {*version.columns, *version.context_columns}
        return version

    def leaves_out(self, version: Version) -> bool:
        """Return whether a resolved model of plain numbers lacks columns of the file that it is of."""
        return self._leaves_out.get(version.checkpoint_key, False)

    def forget(self, project: str) -> None:
        """Forget resolved references of a project, because a model has changed; safe in any thread."""
        self._references.pop(project, None)

    @asynccontextmanager
    async def use(
        self, version: Version, *, conditionals: bool = False
    ) -> AsyncIterator[CompiledFlow]:
        """Yield the compiled flow of a version, which stays in memory until the context ends, for more than scores.

        Args:
            conditionals: True for a flow that keeps what densities of single columns need.

        Raises:
            NotFoundError: The version was deleted since its reference was resolved.
            BlobMissingError: The file of the version is gone.
            BlobCorruptError: The file does not match its hash.
            CheckpointMismatchError: The file is that of another model.
        """
        held = self.hold(version, conditionals=conditionals)
        try:
            flow = await held.flow()
            if not flow.is_whole:
                await self._loads.run(version.project, flow.prepare)
            yield flow
        finally:
            self.release(held)

    def hold(self, version: Version, *, conditionals: bool = False) -> "Held":
        """Return the model of a version, on its way or in memory, where it stays until it is released; see `use`."""
        key = version.checkpoint_key, conditionals
        held = self._entries.get(key)
        if held is None:
            load = asyncio.create_task(self._load(version, conditionals=conditionals))
            held = self._entries[key] = Held(key, load)
            # Whoever asked may have left by then, and nobody else may come to make room.
            load.add_done_callback(lambda _: self._evict())
        else:
            self._metrics.hits.inc()
        held.users += 1
        return held

    def release(self, held: "Held") -> None:
        """Let go of a model, which may make room for others then."""
        held.users -= 1
        if held.key in self._entries:
            self._entries.move_to_end(held.key)
        if held.users == 0 and self._size_bytes > self._limits.max_bytes:
            self._evict()

    async def _load(self, version: Version, *, conditionals: bool) -> CompiledFlow:
        key = version.checkpoint_key, conditionals
        began = time.monotonic()
        compile_version = partial(self._compile, conditionals=conditionals)
        try:
            compiled = await self._loads.run(version.project, compile_version, version)
        except BaseException:
            del self._entries[key]  # whoever comes next tries again
            self._metrics.load_failures.inc()
            raise
        self._entries[key].size_bytes = compiled.size_bytes
        self._size_bytes += compiled.size_bytes
        _leave_modules_out()
        seconds = time.monotonic() - began
        self._metrics.loads.inc()
        self._metrics.load_seconds.observe(seconds)
        self._metrics.loaded.inc()
        self._metrics.bytes.inc(compiled.size_bytes)
        log.info("loaded %s:%d in %.2f s", version.name, version.version, seconds)
        return compiled

    def _compile(self, version: Version, *, conditionals: bool) -> CompiledFlow:
        dim, context_dim = len(version.columns), len(version.context_columns)
        described = Described(spec_from_dict(version.flow), dim, context_dim, pointer=None)
        check_model(described, max_bytes=self._limits.max_model_bytes)
        compiled = self._read(version, conditionals=conditionals)
        _warm_up(compiled)
        return compiled

    def _read(self, version: Version, *, conditionals: bool) -> CompiledFlow:
        try:
            return load_compiled(
                self._blobs,
                version.checkpoint_key,
                version.checkpoint_sha256,
                spec=version.flow,
                columns=version.columns,
                conditionals=conditionals,
            )
        except BlobMissingError:
            # Another process may have deleted the version while this one remembers its reference.
            self._registry.version_summary(version.project, version.name, version.version)
            raise

    def _evict(self) -> None:
        for key, entry in list(self._entries.items()):
            if self._size_bytes <= self._limits.max_bytes:
                return
            if entry.users == 0 and entry.load.done():
                self._size_bytes -= entry.size_bytes
                del self._entries[key]
                self._metrics.evictions.inc()
                self._metrics.loaded.dec()
                self._metrics.bytes.dec(entry.size_bytes)


@cache
def _leave_modules_out() -> None:
    """Leave what the first load imported out of collections, which would visit it while every request waits."""
    gc.freeze()


def _warm_up(flow: CompiledFlow) -> None:
    """Compute once in each direction, so that the first request need not wait for compilation."""
    row = np.zeros((1, flow.dim + flow.context_dim))
    with np.errstate(all="ignore"):  # zeros may be nothing that the flow has seen
        flow.log_prob(row)
        flow.forward(np.zeros((1, flow.model_dim + flow.context_dim)))
