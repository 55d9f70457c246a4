"""Task of a trainer, made of a claimed job: names become files, settings become limits."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from models_store.errors import NotFoundError
from models_store.job_states import Job, JobKind
from models_store.records import Dataset
from models_store.registry import Registry
from tabular.columns import Column
from workers.devices import devices_of
from workers.protocol import (
    CheckpointRef,
    DatasetRef,
    EnsembleTask,
    KeptRef,
    ModelRef,
    SamplingTask,
    ScoringTask,
    Task,
    TrainingTask,
    VariationalTask,
)
from workers.settings import WorkerSettings

_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_SHARE_OF_MEMORY = 0.75


def task_of(job: Job, *, registry: Registry, settings: WorkerSettings) -> Task:
    """Return the task of `job`'s present attempt, for a trainer spawned by this process.

    Raises:
        NotFoundError: A dataset of the job is gone.
    """
    match job.kind:
        case JobKind.TRAINING:
            return training_task(job, registry=registry, settings=settings)
        case JobKind.VARIATIONAL:
            return variational_task(job, registry=registry, settings=settings)
        case JobKind.SCORING:
            return scoring_task(job, registry=registry, settings=settings)
        case JobKind.SAMPLING:
            return sampling_task(job, registry=registry, settings=settings)
        case JobKind.ENSEMBLE:
            return EnsembleTask(**_tables(job, registry), **_common(job, settings))


def training_task(job: Job, *, registry: Registry, settings: WorkerSettings) -> TrainingTask:
    """Return the task of a training.

    Raises:
        NotFoundError: A dataset of the job is gone.
    """
    return TrainingTask(**_tables(job, registry), **_common(job, settings))


def variational_task(job: Job, *, registry: Registry, settings: WorkerSettings) -> VariationalTask:
    """Return the task of a variational job.

    Raises:
        NotFoundError: The dataset of the job is gone.
    """
    dataset = _optional(registry, job.project, job.dataset_id)
    return VariationalTask(dataset=dataset, **_common(job, settings))


def scoring_task(job: Job, *, registry: Registry, settings: WorkerSettings) -> ScoringTask:
    """Return the task of a bulk scoring.

    Raises:
        NotFoundError: The dataset of the job is gone.
    """
    return ScoringTask(
        dataset=_dataset(registry, job.project, job.request["dataset_id"]),
        model=_model(registry, job),
        reference=_reference(registry, job),
        **_common(job, settings),
    )


def sampling_task(job: Job, *, registry: Registry, settings: WorkerSettings) -> SamplingTask:
    """Return the task of a bulk sampling."""
    return SamplingTask(model=_model(registry, job), **_common(job, settings))


def _tables(job: Job, registry: Registry) -> dict[str, Any]:
    """Return the datasets of the parts that a split names."""
    split = job.request["split"]
    return {
        "dataset": _dataset(registry, job.project, job.request["dataset_id"]),
        "validation_dataset": _optional(registry, job.project, split["validation_dataset_id"]),
        "test_dataset": _optional(registry, job.project, split["test_dataset_id"]),
    }


def _common(job: Job, settings: WorkerSettings) -> dict[str, Any]:
    return common_fields(settings) | {
        "job_id": job.id,
        "attempt": job.attempt,
        "request_id": job.request_id,
        "request": job.request,
        "checkpoints": [CheckpointRef(**checkpoint) for checkpoint in job.checkpoints],
    }


def common_fields(settings: WorkerSettings) -> dict[str, Any]:
    """Return the settings that every trainer of this process gets, whatever its job."""
    return {
        "log_level": settings.log_level,
        "store": settings.store_address,
        "device": devices_of(settings)[0],
        "threads": settings.trainer_threads,
        "nice": settings.trainer_nice,
        "memory_bytes": memory_limit_bytes(settings),
        "host_bytes": host_memory_bytes(settings),
        "checkpoint_interval_s": settings.checkpoint_interval_s,
        "long_epoch_s": settings.long_epoch_s,
    }


def memory_limit_bytes(settings: WorkerSettings) -> int | None:
    """Return the memory limit of a trainer; None on CUDA, which maps far more than it uses."""
    return host_memory_bytes(settings) if settings.device == "cpu" else None


def host_memory_bytes(settings: WorkerSettings) -> int:
    """Return the memory of the machine that a trainer may take."""
    if settings.trainer_memory_bytes is not None:
        return settings.trainer_memory_bytes
    processes = len(devices_of(settings))
    return int(_machine_memory_bytes() * _SHARE_OF_MEMORY / processes)


def _machine_memory_bytes() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *group_limits(_OWN_GROUPS, _GROUPS)])


def group_limits(own: Path, groups: Path) -> Iterator[int]:
    """Yield the limits of memory of the control groups of a process, and of those that these are in.

    Args:
        own: File that names its groups; a container may see them at another place than it says.
        groups: Folder of all groups.
    """
    with suppress(OSError, ValueError):  # not there, or empty
        for line in os.fsdecode(own.read_bytes()).rstrip("\n").split("\n"):
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                root, limit = groups, "memory.max"
            elif "memory" in controllers.split(","):
                root, limit = groups / "memory", "memory.limit_in_bytes"
            else:
                continue
            folder = root / name.strip("/")
            for group in (folder, *folder.parents)[: len(folder.parts) - len(root.parts) + 1]:
                with suppress(
                    OSError, ValueError
                ):  # not there, or no number where there is no limit
                    yield int((group / limit).read_text(encoding="ascii"))


def _model(registry: Registry, job: Job) -> ModelRef:
    version = registry.resolve(job.project, job.request["model"])
    return ModelRef(
        key=version.checkpoint_key,
        sha256=version.checkpoint_sha256,
        flow=version.flow,
        columns=version.columns,
        types=version.types,
        quantiles=None if version.held_out is None else version.held_out["quantiles"],
        held_out_rows=None if version.held_out is None else version.held_out["rows"],
    )


def _reference(registry: Registry, job: Job) -> DatasetRef | None:
    """Return the dataset that the model of a job was trained on; None if there is none any more."""
    version = registry.resolve(job.project, job.request["model"])
    if version.dataset_id is None or version.target is not None:
        return None
    try:
        return _dataset(registry, version.project, version.dataset_id)
    except NotFoundError:
        return None


def _optional(registry: Registry, project: str, dataset_id: str | None) -> DatasetRef | None:
    return None if dataset_id is None else _dataset(registry, project, dataset_id)


def _dataset(registry: Registry, project: str, dataset_id: str) -> DatasetRef:
    dataset = registry.dataset(project, dataset_id)
    return DatasetRef(
        id=dataset.id,
        key=dataset.key,
        sha256=dataset.sha256,
        types=[column.to_dict() for column in dataset.column_types],
        kept=_kept(dataset),
    )


def _kept(dataset: Dataset) -> KeptRef | None:
    if dataset.cells is None:
        return None
    types = [Column.from_dict(fields).to_dict() for fields in dataset.columns]
    return KeptRef(key=dataset.cells["key"], sha256=dataset.cells["sha256"], types=types)
