"""A model that was trained elsewhere becomes a version: checked, its bytes first, then the row."""

from dataclasses import dataclass
from importlib.metadata import version as code_version
from pathlib import Path

from models_store.acceptance import TrainingLimits
from models_store.blobs import BlobStore, imported_key
from models_store.errors import DatabaseUnavailableError
from models_store.model_files import read_model_file
from models_store.registry import NewVersion, Registry, Version


@dataclass(frozen=True)
class Import:
    """A file that shall become a version.

    Args:
        project: whose.
        name: of the model.
        file: in the staging folder.
    """

    project: str
    name: str
    file: Path


def register_import(
    wanted: Import,
    blobs: BlobStore,
    registry: Registry,
    *,
    limits: TrainingLimits,
    max_columns: int,
) -> Version:
    """Check a file, store it as it came, and register it.

    Raises:
        DatabaseUnavailableError: the file is stored, and perhaps the row.
        StoreError: neither file nor row is stored.
    """
    model = read_model_file(wanted.file, limits=limits, max_columns=max_columns)
    blob = blobs.commit(wanted.file, imported_key())
    try:
        return registry.add_version(
            wanted.project,
            wanted.name,
            NewVersion(
                family=model.family,
                dim=len(model.columns),
                columns=model.columns,
                context_columns=model.context_columns,
                flow=model.spec,
                preprocessing=model.preprocessing,
                parameters=model.parameters,
                metrics={},
                dataset_id=None,
                dataset_sha256=None,
                seed=None,
                code_version=code_version("densityd"),
                checkpoint_key=blob.key,
                checkpoint_sha256=blob.sha256,
                checkpoint_bytes=blob.bytes,
            ),
        )
    except DatabaseUnavailableError:
        # Perhaps after the row was committed: a file without a row harms nobody.
        raise
    except BaseException:
        blobs.delete(blob.key)
        raise
