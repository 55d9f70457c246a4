"""The Celery application of the workers: `celery -A workers.celery_app inspect ping`, `status`, `worker -Q gpu`.

A message only wakes a worker; nothing depends on its arrival, as the rows of jobs are the truth. So nothing here
acknowledges late, stores results, or restores lost messages: a worker looks for a job every 1.5 s anyway.
"""

import signal
from collections.abc import Set
from types import FrameType
from typing import Any

from celery import (  # type: ignore[import-untyped]  # celery ships no types
    Celery,
    bootsteps,
    signals,
)
from celery.worker import state  # type: ignore[import-untyped]
from kombu.transport.redis import Channel

from models_store.broker import CPU_QUEUE, GPU_QUEUE, TASK, celery_options
from models_store.process.endings import ending_signals
from models_store.process.logs import configure_logging
from workers.devices import devices_of, has_accelerator
from workers.service import WorkerService
from workers.settings import WorkerSettings

_TIMEOUT_S = 3.0


def _options() -> dict[str, Any]:
    settings = WorkerSettings()
    return celery_options(settings.resolved_broker_url, timeout_s=_TIMEOUT_S) | {
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # such as of a Redis whose disk is full
        "task_queues": {name: {} for name in _queues(settings)},
        "worker_pool": "threads",
        "worker_concurrency": len(devices_of(settings)),
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": True,
        # Concerns late acknowledgement, of which there is none; the default warns each time.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
    }


def _queues(settings: WorkerSettings) -> list[str]:
    """Return the queues of a worker without `-Q`; what an accelerator can do, it also does for others."""
    return [GPU_QUEUE, CPU_QUEUE] if has_accelerator(settings) else [CPU_QUEUE]


# A message that was not acknowledged when its connection broke means nothing any more; to put it back without
# a connection would be an error that ends the worker.
Channel.do_restore = False

celery = Celery("densityd", set_as_current=False, fixups=[])
celery.add_defaults(_options)  # read when the first of them is needed


@celery.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]  # celery ships no types
def work(task: Any) -> None:  # noqa: ANN401 - as above
    """Run jobs until none waits that this worker can take."""
    task.service.run_jobs()


class JobsStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Service that runs jobs beside Celery's consumer, whether or not this one has a broker.

    Args:
        service: Service to run; None: that of the settings.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(
        self,
        worker: Any,  # noqa: ANN401 - as above
        service: WorkerService | None = None,
        **options: Any,  # noqa: ANN401 - as above
    ) -> None:
        super().__init__(worker, **options)
        self._ending = ending_signals()  # before Celery has its own handlers
        self._service = service or WorkerService.open(WorkerSettings())

    def start(self, worker: Any) -> None:  # noqa: ANN401 - as above
        """Begin to look for jobs."""
        worker.app.tasks[TASK].service = self._service
        _end_at({*self._ending, signal.SIGQUIT}, self._service)
        self._service.start(worker.pool)

    def stop(self, _worker: Any) -> None:  # noqa: ANN401 - as above
        """Let every trainer write a checkpoint and end."""
        self._service.close()


def _end_at(numbers: Set[signal.Signals], service: WorkerService) -> None:
    """Let all these signals end the worker in the same way: Celery's own handlers print, raise or start it again."""

    def end(_number: int, _frame: FrameType | None) -> None:
        service.stop()
        state.should_stop = 0

    for number in numbers:
        signal.signal(number, end)
    if signal.SIGHUP not in numbers:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


celery.steps["worker"].add(JobsStep)


@signals.setup_logging.connect  # type: ignore[untyped-decorator]  # celery ships no types
def _configure_logging(**_: Any) -> None:  # noqa: ANN401 - as above
    """Log in JSON; Celery leaves logging alone as soon as anybody listens."""
    configure_logging(WorkerSettings().log_level, "worker")
