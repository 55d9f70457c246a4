"""Usual terms of explanations: what the values of a column add to log densities in most rows."""

import asyncio
from collections import OrderedDict

import numpy as np

from app.engine.batches import Array
from app.engine.engine import Engine, Terms
from app.engine.loaded_models import LoadedModels
from app.limits import in_thread
from app.reference_rows.version_rows import data_rows, sampled_rows
from flows import CompiledFlow
from models_store.errors import StoreError
from models_store.files.blobs import Blobs
from models_store.records import Version
from models_store.reference_rows import usual_count, usual_terms
from models_store.registry import Registry

_MOST_KEPT = 2**20


class UsualTerms:
    """Medians of the terms of each column over rows of a version's dataset, or over samples.

    A term is a log density in the units of its column, so that only its distance from the usual one
    can be compared with those of other columns. The medians are computed when a version is explained
    for the first time, once, and kept; the least recently used are dropped. Belongs to one event
    loop.

    Args:
        registry: Registry of datasets.
        blobs: Store of their tables.
        models: Models in memory.
        engine: Engine that computes.
    """

    def __init__(
        self, registry: Registry, blobs: Blobs, *, models: LoadedModels, engine: Engine
    ) -> None:
        self._registry, self._blobs = registry, blobs
        self._models, self._engine = models, engine
        self._kept: OrderedDict[str, Array] = OrderedDict()
        self._computed: dict[str, asyncio.Task[Array]] = {}

    async def of(self, version: Version) -> Array:
        """Return the usual term of each column; NaN where none is known.

        Raises:
            OverloadedError: The engine has too much to do.
            StoreError: The model cannot be loaded.
        """
        key = version.checkpoint_key
        known = self._kept.get(key)
        if known is not None:
            self._kept.move_to_end(key)
            return known
        task = self._computed.get(key)
        if task is None:
            task = self._computed[key] = asyncio.create_task(self._compute(version))
            task.add_done_callback(lambda done: self._end(key, done))
        # Others may wait for it, and come later, when whoever began it has left.
        return await asyncio.shield(task)

    def _end(self, key: str, done: "asyncio.Task[Array]") -> None:
        del self._computed[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[key] = done.result()
        while sum(map(len, self._kept.values())) > _MOST_KEPT:
            self._kept.popitem(last=False)

    async def _compute(self, version: Version) -> Array:
        async with self._models.use(version) as flow:
            passes = flow.explaining_passes
            rows = await self._rows(version, flow, usual_count(flow))
            found = np.full((len(rows), flow.dim), np.nan)
            if len(rows):
                terms = Terms(row_bytes=flow.row_bytes * passes, passes=passes)
                explain = flow.explain
                await self._engine.apply(
                    lambda rows: (explain(rows),), rows, found, key=object(), terms=terms
                )
        return await in_thread(usual_terms, found)  # a median for each column

    async def _rows(self, version: Version, flow: CompiledFlow, count: int) -> Array:
        try:
            rows = await in_thread(data_rows, version, self._registry, self._blobs, count)
        except StoreError:
            rows = None  # a score does not depend on its dataset
        if rows is not None:
            return rows
        if flow.context_dim:
            return np.empty((0, flow.dim + flow.context_dim))
        return await sampled_rows(flow, self._engine, count)
