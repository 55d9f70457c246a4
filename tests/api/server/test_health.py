"""Liveness, readiness and metrics: what the last look found, at no cost to whoever asks."""

import os
import re
import shutil
import sqlite3
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.main import create_app
from app.metrics import MOST_LABELS, Metrics
from app.server.job_metrics import JobMetrics
from app.server.readiness import Level, Lookout
from app.server.startup import Shutdown
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow, WebhookDeliveryRow
from models_store.errors import DatabaseUnavailableError, SchemaMismatchError
from models_store.files.blobs import Blobs
from models_store.job_states import Accelerator, JobKind
from models_store.jobs.figures import JobFigures
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from models_store.projects import Projects
from models_store.registry import Registry
from models_store.webhooks.webhooks import Webhooks
from tests.api.serving import registered, stores
from tests.jobs.test_queues import submit
from tests.store.makers import a_dataset, a_version
from tests.support.waiting import wait_until


@pytest.fixture
def setting_values():
    return {"ready_look_s": 3600}


@pytest.fixture
def looking_client(settings):
    """An application that looks at what it depends on all the time."""
    looking = settings.model_copy(update={"ready_look_s": 0.1})
    with TestClient(create_app(looking), raise_server_exceptions=False) as client:
        yield client


def read_only(file):
    """Make the database refuse writes, as a server that became a replica does."""
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TRIGGER no_writes BEFORE UPDATE ON alembic_version"
            " BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        )
    connection.close()


def test_asking_looks_at_nothing(client, settings):
    shutil.rmtree(settings.blob_root)
    settings.blob_root.write_text("no folder")
    files = list(settings.data_dir.iterdir())
    before = {path: path.stat() for path in files}
    for _ in range(3):  # ends long before the next look, a second after the one without a broker
        assert client.get("/readyz").json()["checks"]["store"]["ok"] is True
    for path, status in before.items():
        assert path.stat().st_mtime_ns == status.st_mtime_ns
        assert path.stat().st_size == status.st_size


def test_a_database_that_takes_no_writes_is_not_ready(settings):
    read_only(settings.data_dir / "densityd.sqlite3")
    with TestClient(create_app(settings)) as client:
        response = client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["database"]["ok"] is False
        assert client.get("/v1/datasets").status_code == 200


@contextmanager
def looking(settings, busy_timeout_s=0.5, **options):
    """A lookout that looks all the time."""
    database = Database(settings.resolved_database_url, busy_timeout_s=busy_timeout_s)
    blobs = Blobs.in_folder(settings.blob_root)
    blobs.ping()  # as every start does
    lookout = Lookout(database, blobs, every_s=0.05, **options)
    lookout.start(wait_s=120)
    yield lookout
    lookout.stop()
    lookout.join(120)
    database.dispose()


@pytest.fixture
def lookout(settings):
    with looking(settings) as lookout:
        yield lookout


