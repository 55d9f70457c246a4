"""Metrics of jobs and workers, as rows tell them."""

from pathlib import Path

import pytest
from sqlalchemy import update

from app.server import job_metrics
from app.server.job_metrics import JobMetrics
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow, WebhookDeliveryRow
from models_store.errors import DatabaseUnavailableError
from models_store.job_states import Accelerator
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from models_store.webhooks.webhooks import Webhooks
from tests.jobs.test_queues import submit


@pytest.fixture(autouse=True)
def each_time(monkeypatch):
    monkeypatch.setattr(job_metrics, "_KEPT_S", 0.0)


def test_rows_tell_what_waits_runs_and_ended(database: Database, tmp_path: Path) -> None:
    jobs, work = Jobs(database), JobWork(database)
    metrics = JobMetrics(
        JobFigures(database),
        {"database": 0.25},
        found=lambda: {"store": False, "broker": True},
        disks={"store": tmp_path, "data": tmp_path / "none"},
        max_bytes=1000,
    )
    for name in ("a", "b", "c"):
        submit(jobs, name)
    submit(jobs, "gpu", accelerator=Accelerator.REQUIRED)
    Workers(database).beat("w", accelerator=True)
    Workers(database).beat("x", unfit="It has no store.")
    first = work.claim("w", lease_s=30, accelerator=False)
    second = work.claim("w", lease_s=30, accelerator=False)
    assert first is not None
    assert second is not None
    Webhooks(database).create(first.project, "https://example.org/", events=["job.failed"])
    work.fail(first.id, 1, code="diverged", detail="It ends.")
    progress = {"epoch": 1, "rows_per_second": 100.5}
    work.record_epoch(second.id, 1, lease_s=30, metrics=progress, progress={})
    with database.write() as session:
        session.execute(
            update(JobRow)
            .where(JobRow.id == second.id)
            .values(lease_expires_at=db_now(-1), stored_bytes=900)
        )
        session.execute(
            update(WebhookDeliveryRow).values(attempts=3, ended_at=db_now(), delivered=False)
        )
    text = metrics.render().decode()
    for line in (
        'densityd_jobs{accelerator="none",kind="variational",state="queued"} 1.0',
        'densityd_jobs{accelerator="none",kind="variational",state="running"} 1.0',
        'densityd_jobs{accelerator="required",kind="variational",state="queued"} 1.0',
        'densityd_jobs_ended_jobs{kind="variational",state="failed"} 1.0',
        'densityd_jobs_ended_attempts{kind="variational",state="failed"} 1.0',
        'densityd_jobs_rows_per_second{kind="variational"} 100.5',
        "densityd_jobs_lease_expired 1.0",
        'densityd_jobs_failed{code="diverged"} 1.0',
        f'densityd_project_stored_bytes{{project="{first.project}"}} 900.0',
        f'densityd_project_max_bytes{{project="{first.project}"}} 1000.0',
        'densityd_webhook_deliveries{state="given_up"} 1.0',
        'densityd_webhook_deliveries{state="failing"} 0.0',
        'densityd_dependency_up{dependency="store"} 0.0',
        'densityd_dependency_up{dependency="broker"} 1.0',
        'densityd_free_bytes{disk="data"}',
        'densityd_workers{device="gpu",takes_jobs="true"} 1.0',
        'densityd_workers{device="cpu",takes_jobs="false"} 1.0',
        'densityd_dependency_seconds{dependency="database"} 0.25',
        'densityd_jobs_oldest_waiting_seconds{accelerator="required"}',
        "densityd_jobs_known 1.0",
        'densityd_build_info{schema="',
    ):
        assert line in text, line


def test_without_a_database_the_rest_is_told() -> None:
    class Away:
        def read(self):
            raise DatabaseUnavailableError

    text = JobMetrics(Away(), {}).render().decode()  # type: ignore[arg-type]  # stands for rows
    assert "densityd_jobs_known 0.0" in text
    assert "densityd_jobs_lease_expired" not in text


def test_the_service_tells_them(client):
    text = client.get("/metrics").text
    assert "densityd_jobs_known 1.0" in text
    assert 'densityd_dependency_seconds{dependency="store"}' in text
    assert 'densityd_dependency_up{dependency="store"} 1.0' in text
    assert 'densityd_dependency_up{dependency="broker"} 0.0' in text
    assert 'densityd_free_bytes{disk="store"}' in text
