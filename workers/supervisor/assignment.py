"""Task of a trainer, made of a claimed job: names become files, settings become limits."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from models_store.errors import NotFoundError
from models_store.job_states import Job, JobKind
from models_store.records import Version
from models_store.registry import Registry
from tabular.columns import Column
from workers.devices import devices_of, has_accelerator
from workers.protocol import (
    CheckpointRef,
    DatasetRef,
    EnsembleTask,
    ImputationTask,
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
    project, request = job.project, job.request
    common = common_fields(settings) | {
        "job_id": job.id,
        "attempt": job.attempt,
        "request_id": job.request_id,
        "request": request,
        "checkpoints": [CheckpointRef(**checkpoint) for checkpoint in job.checkpoints],
    }
    match job.kind:
        case JobKind.TRAINING:
            return TrainingTask(**_tables(job, registry), **common)
        case JobKind.ENSEMBLE:
            return EnsembleTask(**_tables(job, registry), **common)
        case JobKind.VARIATIONAL:
            return VariationalTask(dataset=_optional(registry, project, job.dataset_id), **common)
        case JobKind.SCORING:
            version = registry.resolve(project, request["model"])
            return ScoringTask(
                dataset=_dataset(registry, project, request["dataset_id"]),
                model=_model(version),
                reference=_reference(registry, version),
                **common,
            )
        case JobKind.SAMPLING:
            return SamplingTask(model=_model(registry.resolve(project, request["model"])), **common)
        case JobKind.IMPUTATION:
            dataset = _dataset(registry, project, request["dataset_id"])
            model = _model(registry.resolve(project, request["model"]))
            return ImputationTask(dataset=dataset, model=model, **common)


def _tables(job: Job, registry: Registry) -> dict[str, Any]:
    """Return the datasets of the parts that a split names."""
    split = job.request["split"]
    return {
        "dataset": _dataset(registry, job.project, job.request["dataset_id"]),
        "validation_dataset": _optional(registry, job.project, split["validation_dataset_id"]),
        "test_dataset": _optional(registry, job.project, split["test_dataset_id"]),
    }


def _optional(registry: Registry, project: str, dataset_id: str | None) -> DatasetRef | None:
    return None if dataset_id is None else _dataset(registry, project, dataset_id)


def _dataset(registry: Registry, project: str, dataset_id: str) -> DatasetRef:
    dataset = registry.dataset(project, dataset_id)
    kept = None
    if dataset.cells is not None:
        types = [Column.from_dict(fields).to_dict() for fields in dataset.columns]
        kept = KeptRef(key=dataset.cells["key"], sha256=dataset.cells["sha256"], types=types)
    return DatasetRef(
        id=dataset.id,
        key=dataset.key,
        sha256=dataset.sha256,
        types=[column.to_dict() for column in dataset.column_types],
        kept=kept,
    )


def _model(version: Version) -> ModelRef:
    return ModelRef(
        key=version.checkpoint_key,
        sha256=version.checkpoint_sha256,
        flow=version.flow,
        columns=version.columns,
        types=version.types,
        quantiles=None if version.held_out is None else version.held_out["quantiles"],
        held_out_rows=None if version.held_out is None else version.held_out["rows"],
    )


def _reference(registry: Registry, version: Version) -> DatasetRef | None:
    """Return the dataset that a version was trained on; None if there is none any more."""
    if version.target is not None:
        return None
    with suppress(NotFoundError):
        return _optional(registry, version.project, version.dataset_id)
    return None


def common_fields(settings: WorkerSettings) -> dict[str, Any]:
    """Return the settings that every trainer of this process gets, whatever its job."""
    return {
        "log_level": settings.log_level,
        "store": settings.store_address,
        "device": devices_of(settings)[0],
        "threads": settings.trainer_threads,
        "nice": settings.trainer_nice,
        "memory_bytes": memory_limit_bytes(settings),
        "host_bytes": _host_memory_bytes(settings),
        "checkpoint_interval_s": settings.checkpoint_interval_s,
        "long_epoch_s": settings.long_epoch_s,
    }


def memory_limit_bytes(settings: WorkerSettings) -> int | None:
    """Return the memory limit of a trainer; None on CUDA, which maps far more than it uses."""
    return None if has_accelerator(settings) else _host_memory_bytes(settings)


def _host_memory_bytes(settings: WorkerSettings) -> int:
    """Return the memory of the machine, or of its container, that a trainer may take."""
    if settings.trainer_memory_bytes is not None:
        return settings.trainer_memory_bytes
    return int(machine_bytes() * _SHARE_OF_MEMORY / len(devices_of(settings)))


def machine_bytes(own: Path = _OWN_GROUPS, groups: Path = _GROUPS) -> int:
    """Return the memory of the machine, or of the container that this process is in; arguments as of `group_limits`."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *group_limits(own, groups)])


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
                with suppress(OSError, ValueError):  # not there, or no number: there is no limit
                    yield int((group / limit).read_text(encoding="ascii"))