@contextmanager
def locked(settings):
    """The database, whose lock another one holds."""
    other = sqlite3.connect(settings.data_dir / "densityd.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def levels(lookout):
    return {name: finding.level for name, finding in lookout.found().items()}


def test_a_full_disk_is_degraded_and_passes(lookout, monkeypatch):
    def full(_folder):
        return SimpleNamespace(f_bavail=0, f_frsize=4096)

    assert set(levels(lookout).values()) == {Level.OK}
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", full)
        wait_until(lambda: levels(lookout)["store"] is Level.DEGRADED)
        assert "full" in lookout.found()["store"].detail
    wait_until(lambda: levels(lookout)["store"] is Level.OK)


def test_a_process_that_is_about_to_stop_says_so_and_keeps_no_connection(settings):
    shutdown = Shutdown()
    with TestClient(create_app(settings, shutdown=shutdown)) as client:
        assert "connection" not in client.get("/readyz").headers
        shutdown.draining = True
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert client.get("/livez").headers["connection"] == "close"


def test_what_was_amiss_is_looked_at_again_soon(settings):
    database = Database(settings.resolved_database_url)
    found = iter(["the broker is away"])
    lookout = Lookout(
        database, Blobs.in_folder(settings.blob_root), lambda: next(found, None), every_s=1000
    )
    lookout.start(wait_s=120)
    assert levels(lookout)["broker"] is Level.DEGRADED
    wait_until(lambda: levels(lookout)["broker"] is Level.OK, within_s=60)
    lookout.stop()
    lookout.join(120)
    database.dispose()


def test_a_database_whose_lock_others_hold_is_degraded(lookout, settings):
    with locked(settings):
        wait_until(lambda: levels(lookout)["database"] is Level.DEGRADED)
    wait_until(lambda: levels(lookout)["database"] is Level.OK)


def test_a_look_that_does_not_end_is_not_ready(settings):
    with looking(settings, busy_timeout_s=3, stuck_s=0.2) as lookout:
        with locked(settings):
            wait_until(lambda: set(levels(lookout).values()) == {Level.UNUSABLE})
            assert "has not ended" in lookout.found()["store"].detail
        wait_until(lambda: set(levels(lookout).values()) == {Level.OK})


def test_looks_go_on_and_write_nothing_to_the_store(lookout, settings):
    staging = settings.blob_root / "staging"
    before = staging.stat().st_mtime_ns
    staging.rename(settings.blob_root / "elsewhere")
    wait_until(lambda: levels(lookout)["store"] is Level.UNUSABLE)
    (settings.blob_root / "elsewhere").rename(staging)
    wait_until(lambda: levels(lookout)["store"] is Level.OK)
    assert staging.stat().st_mtime_ns == before


def is_ready(client: TestClient) -> bool:
    return client.get("/readyz").status_code == 200


def test_without_a_broker_the_service_is_degraded_but_ready(looking_client):
    response = looking_client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    checks = response.json()["checks"]
    assert checks.keys() == {"database", "schema", "store", "engine", "broker"}
    assert [name for name, check in checks.items() if not check["ok"]] == ["broker"]


def test_without_a_store_the_service_is_unavailable(looking_client, settings):
    shutil.rmtree(settings.blob_root)
    settings.blob_root.write_text("no folder")
    wait_until(lambda: not is_ready(looking_client))
    response = looking_client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert response.json()["checks"]["store"]["ok"] is False
    assert response.json()["checks"]["database"]["ok"] is True
    assert looking_client.get("/livez").status_code == 200
    assert looking_client.get("/v1/datasets").status_code == 200


def test_without_a_database_the_service_is_unavailable(looking_client, settings):
    for file in settings.data_dir.glob("densityd.sqlite3*"):
        # Written over, never cut short: a process that maps a file dies of a page that went away.
        with file.open("r+b") as opened:
            opened.write(b"garbage" * 1000)
    # A connection that holds the pages in memory would continue with them.
    looking_client.app.state.database.dispose()
    wait_until(lambda: not is_ready(looking_client))
    response = looking_client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert response.json()["checks"]["schema"]["ok"] is False
    assert looking_client.get("/livez").status_code == 200
    assert looking_client.get("/v1/datasets").json()["type"] == "/problems/db-unavailable"


def test_another_schema_is_refused_with_both_revisions(settings):
    (settings.data_dir / "densityd.sqlite3").unlink()
    app = create_app(settings)
    with pytest.raises(SchemaMismatchError, match="needs revision"), TestClient(app):
        pass


def test_metrics_count_requests_by_project_and_model_of_those_that_there_are(client):
    registered(*stores(client), project="default")
    body = {"rows": [[170, 70, 40]]}
    for ref in ("people", "people@live", "people:1"):
        client.post(f"/v1/models/{ref}/log_prob", json=body)
    for number in range(3):
        client.post(f"/v1/models/junk-{number}/log_prob", json=body)
    text = client.get("/metrics").text
    ours = 'model="people",project="default"'
    assert f'densityd_model_request_failures_total{{{ours},status="4xx"}} 1.0' in text
    assert f"densityd_model_request_seconds_count{{{ours}}} 3.0" in text
    others = 'model="other",project="other",status="4xx"'
    assert f"densityd_model_request_failures_total{{{others}}} 3.0" in text
    assert "junk" not in text


def test_labels_that_projects_choose_are_bounded():
    metrics = Metrics()
    for number in range(MOST_LABELS + 50):
        metrics.observe_model(project="p", model=f"m{number}", status=200, seconds=0.1)
    text = metrics.render().decode()
    assert text.count("densityd_model_request_seconds_count{") == MOST_LABELS + 1
    assert 'seconds_count{model="other",project="other"} 50.0' in text


def test_metrics_count_requests_by_template(looking_client):
    looking_client.get("/v1/datasets/ds_" + "0" * 32)
    looking_client.get("/v1/nowhere/secret")
    looking_client.request("BREW", "/v1/datasets")
    text = looking_client.get("/metrics").text
    assert 'method="GET",route="/v1/datasets/{dataset_id}",status="404"} 1.0' in text
    assert 'method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'method="other"' in text
    assert "secret" not in text
    assert "densityd_http_request_seconds_bucket" in text
    assert "process_resident_memory_bytes" in text


def test_rows_tell_what_waits_runs_and_ended(database, tmp_path):
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
    submit(jobs, "old", kind=JobKind.TRAINING)
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
    registry = Registry(database)
    registry.add_dataset(a_dataset(project="own", bytes=70))
    registry.add_version("own", "x", a_version(first, checkpoint_bytes=5))
    Projects(database).put("own", max_bytes=7, max_queued_jobs=None)
    for number in range(100):  # of which the two smallest are left out
        registry.add_dataset(a_dataset(project=f"small{number}", bytes=1))
    with database.write() as session:
        session.execute(
            update(JobRow)
            .where(JobRow.id == second.id)
            .values(lease_expires_at=db_now(-1), stored_bytes=900)
        )
        old = update(JobRow).where(JobRow.model_name == "old")
        session.execute(old.values(queued_at=db_now(-60)))
        session.execute(
            update(WebhookDeliveryRow).values(attempts=3, ended_at=db_now(), delivered=False)
        )
    text = metrics.render().decode()
    [oldest_s] = re.findall(r'oldest_waiting_seconds\{accelerator="none"\} ([0-9.]+)', text)
    assert float(oldest_s) >= 60
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
        'densityd_project_stored_bytes{project="own"} 75.0',
        'densityd_project_max_bytes{project="own"} 7.0',
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


def test_without_a_database_the_rest_is_told():
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
