"""Files of a job: the parts of an unfinished result, and the deletion of files that are of no use."""

import json
import logging
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models_store.errors import BlobError, CheckpointMismatchError
from models_store.files.blobs import Blobs, StoredBlob, attempt_of
from models_store.job_states import Checkpoint

log = logging.getLogger(__name__)

LIST_SUFFIX = ".json"
_FOLDERS = ("jobs", "models", "results")


class ResultPart(BaseModel):
    """File of consecutive rows of a result, as float64, row by row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    rows: int


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["parts"] = "parts"
    parts: list[ResultPart]


def save_list(blobs: Blobs, key: str, parts: list[ResultPart]) -> StoredBlob:
    """Store a list of durable parts durably, from which a job can resume."""
    with blobs.staged(LIST_SUFFIX) as path:
        path.write_text(json.dumps(_List(parts=parts).model_dump()), encoding="utf-8")
        return blobs.commit(path, key)


def load_list(blobs: Blobs, key: str, sha256: str) -> list[ResultPart]:
    """Load a list of parts, whose files are not verified.

    Raises:
        BlobError: There is no such file, with these bytes, or it is not a list of parts.
    """
    text = blobs.verify(key, sha256).read_bytes()
    try:
        return _List.model_validate_json(text).parts
    except ValidationError as error:
        raise CheckpointMismatchError(key) from error


def delete_leftovers(
    blobs: Blobs, job_id: str, *, attempt: int, kept: Sequence[Checkpoint] = ()
) -> None:
    """Delete the files of a job's attempts that are of no more use.

    Args:
        job_id: Id of a job that failed or was cancelled.
        attempt: Last attempt at the job. Files of later ones stay: it may have been resumed.
        kept: Checkpoints that the job names; the parts in their lists stay too.
    """
    try:
        needed = _needed(blobs, kept)
    except BlobError as error:
        log.warning("files of job %s stay, because a list of them is unusable: %s", job_id, error)
        return
    for folder in _FOLDERS:
        for key in keys_of(blobs, f"{folder}/{job_id}"):
            if key not in needed and attempt_of(key) <= attempt:
                delete_unneeded(blobs, key)


def delete_job_files(blobs: Blobs, job_id: str) -> None:
    """Delete all files of a job whose row is gone."""
    delete_unneeded(blobs, *(f"{folder}/{job_id}" for folder in _FOLDERS))


def _needed(blobs: Blobs, kept: Sequence[Checkpoint]) -> set[str]:
    needed = {checkpoint["key"] for checkpoint in kept}
    for checkpoint in kept:
        if checkpoint["key"].endswith(LIST_SUFFIX):
            parts = load_list(blobs, checkpoint["key"], checkpoint["sha256"])
            needed |= {part.key for part in parts}
    return needed


def keys_of(blobs: Blobs, folder: str) -> list[str]:
    """Return the keys in a folder; none while the store is unavailable, and doctor finds them later."""
    try:
        return blobs.keys(folder)
    except BlobError as error:
        log.warning("could not list %s: %s", folder, error)
        return []


def delete_unneeded(blobs: Blobs, *keys: str) -> None:
    """Delete files or folders that no row names; doctor finds those that cannot be deleted."""
    for key in keys:
        try:
            blobs.delete(key)
        except BlobError as error:
            log.warning("could not delete %s: %s", key, error)
