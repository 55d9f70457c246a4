"""The list of the parts of a result that is not whole yet: what a bulk job resumes from."""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from models_store.errors import CheckpointMismatchError
from models_store.files.blobs import BlobStore, StoredBlob


class Part(BaseModel):
    """Consecutive rows of a result: a file of float64, row by row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    rows: int


class _List(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Literal["parts"] = "parts"
    parts: list[Part]


def save_list(blobs: BlobStore, key: str, parts: list[Part]) -> StoredBlob:
    """Store the list of durable parts durably.

    Raises:
        StorageFullError: nothing was stored.
    """
    with blobs.staged(".json") as path:
        path.write_text(json.dumps(_List(parts=parts).model_dump()), encoding="utf-8")
        return blobs.commit(path, key)


def load_list(blobs: BlobStore, key: str, sha256: str) -> list[Part]:
    """Load a list; whether its parts are whole is for the caller to see.

    Raises:
        BlobMissingError: there is no such file.
        BlobCorruptError: its bytes are not those that were stored.
        CheckpointMismatchError: it is no list of parts.
    """
    text = blobs.verify(key, sha256).read_bytes()
    try:
        return _List.model_validate_json(text).parts
    except ValidationError as error:
        raise CheckpointMismatchError(key) from error
