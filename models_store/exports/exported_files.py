"""Files of models that leave the service: weights and spec, and a record of the version beside them.

The record is one more text in the metadata of the safetensors file, so that its tensors, and what
reads them, stay as they are.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError, safe_open

from models_store.errors import ModelFileError
from models_store.files.model_files import check_header
from models_store.label_types import MAX_TAGS, Description, TagName, TagValue
from models_store.records import Version
from models_store.requests.training import Strict
from tabular.errors import JsonError
from tabular.json_text import parse_json

RECORD_KEY = "densityd.version"
MAX_CURVE = 1000
"""Most epochs of a learning curve."""
CurveName = Literal[
    "train_log_likelihood",
    "validation_log_likelihood",
    "robust_validation_log_likelihood",
    "elbo",
]
"""Name of a number that a training tells of each epoch."""

_MAX_RECORD_BYTES = 1 << 20
_MAX_METRICS_BYTES = 64 << 10  # lists of versions show all metrics
_LENGTH_BYTES = 8
_ALIGNMENT = 8
_QUANTILES = 1001
_TEXT = r"^[^\x00]*$"
_Short = Annotated[str, StringConstraints(max_length=100, pattern=_TEXT)]


class HeldOut(Strict):
    """Log densities of rows that the version was not trained on: their quantiles 0, 0.001, ..., 1."""

    rows: int = Field(ge=1, le=2**53)
    quantiles: list[float] = Field(min_length=_QUANTILES, max_length=_QUANTILES)

    @model_validator(mode="after")
    def _check(self) -> "HeldOut":
        finite = all(map(math.isfinite, self.quantiles))
        if not finite or self.quantiles != sorted(self.quantiles):
            raise ValueError("quantiles are finite and sorted")
        return self


def _small(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if len(json.dumps(value)) > _MAX_METRICS_BYTES:
        raise ValueError(f"it has more than {_MAX_METRICS_BYTES} bytes")
    return value


_Metrics = Annotated[dict[str, JsonValue], AfterValidator(_small), Field(max_length=200)]


class LearningCurve(Strict):
    """Likelihoods or ELBOs of some epochs of a training, in nats."""

    at: list[float] = Field(max_length=MAX_CURVE)
    values: dict[CurveName, list[float | None]]

    @model_validator(mode="after")
    def _check(self) -> "LearningCurve":
        if any(len(values) != len(self.at) for values in self.values.values()):
            raise ValueError("each curve has a value for each epoch")
        return self


class VersionRecord(Strict):
    """Record of a version, as far as it means something to another service."""

    format: Literal[1] = 1
    metrics: _Metrics
    held_out: HeldOut | None
    learning_curve: LearningCurve | None = None
    dataset_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None
    target: dict[str, JsonValue] | None
    seed: int | None = Field(ge=0, le=2**63 - 1)
    code_version: _Short
    description: Description | None
    tags: dict[TagName, TagValue] = Field(max_length=MAX_TAGS)


@dataclass(frozen=True)
class ExportedFile:
    """File to send: other first bytes, then a stored file from some place on.

    Args:
        head: First bytes.
        path: Stored file.
        start: Place in the stored file from which on it follows.
    """

    head: bytes
    path: Path
    start: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + self.path.stat().st_size - self.start


def exported_file(path: Path, version: Version, curve: LearningCurve | None) -> ExportedFile:
    """Return the file of a version's weights with a record of the version.

    Args:
        path: File of the weights, whose hash was verified.
        version: Version that it belongs to.
        curve: Learning curve of its training; None: nothing is known of it.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    metadata = header.get("__metadata__", {})
    record = _record_of(version) | {"learning_curve": None if curve is None else curve.model_dump()}
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    header["__metadata__"] = {**metadata, RECORD_KEY: text}
    content = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNMENT)
    head = len(content).to_bytes(_LENGTH_BYTES, "little") + content
    return ExportedFile(head, path, _LENGTH_BYTES + length)


def read_record(path: Path) -> VersionRecord | None:
    """Return the record in a file; None: it has none.

    Raises:
        ModelFileError: It is no safetensors file, or has something else in the record's place.
    """
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(RECORD_KEY)
    except (SafetensorError, OSError) as error:
        raise ModelFileError("The file is not a whole safetensors file.") from error
    if text is None:
        return None
    if len(text) > _MAX_RECORD_BYTES:
        raise ModelFileError(f"The record of the version has more than {_MAX_RECORD_BYTES} bytes.")
    try:
        return VersionRecord.model_validate(parse_json(text.encode()), strict=True)
    except (JsonError, ValidationError) as error:
        detail = f"The record under the key `{RECORD_KEY}` of the header is not that of a version."
        raise ModelFileError(detail) from error


def _record_of(version: Version) -> dict[str, Any]:
    held_out = version.held_out
    if held_out is not None and not all(map(math.isfinite, held_out["quantiles"])):
        held_out = None
    return {
        "format": 1,
        "metrics": {name: value for name, value in version.metrics.items() if _is_finite(value)},
        "held_out": held_out,
        "dataset_sha256": version.dataset_sha256,
        "target": version.target,
        "seed": version.seed,
        "code_version": version.code_version,
        "description": version.description,
        "tags": version.tags,
    }


def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
