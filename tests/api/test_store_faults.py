"""What callers are told while the disk or the database fails."""

import asyncio
import errno
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.main import create_app
from app.server.startup import check_later, check_stores
from app.settings import ApiSettings
from models_store.database.database import Database, migrate
from models_store.errors import WrongStoreError
from models_store.files.blobs import Blobs
from tests.api.conftest import CSV, asgi_scope, assert_refused, files_of
from tests.api.serving import registered
from tests.support.servers import PostgresServer
from tests.support.waiting import wait_until

BUSY_TIMEOUT_S = 0.3
DATABASE_CONNECTIONS = 2 * ApiSettings.model_fields["database_pool"].default
ROW = {"rows": [[170.0, 70.0, 40.0]]}
ROWS = b"height,weight\n" + b"".join(b"%d.5,%d.25\n" % (n, n * n) for n in range(100))


@pytest.fixture
def impatient(settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """An application that waits less long for its database."""
    monkeypatch.setattr("app.main.Database", partial(Database, busy_timeout_s=BUSY_TIMEOUT_S))
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def upload(client):
    return client.post("/v1/datasets", content=ROWS, headers=CSV)


@pytest.mark.parametrize(
    ("code", "status", "slug"),
    [(errno.EIO, 503, "storage-unavailable"), (errno.ENOSPC, 507, "storage-full")],
)
def test_an_upload_whose_fsync_fails_is_refused_and_leaves_nothing(
    client, settings, monkeypatch, code, status, slug
):
    def fail(_handle):
        raise OSError(code, "disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert_refused(upload(client), status, slug)
    assert files_of(settings) == []
    assert client.get("/v1/datasets").json()["items"] == []
    assert upload(client).status_code == 201


def test_on_a_full_disk_the_service_starts_so_that_something_can_be_deleted(settings, monkeypatch):
    with TestClient(create_app(settings)) as client:
        dataset = upload(client).json()["id"]

    def fail(_handle):
        raise OSError(errno.ENOSPC, "disk")

    monkeypatch.setattr(os, "fsync", fail)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get(f"/v1/datasets/{dataset}/rows").status_code == 200
        assert_refused(upload(client), 507, "storage-full")
        assert client.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_a_torn_dataset_is_corrupt_and_others_are_read(client, blobs):
    whole, torn = (upload(client).json()["id"] for _ in range(2))
    path = blobs.path(f"datasets/{torn}/table.npy")
    stored = path.read_bytes()
    for harmed in (b"", stored[:4], stored[:100], stored[:-1], b"\0" + stored[1:]):
        path.write_bytes(harmed)
        assert_refused(client.get(f"/v1/datasets/{torn}/rows"), 503, "artifact-corrupt")
    assert client.get(f"/v1/datasets/{whole}/rows").status_code == 200
    path.write_bytes(stored)
    assert client.get(f"/v1/datasets/{torn}/rows").status_code == 200


def test_a_lost_model_raises_a_metric_and_leaves_the_service_ready(client, blobs):
    database = client.app.state.database
    blobs.delete(registered(database, blobs, name="lost").checkpoint_key)

    def failures():
        found = re.search(
            r"^densityd_model_load_failures_total (\S+)$", client.get("/metrics").text, re.M
        )
        assert found is not None
        return float(found[1])

    before = failures()
    assert_refused(client.post("/v1/models/lost/log_prob", json=ROW), 503, "artifact-missing")
    assert failures() == before + 1
    assert client.get("/readyz").status_code == 200


def test_a_writer_behind_a_long_one_is_told_that_the_database_is_busy(impatient, settings):
    dataset = upload(impatient).json()["id"]
    training = {"model_name": "m", "dataset_id": dataset}
    file = settings.data_dir / "densityd.sqlite3"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    answer = impatient.post("/v1/jobs/training", json=training)
    assert_refused(answer, 503, "db-busy")
    assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - began >= BUSY_TIMEOUT_S
    assert impatient.get(f"/v1/datasets/{dataset}").status_code == 200
    # One that ends in time is waited for.
    threading.Timer(BUSY_TIMEOUT_S / 3, other.execute, ("ROLLBACK",)).start()
    wait_until(lambda: impatient.post("/v1/jobs/training", json=training).status_code == 202)
    other.close()


def test_scored_rows_are_counted_once_the_database_is_no_longer_busy(impatient, settings):
    held_out = {"rows": 100, "quantiles": [-30.0, 0.0]}
    registered(impatient.app.state.database, impatient.app.state.blobs, held_out=held_out)
    assert impatient.post("/v1/models/people/score", json=ROW).status_code == 200
    with sqlite3.connect(settings.data_dir / "densityd.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_refused(impatient.get("/v1/models/people/monitoring"), 503, "db-busy")
    other.close()
    assert impatient.get("/v1/models/people/monitoring").json()["rows"] == 1


def test_slow_uploads_hold_no_connection_and_those_who_do_are_told_to_wait(impatient):
    uploads = 2 * DATABASE_CONNECTIONS
    waiting = threading.Semaphore(0)
    leave = asyncio.Event()

    async def hold_on():
        sent = False

        async def receive():
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": ROWS, "more_body": True}
            waiting.release()
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(_message):
            pass

        await impatient.app(asgi_scope("/v1/datasets", "text/csv"), receive, send)

    started = [impatient.portal.start_task_soon(hold_on) for _ in range(uploads)]
    for _ in started:
        assert waiting.acquire(timeout=120)
    assert impatient.get("/v1/datasets").status_code == 200
    impatient.portal.call(leave.set)
    for task in started:
        task.result(timeout=120)

    with ExitStack() as held:
        for _ in range(DATABASE_CONNECTIONS):
            session = held.enter_context(impatient.app.state.database.read())
            session.execute(text("SELECT 1"))
        answer = impatient.get("/v1/datasets")
        assert_refused(answer, 503, "db-busy")
        assert int(answer.headers["retry-after"]) > 0
        assert impatient.get("/livez").status_code == 200
    assert impatient.get("/v1/datasets").status_code == 200


OLDER = "UPDATE alembic_version SET version_num = '2026_11_24_keys'"


def is_up(client):
    return client.get("/readyz").json()["checks"]["database"]["ok"]


@pytest.mark.slow
def test_postgresql_may_be_down_at_the_start_and_later(tmp_path):
    server = PostgresServer()
    settings = ApiSettings(
        data_dir=tmp_path, database_url=server.create("densityd"), ready_look_s=0.1
    )
    migrate(settings.resolved_database_url)
    server.stop()
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for outage in ("at the start", "later"):
            answer = client.get("/v1/datasets")
            assert_refused(answer, 503, "db-unavailable")
            assert int(answer.headers["retry-after"]) > 0, outage
            assert client.get("/livez").status_code == 200
            wait_until(lambda: not is_up(client))
            # What is in memory is served for some minutes, once the database has been there.
            code = 503 if outage == "at the start" else 200
            assert client.get("/readyz").status_code == code
            server.start()
            wait_until(lambda: client.get("/v1/datasets").status_code == 200)
            wait_until(lambda: is_up(client))
            server.stop()
    server.close()


@pytest.mark.parametrize("revision", ["2026_11_24_keys", None])
def test_what_the_database_is_shows_when_it_comes(sqlite_url, blobs, caplog, revision):
    database = Database(sqlite_url)
    if revision is not None:
        with database.write() as session:
            session.execute(text(OLDER))
    refused: list[bool] = []
    refuse = partial(refused.append, True)
    asyncio.run(check_later(database, blobs, refuse=refuse, pause_s=0.01))
    assert refused == ([] if revision is None else [True])
    assert ("2026_11_24_keys" in caplog.text) == (revision is not None)
    database.dispose()


def test_an_api_refuses_a_store_that_is_not_the_databases(database, tmp_path):
    blobs = Blobs.in_folder(tmp_path / "own")
    assert check_stores(database, blobs) == []
    unmounted = tmp_path / "unmounted"
    unmounted.mkdir()
    with pytest.raises(WrongStoreError, match="nothing is mounted there"):
        check_stores(database, Blobs.in_folder(unmounted))
    assert list(unmounted.iterdir()) == []
    assert check_stores(database, blobs) == []
