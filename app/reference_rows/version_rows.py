"""Some rows that stand for a version: of its dataset, or drawn from it."""

import numpy as np

from app.engine.batches import Array
from app.engine.engine import Engine, Terms
from flows import CompiledFlow
from models_store.errors import BlobMissingError, NotFoundError
from models_store.files.blobs import Blobs
from models_store.records import Version
from models_store.reference_rows import draw_reference_rows, read_reference_rows
from models_store.registry import Registry

_ALL = slice(None)


def data_rows(version: Version, registry: Registry, blobs: Blobs, count: int) -> Array | None:
    """Return some rows of a version's dataset, the same ones at each call.

    Args:
        version: Version of a model.
        registry: Registry of datasets.
        blobs: Store of their tables.
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
        flow: Compiled flow.
        engine: Engine that computes.
        count: Number of rows.
        context: Context of each row, of a conditional flow.
        columns: Columns to keep.
    """
    drawing = draw_reference_rows(flow, count, context=context)
    rows = np.empty((count, len(range(flow.dim)[columns])))
    drawn = 0

    def draw(_start: int, _stop: int) -> None:
        nonlocal drawn
        piece = next(drawing)
        rows[drawn : drawn + len(piece)] = piece[:, columns]
        drawn += len(piece)

    while drawn < count:
        await engine.run(draw, rows=1, terms=Terms(admitted=drawn > 0))
    return rows
