"""Rows that the store's tests need but do not speak of."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select, update

from flows import FitOptions, RealNvpSpec
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.ids import new_id
from models_store.database.schema import JobRow
from models_store.errors import ConflictError, StoreError
from models_store.exports.exported_files import RECORD_KEY
from models_store.files.blobs import Blobs, StoredBlob, model_key, table_key
from models_store.job_states import Checkpoint, Job, JobKind, JobState, NewJob
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.queue import waiting
from models_store.jobs.retries import AttemptEnd, Ending
from models_store.records import Dataset, NewDataset, NewVersion, Version
from models_store.registry import Registry
from models_store.requests.search import AcceptedSearch, Stage
from models_store.requests.training import AcceptedSplit, Preprocessing, Trial

PROJECT = "default"
LEASE_S = 30.0


def a_dataset(**changes: Any) -> NewDataset:
    dataset_id = changes.pop("id", None) or new_id("ds")
    values: dict[str, Any] = {
        "id": dataset_id,
        "project": PROJECT,
        "name": "shuttle",
        "rows": 3,
        "dtype": "float64",
        "columns": [{"name": "x\u00e9", "dtype": "float64", "mean": 0.5, "std": 1.0}],
        "warnings": [],
        "source_format": "csv",
        "source_sha256": "a" * 64,
        "key": table_key(dataset_id),
        "sha256": "b" * 64,
        "bytes": 152,
    }
    return NewDataset(**{**values, **changes})


def a_job(**changes: Any) -> NewJob:
    values: dict[str, Any] = {
        "project": PROJECT,
        "kind": JobKind.TRAINING,
        "model_name": "shuttle",
        "dataset_id": None,
        "request": {"model_name": "shuttle", "flow": {"family": "maf"}},
    }
    return NewJob(**{**values, **changes})


def a_version(job: Job, **changes: Any) -> NewVersion:
    values: dict[str, Any] = {
        "family": "maf",
        "dim": 2,
        "columns": ["a", "b"],
        "flow": {"family": "maf", "layers": 5, "hidden": [128]},
        "preprocessing": {"standardise": True},
        "parameters": 164050,
        "metrics": {"test_log_likelihood": 3.0},
        "dataset_id": job.dataset_id,
        "dataset_sha256": "b" * 64,
        "seed": 2**40,
        "code_version": "0.1.0",
        "checkpoint_key": model_key(job.id, job.attempt),
        "checkpoint_sha256": "c" * 64,
        "checkpoint_bytes": 660000,
    }
    return NewVersion(**{**values, **changes})


def a_checkpoint(job: Job, epoch: int) -> Checkpoint:
    key = f"jobs/{job.id}/{job.attempt}-{epoch}"
    return Checkpoint(key=key, sha256="d" * 64, epoch=epoch, step=10 * epoch)


@contextmanager
def refused(slug: str) -> Iterator[None]:
    """Expect a conflict of this slug."""
    with pytest.raises(ConflictError) as caught:
        yield
    assert caught.value.slug == slug


def slug_of(result: object) -> str | None:
    """Return the slug of a result that is an error."""
    return result.slug if isinstance(result, StoreError) else None


def an_end(ending: Ending, *, code: str | None = None) -> AttemptEnd:
    return AttemptEnd(ending=ending, detail="the trainer ended", code=code)


CRASHED = an_end(Ending.CRASHED)


def no_wait(database: Database, job_id: str) -> None:
    """Let the time pass that a job waits for after a failed attempt."""
    with database.write() as session:
        session.execute(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.not_before.is_not(None))
            .values(not_before=db_now(-60))
        )


def put(blobs: Blobs, key: str, content: bytes = b"content") -> StoredBlob:
    """Store a file."""
    with blobs.staged() as path:
        path.write_bytes(content)
        return blobs.commit(path, key)


def stored_table(registry: Registry, blobs: Blobs) -> StoredBlob:
    """Register a dataset whose file is in the store; return that."""
    dataset_id = new_id("ds")
    stored = put(blobs, table_key(dataset_id), dataset_id.encode())
    added(registry, id=dataset_id, key=stored.key, sha256=stored.sha256, bytes=stored.bytes)
    return stored


def checkpointed(work: JobWork, blobs: Blobs, job: Job, epoch: int) -> StoredBlob:
    """Store and record a checkpoint of a running job."""
    stored = put(blobs, f"jobs/{job.id}/{job.attempt}-{epoch}.safetensors", b"%d" % epoch)
    at = Checkpoint(key=stored.key, sha256=stored.sha256, epoch=epoch, step=epoch)
    record(work, job, epoch, checkpoint=at)
    return stored


def record(work: JobWork, job: Job, epoch: int, **changes: Any) -> list[str]:
    """Record an epoch of a running job and a checkpoint of it."""
    values = {
        "lease_s": LEASE_S,
        "metrics": {"epoch": epoch},
        "progress": {"epoch": epoch, "fraction": epoch / 10},
        "checkpoint": a_checkpoint(job, epoch),
    }
    return work.record_epoch(job.id, job.attempt, **{**values, **changes})


def submitted(jobs: Jobs, **changes: Any) -> Job:
    return jobs.submit(a_job(**changes)).job


def added(registry: Registry, **changes: Any) -> Dataset:
    return registry.add_dataset(a_dataset(**changes))


def claimed(work: JobWork, *, lease_s: float = LEASE_S) -> Job:
    """Return the next job, which a worker has claimed."""
    job = work.claim("worker", lease_s=lease_s)
    assert job is not None
    return job


def finished(work: JobWork, job: Job, **changes: Any) -> Version:
    """Finish a claimed job with a version, and return that."""
    new = a_version(job, **changes)
    number = work.finish(job.id, job.attempt, metrics={}, version=new)
    assert number is not None
    return Registry(work.database).version(job.project, job.model_name, number)


def claimable(database: Database) -> list[str]:
    """Return the ids of jobs that a worker could take up now: those left by their workers, then the queue in order."""
    left = select(JobRow.id).where(
        JobRow.state == JobState.RUNNING, JobRow.lease_expires_at <= db_now()
    )
    with database.read() as session:
        expired = session.scalars(left.order_by(JobRow.lease_expires_at, JobRow.position)).all()
        return [*expired, *(row.id for row in session.scalars(waiting().limit(1000)))]


def split_of(**changes: Any) -> AcceptedSplit:
    values: dict[str, Any] = {"train": 0.8, "validation": 0.1, "test": 0.1}
    values |= {"shuffle": True, "seed": 0, "validation_dataset_id": None, "test_dataset_id": None}
    return AcceptedSplit(**{**values, **changes})


def a_search(
    *, trials: int, stages: Sequence[tuple[int, float]] | None = None, **changes: Any
) -> dict[str, Any]:
    trial = Trial(
        flow=RealNvpSpec(layers=2, hidden=[8]), optimisation=FitOptions(max_epochs=40, patience=10)
    )
    search = AcceptedSearch(
        model_name="shuttle",
        dataset_id="ds_" + 32 * "0",
        columns=["a", "b"],
        split=split_of(),
        preprocessing=Preprocessing(dequantise=None),
        trials=[trial] * trials,
        stages=[Stage(trials=n, share=share) for n, share in stages or ((trials, 1 / 3), (1, 1.0))],
        **{"ensemble": 1, **changes},
    )
    return search.model_dump(mode="json")


def edited(body: bytes, change: Mapping[str, object]) -> bytes:
    """The file with other fields in its record."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    record = json.loads(header["__metadata__"][RECORD_KEY])
    header["__metadata__"][RECORD_KEY] = json.dumps({**record, **change})
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content + body[8 + length :]
