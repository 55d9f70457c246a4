"""The one task of the queue."""

from celery import Celery  # type: ignore[import-untyped]  # celery ships no types

from workers.celery_app import TASK
from workers.supervisor import Supervisor


def register_tasks(app: Celery, supervisor: Supervisor) -> None:
    """Have `app` answer every hint by letting `supervisor` look for a job."""

    @app.task(name=TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def run(job_id: str) -> None:  # noqa: ARG001 - a hint; the oldest job that waits comes first
        supervisor.run_next()
