"""Turns a claimed job into a trainer's task: names become files, settings become limits."""

import os
from pathlib import Path

from models_store.job_states import Job
from models_store.registry import Registry
from workers.protocol import CheckpointRef, DatasetRef, TrainingTask
from workers.settings import WorkerSettings

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_SHARE_OF_MEMORY = 0.75


def training_task(job: Job, *, registry: Registry, settings: WorkerSettings) -> TrainingTask:
    """The task of `job`'s present attempt, for a trainer spawned by this process.

    Raises:
        NotFoundError: a dataset of the job is gone.
    """
    split = job.request["split"]
    return TrainingTask(
        job_id=job.id,
        attempt=job.attempt,
        request_id=job.request_id,
        parent_pid=os.getpid(),
        log_level=settings.log_level,
        blob_root=str(settings.blob_root),
        request=job.request,
        dataset=_dataset(registry, job.project, job.request["dataset_id"]),
        validation_dataset=_optional(registry, job.project, split["validation_dataset_id"]),
        test_dataset=_optional(registry, job.project, split["test_dataset_id"]),
        checkpoints=[CheckpointRef(**checkpoint) for checkpoint in job.checkpoints],
        device=settings.device,
        threads=settings.trainer_threads,
        nice=settings.trainer_nice,
        memory_bytes=memory_limit_bytes(settings),
        checkpoint_interval_s=settings.checkpoint_interval_s,
    )


def memory_limit_bytes(settings: WorkerSettings) -> int | None:
    """What one trainer may take; None where a CPU limit makes no sense (CUDA maps far more)."""
    if settings.device != "cpu":
        return None
    if settings.trainer_memory_bytes is not None:
        return settings.trainer_memory_bytes
    return int(_machine_memory_bytes() * _SHARE_OF_MEMORY / settings.worker_concurrency)


def _machine_memory_bytes() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return physical if limit == "max" else min(physical, int(limit))


def _optional(registry: Registry, project: str, dataset_id: str | None) -> DatasetRef | None:
    return None if dataset_id is None else _dataset(registry, project, dataset_id)


def _dataset(registry: Registry, project: str, dataset_id: str) -> DatasetRef:
    dataset = registry.dataset(project, dataset_id)
    return DatasetRef(
        id=dataset.id,
        key=dataset.key,
        sha256=dataset.sha256,
        columns=[column["name"] for column in dataset.columns],
    )
