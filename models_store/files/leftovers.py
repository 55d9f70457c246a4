"""Files of a job that has ended: which of them are of use, and how the others go."""

import logging
from collections.abc import Sequence

from models_store.errors import BlobError
from models_store.files.blobs import BlobStore, attempt_of
from models_store.files.result_parts import load_list
from models_store.job_states import Checkpoint

log = logging.getLogger(__name__)

_LIST_SUFFIX = ".json"


def delete_leftovers(
    blobs: BlobStore, job_id: str, *, attempt: int, kept: Sequence[Checkpoint] = ()
) -> None:
    """Delete what attempts at a job left in the store and nobody will read.

    Args:
        blobs: Store that holds the files.
        job_id: Id of a job that failed or was cancelled.
        attempt: Last attempt at the job. Files of later ones stay: it may have been resumed.
        kept: Checkpoints that the job names; the parts in their lists stay, too.
    """
    try:
        needed = _needed(blobs, kept)
    except BlobError as error:
        log.warning("files of job %s stay, because a list of them is unusable: %s", job_id, error)
        return
    for folder in ("jobs", "models", "results"):
        for key in blobs.keys(f"{folder}/{job_id}"):
            if key not in needed and attempt_of(key) <= attempt:
                _delete(blobs, key)


def _needed(blobs: BlobStore, kept: Sequence[Checkpoint]) -> set[str]:
    needed = {checkpoint["key"] for checkpoint in kept}
    for checkpoint in kept:
        if checkpoint["key"].endswith(_LIST_SUFFIX):
            parts = load_list(blobs, checkpoint["key"], checkpoint["sha256"])
            needed |= {part.key for part in parts}
    return needed


def _delete(blobs: BlobStore, key: str) -> None:
    """Delete a file; one that cannot be is found by `densityd doctor`."""
    try:
        blobs.delete(key)
    except BlobError as error:
        log.warning("could not delete %s: %s", key, error)
