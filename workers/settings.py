"""Settings of the worker: how jobs run on this machine."""

import socket
from typing import Annotated

from pydantic import Field

from models_store.settings import StoreSettings, internal

_CENTURY_S = 3.2e9


class WorkerSettings(StoreSettings):
    """Settings of a worker and its trainer processes, read from the environment."""

    worker_concurrency: int = Field(
        default=1, ge=1, le=256, description="Number of jobs that a worker runs at the same time."
    )
    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        default=None,
        description="Name of the worker, unique for a host and a data directory, in logs and "
        "health checks. Unset: the name of the host.",
    )
    worker_host: str = Field(
        default="127.0.0.1", description="Address that the worker's port listens on."
    )
    worker_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="Port of the worker with `/metrics`; 0: any. Unset: none.",
    )
    device: Annotated[str, Field(pattern=r"^(cpu|auto|cuda(:(\d{1,3}|all))?)$")] = Field(
        default="cpu",
        description="Device of trainers: cpu, cuda, cuda:N, auto (cuda if there is one), or "
        "cuda:all (every GPU, each for one job at a time). A "
        "worker whose named device is missing takes no job and logs the reason; it "
        "never falls back to another device.",
    )
    trainer_threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Number of CPU threads of a trainer. Results are bit-identical only for equal"
        " values.",
    )
    trainer_nice: int = internal(5, ge=0, le=19)
    trainer_memory_bytes: Annotated[int, Field(ge=256 * 2**20)] | None = Field(
        default=None,
        description="Memory limit of a trainer on the CPU; a job that needs more fails with "
        "`oom`. Unset: three quarters of the memory of the machine or container, "
        "divided by the concurrency.",
    )
    lease_s: float = internal(15.0, ge=2, le=3600)
    stall_timeout_s: float = internal(900.0, ge=1)
    checkpoint_interval_s: float = internal(1.0, ge=0)
    long_epoch_s: float = internal(30.0, ge=0)
    max_job_s: float = internal(7 * 86_400.0, gt=0)
    turn_s: float = internal(300.0, gt=0)
    keep_jobs_s: Annotated[float, Field(ge=0, le=_CENTURY_S)] | None = Field(
        default=None,
        description="Seconds after which ended jobs are deleted, with their events and results."
        " Jobs whose version exists stay. Unset: jobs are kept for ever.",
    )

    @property
    def label(self) -> str:
        """Return the worker's name, the host's unless it was given one."""
        return self.worker_name or socket.gethostname()
