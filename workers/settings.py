"""Settings of the worker: how jobs run on this machine."""

from typing import Annotated

from pydantic import Field

from models_store.settings import StoreSettings


class WorkerSettings(StoreSettings):
    """Settings of a worker and its trainer processes, read from the environment."""

    worker_concurrency: int = Field(
        default=1, ge=1, le=256, description="Jobs that one worker runs at the same time."
    )
    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        default=None,
        description="Tells the workers of one host and data directory apart, in logs and in"
        " health checks. Unset: the host's name.",
    )
    device: Annotated[str, Field(pattern=r"^(cpu|auto|cuda(:\d{1,3})?)$")] = Field(
        default="cpu",
        description="Where trainers compute: cpu, cuda, cuda:N, or auto (cuda where there is one)."
        " A named device that is missing fails the job; there is no silent fallback.",
    )
    trainer_threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="CPU threads of one trainer. Results are bit-identical only for equal values.",
    )
    trainer_nice: int = Field(
        default=5, ge=0, le=19, description="Niceness of trainers, so that the API stays quick."
    )
    trainer_memory_bytes: Annotated[int, Field(ge=256 * 2**20)] | None = Field(
        default=None,
        description="Memory of one trainer on the CPU; a job that needs more fails with `oom`."
        " Unset: three quarters of the machine's or container's, divided by the concurrency.",
    )
    lease_s: float = Field(
        default=15.0,
        ge=2,
        le=3600,
        description="Seconds after which another worker takes over from one that went silent.",
    )
    stall_timeout_s: float = Field(
        default=900.0,
        ge=1,
        description="Seconds without one finished batch after which a trainer is killed.",
    )
    checkpoint_interval_s: float = Field(
        default=1.0,
        ge=0,
        description="A checkpoint follows every epoch, but no sooner than this after the last one,"
        " and no oftener than costs 2 % of the time. 0: every epoch without exception.",
    )
    long_epoch_s: float = Field(
        default=30.0,
        ge=0,
        description="Seconds without a checkpoint after which one is written within an epoch too,"
        " and longest part of a bulk job; no oftener than costs 2 % of the time. 0: after every"
        " batch.",
    )
    max_job_s: float = Field(
        default=7 * 86_400.0,
        gt=0,
        description="Seconds that a job may run for, over all its attempts; then it fails with"
        " `time_limit`, its last checkpoint kept. Resuming it gives it as much again.",
    )
    cancel_grace_s: float = Field(
        default=2.0, ge=0, le=30, description="Seconds from SIGTERM to SIGKILL when cancelling."
    )
    stop_grace_s: float = Field(
        default=6.0,
        ge=0,
        le=600,
        description="Seconds that trainers have for a checkpoint when the worker is told to stop.",
    )
    keep_checkpoints_s: float = Field(
        default=7 * 86_400.0,
        ge=0,
        description="Seconds for which a job that failed or was cancelled keeps its checkpoints and"
        " parts, which count in the quota. Resumed later, it starts from the beginning.",
    )
    sweep_interval_s: float = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds between two looks for jobs that no message announces; up to twice"
        " as long, at random.",
    )
