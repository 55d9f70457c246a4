"""Registration of a parsed table as a dataset: bytes first, then the row; both or neither."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models_store.errors import DatabaseUnavailableError
from models_store.files.blobs import Blobs, cells_key, table_key
from models_store.job_states import Idempotency
from models_store.records import Dataset, NewDataset
from models_store.registry import Registry
from tabular.formats import TableFormat, TableSummary


@dataclass(frozen=True)
class UploadedTable:
    """Parsed table in the staging folder.

    Args:
        id: Identifier of the new dataset.
        project: Project that owns the dataset.
        name: Label of the dataset.
        format: Format of the upload.
        file: Staged table.
        cells: Staged file of the cells that are no numbers, if there are any.
        options: Options that the file was read with.
        summary: Summary of the parser.
        idempotency: Key that makes a repeated request return the first dataset.
        max_project_bytes: Largest number of bytes that the project may store.
        description: Description of the dataset.
        tags: Values of its tags by name.
    """

    id: str
    project: str
    name: str | None
    format: TableFormat
    file: Path
    cells: Path | None
    options: dict[str, Any]
    summary: TableSummary
    idempotency: Idempotency | None
    max_project_bytes: int
    description: str | None
    tags: dict[str, str]


def register_table(table: UploadedTable, blobs: Blobs, registry: Registry) -> Dataset:
    """Store a table and its row, or return the dataset of an earlier request with the same key.

    It runs as a whole in one thread, so that a request that is cut off does not stop it.

    Raises:
        DatabaseUnavailableError: The connection was lost, perhaps after the row was committed. The
            bytes stay, so that no row is without them; if there is none, doctor finds them.
        StoreError: Neither is stored.
    """
    key = table_key(table.id)
    blob = blobs.commit(table.file, key)
    try:
        cells = None if table.cells is None else blobs.commit(table.cells, cells_key(key))
        dataset = registry.add_dataset(
            NewDataset(
                id=table.id,
                project=table.project,
                name=table.name,
                rows=table.summary.rows,
                dtype=table.summary.dtype,
                columns=[column.to_dict() for column in table.summary.columns],
                warnings=[dict(warning) for warning in table.summary.warnings],
                source_format=table.format.value,
                source_sha256=table.summary.source_sha256,
                key=blob.key,
                sha256=blob.sha256,
                bytes=blob.bytes,
                cells=None
                if cells is None
                else asdict(cells) | {"text_bytes": table.summary.text_bytes},
                options=table.options,
                description=table.description,
                tags=table.tags,
            ),
            idempotency=table.idempotency,
            max_bytes=table.max_project_bytes,
        )
    except DatabaseUnavailableError:
        raise
    except BaseException:
        blobs.delete(key.rpartition("/")[0])
        raise
    if dataset.id != table.id:
        blobs.delete(key.rpartition("/")[0])
    return dataset
