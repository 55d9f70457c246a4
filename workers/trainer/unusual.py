"""The least likely rows of the table that a flow was trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from flows import Flow, compile_flow
from flows.training.evaluate import default_chunk_rows
from models_store.files.blobs import Blobs
from models_store.least_rows import LeastRows
from models_store.requests.search import AcceptedEnsemble
from models_store.requests.training import AcceptedTraining
from models_store.splits import split_rows
from workers.protocol import EnsembleTask, TrainingTask
from workers.trainer.data import numbered_as, open_table

# Chunks of a flow between two signs of life.
_CHUNKS = 8


def unusual_rows(
    flow: Flow,
    task: TrainingTask | EnsembleTask,
    blobs: Blobs,
    *,
    request: AcceptedTraining | AcceptedEnsemble,
    held_out: dict[str, Any],
    scored: Callable[[int], None],
) -> dict[str, Any]:
    """Return the least likely rows of the whole table, held-out ones included, as a version keeps them.

    Args:
        held_out: Quantiles that scores are calibrated by.
        scored: Function that counts rows.

    Raises:
        TrainingError: The table is gone or was changed.
    """
    table, wanted = numbered_as(request.column_types, open_table(blobs, task.dataset), task.dataset)
    compiled = compile_flow(flow, device=flow.device)
    least = LeastRows(held_out["quantiles"], held_out["rows"])
    step = _CHUNKS * default_chunk_rows(flow)
    for start in range(0, len(table), step):
        rows = table[start : start + step][:, wanted]
        least.add(compiled.log_prob(rows))
        scored(len(rows))
    kept = least.to_dict()
    train, _, _ = split_rows(len(table), request.split)
    trained = np.zeros(len(table), bool)
    trained[train] = True
    return kept | {"held_out": (~trained[kept["rows"]]).tolist()}
