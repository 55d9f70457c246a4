"""Rows that stand for a version, and the usual terms of explanations among them."""

import math
from collections import OrderedDict
from functools import partial

import numpy as np

from app.engine.engine import Array, Engine, Terms
from app.engine.loaded_models import LoadedModels
from app.limits import in_thread
from app.remembered import Remembered
from flows import CompiledFlow
from models_store.errors import BlobMissingError, NotFoundError, StoreError
from models_store.files.blobs import Blobs
from models_store.records import Version
from models_store.reference_rows import (
    draw_reference_rows,
    read_reference_rows,
    usual_count,
    usual_terms,
)
from models_store.registry import Registry

_ALL = slice(None)


def data_rows(version: Version, registry: Registry, blobs: Blobs, count: int) -> Array | None:
    """Return some rows of a version's dataset, the same ones at each call.

    Args:
        count: Most rows.

    Returns:
        Rows of the model's columns, then its context; None if there is no dataset of these types
        any more.

    Raises:
        StoreError: The dataset cannot be read.
    """
    if version.dataset_id is None or version.target is not None:
        return None
    try:
        dataset = registry.dataset(version.project, version.dataset_id)
        file = blobs.open(dataset.key, dataset.sha256)
    except (NotFoundError, BlobMissingError):
        return None
    return read_reference_rows(file, dataset.column_types, version.column_types, count)


async def sampled_rows(
    flow: CompiledFlow,
    engine: Engine,
    count: int,
    *,
    context: Array | None = None,
    columns: slice = _ALL,
) -> Array:
    """Draw rows of a flow, each chunk a turn of the engine, so that scores need not wait for them.

    Args:
        context: Context of each row, of a conditional flow.
        columns: Columns to keep.
    """
    drawing = draw_reference_rows(flow, count, context=context)
    rows = np.empty((count, len(range(flow.dim)[columns])))
    drawn = 0

    def draw() -> None:
        nonlocal drawn
        piece = next(drawing)
        rows[drawn : drawn + len(piece)] = piece[:, columns]
        drawn += len(piece)

    while drawn < count:
        await engine.run(draw, admitted=drawn > 0)
    return rows


class UsualTerms:
    """Medians of the terms of each column over rows of a version's dataset, or over samples.

    A term is a log density in the units of its column, so that only its distance from the usual one
    can be compared with those of other columns. The medians are computed when a version is explained
    for the first time, once, and kept; the least recently used are dropped. Belongs to one event
    loop.

    Args:
        most_kept: Number of versions whose medians are kept.
    """

    def __init__(
        self,
        registry: Registry,
        blobs: Blobs,
        *,
        models: LoadedModels,
        engine: Engine,
        most_kept: int = 256,
    ) -> None:
        self._registry, self._blobs = registry, blobs
        self._models, self._engine, self._most_kept = models, engine, most_kept
        self._kept: OrderedDict[str, Remembered[Array]] = OrderedDict()

    async def of(self, version: Version) -> Array:
        """Return the usual term of each column; NaN where none is known.

        Raises:
            OverloadedError: The engine has too much to do.
            StoreError: The model cannot be loaded.
        """
        key = version.checkpoint_key
        if key not in self._kept:
            self._kept[key] = Remembered(partial(self._compute, version), stale_s=0.0)
            while len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return await self._kept[key].get(math.inf)

    async def _compute(self, version: Version) -> Array:
        async with self._models.use(version) as flow:
            rows = await self._rows(version, flow, usual_count(flow))
            found = np.full((len(rows), flow.dim), np.nan)
            if len(rows):
                terms = Terms.of(flow, passes=flow.explaining_passes)
                explain = flow.explain
                await self._engine.apply(lambda rows: (explain(rows),), rows, found, terms=terms)
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
