"""Import of a model that was trained elsewhere: its file is checked and stored before its row."""

from dataclasses import dataclass
from importlib.metadata import version as code_version
from pathlib import Path
from typing import Any

from app.settings import ApiSettings
from models_store.errors import DatabaseUnavailableError
from models_store.exports.exported_files import VersionRecord, read_record
from models_store.files.blobs import Blobs, StoredBlob, imported_key
from models_store.files.model_files import ModelFile, check_model_file
from models_store.job_states import Idempotency
from models_store.records import NewVersion, Version
from models_store.registry import Registry
from models_store.requests.flow_limits import TrainingLimits


@dataclass(frozen=True)
class Import:
    """File to register as a version.

    Args:
        project: Project that owns the model.
        name: Name of the model.
        file: Path in the staging folder.
        idempotency_key: Key with which a repeated request gets the first version again.
        max_project_bytes: Bytes that the project may store.
    """

    project: str
    name: str
    file: Path
    idempotency_key: str | None
    max_project_bytes: int


@dataclass(frozen=True)
class Registered:
    """Registered version; `replayed` if an earlier request with the same key made it."""

    version: Version
    replayed: bool


def check_import(
    file: Path, *, limits: TrainingLimits, settings: ApiSettings
) -> tuple[ModelFile, VersionRecord | None]:
    """Check a file in a process of its own.

    Args:
        file: Safetensors file.
        limits: Limits of flows.
        settings: Limits of the process and of what it reads.

    Raises:
        StoreError: The file is not a model that can be served.
    """
    record = read_record(file)
    model = check_model_file(
        file,
        limits=limits,
        max_columns=settings.max_columns,
        memory_bytes=settings.import_memory_bytes,
        timeout_s=settings.parse_timeout_s,
    )
    return model, record


def register_import(
    wanted: Import,
    checked: tuple[ModelFile, VersionRecord | None],
    blobs: Blobs,
    registry: Registry,
) -> Registered:
    """Store a checked file unchanged and register it, unless an earlier request with its key did.

    Raises:
        DatabaseUnavailableError: The file is stored, and perhaps the row.
        StoreError: Neither file nor row is stored.
    """
    model, record = checked
    blob = blobs.commit(wanted.file, imported_key())
    try:
        version = registry.add_version(
            wanted.project,
            wanted.name,
            NewVersion(
                family=model.family,
                dim=len(model.columns),
                columns=model.columns,
                context_columns=model.context_columns,
                types=model.types,
                flow=model.spec,
                preprocessing=model.preprocessing,
                parameters=model.parameters,
                dataset_id=None,
                **_recorded(record),
                checkpoint_key=blob.key,
                checkpoint_sha256=blob.sha256,
                checkpoint_bytes=blob.bytes,
            ),
            idempotency=_idempotency(wanted, blob),
            max_bytes=wanted.max_project_bytes,
        )
    except DatabaseUnavailableError:
        # Perhaps after the row was committed: a file without a row harms nobody.
        raise
    except BaseException:
        blobs.delete(blob.key)
        raise
    replayed = version.checkpoint_key != blob.key
    if replayed:
        blobs.delete(blob.key)
    return Registered(version, replayed=replayed)


def _recorded(record: VersionRecord | None) -> dict[str, Any]:
    """Return the fields of a version that its file has a record of."""
    if record is None:
        return {
            "metrics": {},
            "dataset_sha256": None,
            "seed": None,
            "code_version": code_version("densityd"),
        }
    return record.model_dump(exclude={"format", "learning_curve"})


def _idempotency(wanted: Import, blob: StoredBlob) -> Idempotency | None:
    """Return the key and a fingerprint, equal for equal bytes under the same name."""
    if wanted.idempotency_key is None:
        return None
    return Idempotency.of(wanted.idempotency_key, "version", wanted.name, blob.sha256)
