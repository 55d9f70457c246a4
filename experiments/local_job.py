"""Training job in this process, through the code of the trainer, without a service."""

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import Flow
from models_store.database.ids import new_id
from models_store.files.blobs import Blobs, StoredBlob, table_key
from models_store.files.checkpoints import load_model
from models_store.files.store_address import StoreAddress
from models_store.records import Dataset
from models_store.requests.accept_training import accept_training
from models_store.requests.flow_limits import TrainingLimits
from models_store.requests.training import TrainingRequest
from tabular.formats import TableFormat
from tabular.ingest.storing import parse_table
from workers.protocol import DatasetRef, Message, Trained, TrainingTask
from workers.trainer.training import train

_LIMITS = TrainingLimits(
    max_parameters=10**9, max_layers=256, max_memory_bytes=2**40, max_model_bytes=2**40
)


@dataclass(frozen=True)
class Job:
    """Result of a job; its time is that of the whole job, not of training alone.

    Attributes:
        version: Version of the model, as the trainer describes it.
    """

    flow: Flow
    seconds: float
    version: dict[str, Any]


def run_job(table: NDArray[np.float32] | Path, fields: dict[str, Any]) -> Job:
    """Train from a request without `model_name` and `dataset_id`, on the CPU in one thread.

    Args:
        table: Rows of plain numbers; or a CSV file, whose columns get the types that an upload gives them.
        fields: Fields of the request; all others take their defaults.
    """
    with tempfile.TemporaryDirectory(prefix="densityd-job-") as folder:
        blobs = Blobs.in_folder(Path(folder))
        dataset = _added_file(blobs, table) if isinstance(table, Path) else _added(blobs, table)
        body = {"model_name": "local", "dataset_id": dataset.id, **fields}
        accepted = accept_training(TrainingRequest.model_validate(body), dataset, limits=_LIMITS)
        began, messages = time.perf_counter(), list[Message]()
        task = _task(folder, dataset, accepted.model_dump(mode="json"))
        train(task, messages.append, interrupted=lambda: False)
        seconds, trained = time.perf_counter() - began, messages[-1]
        assert isinstance(trained, Trained)  # noqa: S101  the last message of a job not interrupted
        version = trained.version
        flow = load_model(blobs, version["checkpoint_key"], version["checkpoint_sha256"])
        return Job(flow, seconds, version)


def _task(folder: str, dataset: Dataset, request: dict[str, Any]) -> TrainingTask:
    return TrainingTask(
        job_id=new_id("job"),
        attempt=1,
        request_id=None,
        log_level="INFO",
        store=StoreAddress(url=folder),
        request=request,
        dataset=DatasetRef(
            id=dataset.id,
            key=dataset.key,
            sha256=dataset.sha256,
            types=[column.to_dict() for column in dataset.column_types],
        ),
        validation_dataset=None,
        test_dataset=None,
        checkpoints=[],
        device="cpu",
        threads=1,
        nice=0,
        memory_bytes=None,
        checkpoint_interval_s=30.0,
        long_epoch_s=30,
    )


def _added_file(blobs: Blobs, file: Path) -> Dataset:
    dataset_id = new_id("ds")
    with blobs.staged(".npy") as staged:
        stored = parse_table(file, staged, TableFormat.CSV)
        blob = blobs.commit(staged, table_key(dataset_id))
    columns = [column.to_dict() for column in stored.columns]
    return _dataset(dataset_id, stored.rows, stored.dtype, columns, blob)


def _added(blobs: Blobs, rows: NDArray[np.float32]) -> Dataset:
    dataset_id = new_id("ds")
    with blobs.staged(".npy") as staged:
        np.save(staged, rows)
        blob = blobs.commit(staged, table_key(dataset_id))
    columns = [
        {"name": f"x{index + 1}", "dtype": "float32", "std": float(column.std())}
        for index, column in enumerate(rows.astype(np.float64).T)
    ]
    return _dataset(dataset_id, len(rows), "float32", columns, blob)


def _dataset(
    dataset_id: str, rows: int, dtype: str, columns: list[dict[str, Any]], blob: StoredBlob
) -> Dataset:
    return Dataset(
        id=dataset_id,
        project="default",
        name=None,
        rows=rows,
        dtype=dtype,
        columns=columns,
        warnings=[],
        source_format="npy",
        source_sha256=blob.sha256,
        key=blob.key,
        sha256=blob.sha256,
        bytes=blob.bytes,
        created_at=datetime.now(tz=UTC),
    )
