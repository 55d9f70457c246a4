"""The audit trail: on the disk before the answer, whoever floods the log, whatever the disk does."""

import asyncio
import errno
import json
import os
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message

from app.auth import audit
from app.auth.audit import AuditedApp, AuditLog
from app.auth.callers import ANYBODY
from app.engine.batches import OverloadedError
from app.main import create_app
from app.problems.problem import Problem
from app.serve import RefusalError, refuse_unusable_audit
from app.settings import ApiSettings
from models_store.aliases import Aliases
from models_store.audit.check import check_trail
from models_store.audit.trail import AuditTrail
from models_store.errors import DatabaseBusyError, NotFoundError
from tests.app.conftest import CSV, TABLE, assert_refused
from tests.app.serving import registered
from tests.waiting import wait_until

ALIAS = "/v1/models/people/aliases/production"


def trail_of(settings: ApiSettings) -> list[dict[str, Any]]:
    files = sorted((settings.data_dir / "audit").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture
def client(client: TestClient) -> TestClient:
    state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
    registered(state.database, state.blobs)
    return client


def move(client: TestClient, version: int = 1) -> Any:
    return client.put(ALIAS, json={"version": version})


def test_a_change_is_in_the_trail_when_its_answer_comes(client, settings):
    made = client.post("/v1/datasets", content=TABLE, headers={**CSV, "X-Request-ID": "r1"})
    [line] = trail_of(settings)
    assert line.pop("time").endswith("Z")
    assert line.pop("previous")
    assert line == {
        "audit": "create_dataset",
        "resource": made.headers["location"],
        "status": 201,
        "project": "default",
        "key_id": "none",
        "request_id": "r1",
    }
    move(client)
    client.delete(ALIAS)
    client.delete(ALIAS)  # is not found
    client.get("/v1/datasets")
    kinds = [line["audit"] for line in trail_of(settings)]
    assert kinds == ["create_dataset", "set_alias", "delete_alias"]
    assert check_trail(settings.data_dir / "audit").whole


def test_the_log_alone_may_be_chosen(data_dir):
    settings = ApiSettings(data_dir=data_dir, audit_dir="-")
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/datasets", content=TABLE, headers=CSV).status_code == 201
    assert not (data_dir / "audit").exists()


def test_a_relative_folder_is_no_audit_trail():
    with pytest.raises(ValueError, match="absolute path"):
        ApiSettings(audit_dir="audit")


@pytest.mark.parametrize(
    ("code", "status", "slug"),
    [(errno.ENOSPC, 507, "storage-full"), (errno.EIO, 503, "storage-unavailable")],
)
def test_while_nothing_can_be_recorded_only_what_makes_room_is_served(
    client, settings, monkeypatch, caplog, code, status, slug
):
    made = client.post("/v1/datasets", content=TABLE, headers=CSV).headers["location"]
    monkeypatch.setattr("app.auth.audit._MAX_UNWRITTEN", 2)
    append = AuditTrail.append

    def fail(_trail: AuditTrail, _records: object) -> None:
        raise OSError(code, "disk")

    with monkeypatch.context() as patch:
        patch.setattr(AuditTrail, "append", fail)
        assert move(client).status_code == 200  # nobody knew yet
        assert_refused(move(client, 9), status, slug)
        assert client.delete(ALIAS).status_code == 204
        assert client.delete(made).status_code == 204
        assert client.get("/v1/datasets").status_code == 200
    lacking = [record for record in caplog.records if "trail lacks" in record.getMessage()]
    assert [vars(record)["audit"] for record in lacking] == [
        "set_alias",
        "delete_alias",
        "delete_dataset",
    ]
    assert "densityd_audit_failures_total 3.0" in client.get("/metrics").text
    assert AuditTrail.append is append
    assert move(client).status_code == 200
    lines = trail_of(settings)
    assert [line["audit"] for line in lines] == [
        "create_dataset",
        "left_out",
        "delete_alias",
        "delete_dataset",
        "set_alias",
    ]
    assert lines[1]["lines"] == 1
    assert check_trail(settings.data_dir / "audit").whole


def test_readiness_tells_that_changes_are_refused_and_when_they_are_not(client, monkeypatch):
    def ready() -> tuple[int, dict[str, Any]]:
        answer = client.get("/readyz")
        return answer.status_code, answer.json()["checks"]["audit"]

    assert ready() == (200, {"ok": True, "detail": "ok"})
    with monkeypatch.context() as patch:

        def fail(_trail: AuditTrail, _records: object) -> None:
            raise OSError(errno.EIO, "disk")

        patch.setattr(AuditTrail, "append", fail)
        move(client)
        for _ in range(3):
            code, found = ready()
            assert (code, found["ok"]) == (200, False)
            assert "only DELETE and cancelling" in found["detail"]
        assert client.get("/readyz").json()["status"] == "degraded"
        assert_refused(move(client, 9), 503, "storage-unavailable")
    wait_until(lambda: ready()[1]["ok"])  # without any change
    assert move(client).status_code == 200


def test_whoever_asks_for_readiness_has_little_written_again(client, monkeypatch):
    written: list[object] = []

    def fail(_trail: AuditTrail, records: object) -> None:
        written.append(records)
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(audit, "_AGAIN_S", 3600.0)
    monkeypatch.setattr(AuditTrail, "append", fail)
    move(client)
    before = len(written)
    for _ in range(9):
        assert not client.get("/readyz").json()["checks"]["audit"]["ok"]
    wait_until(lambda: len(written) > before)
    assert len(written) == before + 1


def test_a_job_is_cancelled_while_nothing_can_be_recorded(client, monkeypatch):
    wanted = {"model_name": "ring", "target": {"potential": "U1"}}
    job = client.post("/v1/jobs/variational", json=wanted).json()["id"]

    def fail(_trail: AuditTrail, _records: object) -> None:
        raise OSError(errno.ENOSPC, "disk")

    monkeypatch.setattr(AuditTrail, "append", fail)
    move(client)
    assert_refused(move(client, 9), 507, "storage-full")
    assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert_refused(client.post(f"/v1/jobs/{job}/resume"), 507, "storage-full")

    # A name may be that of the operation.
    assert_refused(
        client.put("/v1/models/people/aliases/cancel", json={"version": 1}), 507, "storage-full"
    )
    assert_refused(
        client.patch("/v1/models/cancel", json={"description": "d"}), 507, "storage-full"
    )


def test_a_disk_that_stands_still_delays_one_answer_and_no_second(
    client, settings, monkeypatch, caplog
):
    goes_on, fsync = threading.Event(), os.fsync

    def slow(handle: int) -> None:
        if threading.current_thread().name.startswith("audit"):
            goes_on.wait(120)
        fsync(handle)

    monkeypatch.setattr("app.auth.audit._PATIENCE_S", 0.3)
    monkeypatch.setattr(os, "fsync", slow)
    assert move(client).status_code == 200
    assert any("not on the disk yet" in record.getMessage() for record in caplog.records)
    assert_refused(move(client), 503, "storage-unavailable")
    goes_on.set()
    monkeypatch.setattr("app.auth.audit._PATIENCE_S", 30.0)
    assert move(client).status_code == 200
    assert [line["audit"] for line in trail_of(settings)] == ["set_alias", "set_alias"]


def test_a_table_that_is_refused_is_no_change(data_dir):
    settings = ApiSettings(data_dir=data_dir, max_rows=2)
    with TestClient(create_app(settings)) as client:
        refused = client.post("/v1/datasets", content=TABLE, headers=CSV)
    assert_refused(refused, 413, "limit-rows")
    assert trail_of(settings) == []


def test_a_change_that_ends_in_a_fault_is_recorded(client, settings, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("models_store.aliases.Aliases.set", fail)
    assert move(client).status_code == 500
    assert [(line["audit"], line["status"]) for line in trail_of(settings)] == [("set_alias", 500)]


def _begun(problem: Problem) -> RuntimeError:
    """Return what Starlette makes of a refusal after the start of a response, which waited for room."""
    error = RuntimeError("Caught handled exception, but response already started.")
    error.__cause__ = problem
    return error


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Problem("overloaded"), 503),
        (OverloadedError(), 503),
        (_begun(Problem("overloaded")), 503),
        (DatabaseBusyError(), 503),
        (NotFoundError("version", "people:2"), 404),
        (ClientDisconnect(), 499),
    ],
)
def test_a_refusal_after_something_was_stored_is_recorded(client, settings, refusal, status):
    async def set_and_refuse(scope: Any, *_: Any) -> None:
        aliases: Aliases = scope["app"].state.aliases
        await asyncio.to_thread(aliases.set, "default", "people", "production", version=1)
        raise refusal

    async def only_refuse(*_: Any) -> None:
        raise refusal

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        pass

    async def call(application: Any) -> None:
        scope = {
            "type": "http",
            "method": "PUT",
            "path": "/v1/models/people/aliases/production",
            "app": client.app,
            "state": {"request_id": "r1"},
        }
        with pytest.raises(type(refusal)):
            await AuditedApp(application, ANYBODY)(scope, receive, send)

    client.portal.call(call, only_refuse)
    assert trail_of(settings) == []
    client.portal.call(call, set_and_refuse)
    [line] = trail_of(settings)
    assert (line["resource"], line["status"]) == ("/v1/models/people/aliases/production", status)


def test_a_request_that_is_cut_off_is_recorded(client, settings, monkeypatch):
    async def cut(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr("app.http.head.HeadMiddleware.__call__", cut)
        move(client)
    assert move(client).status_code == 200
    assert [line["status"] for line in trail_of(settings)] == [499, 200]


def test_records_that_come_together_share_an_fsync(tmp_path, monkeypatch):
    sizes = []
    append = AuditTrail.append

    def counted(trail: AuditTrail, records: list[Any]) -> None:
        sizes.append(len(records))
        append(trail, records)

    monkeypatch.setattr(AuditTrail, "append", counted)
    record = {"time": "now", "audit": "x", "resource": "/", "status": 200}

    async def all_at_once() -> None:
        failures = Counter("failures", "Of the test.", registry=CollectorRegistry())
        audit = AuditLog(AuditTrail(tmp_path), failures=failures)
        await audit.start()
        await asyncio.gather(*(audit.add(record) for _ in range(50)))
        await audit.close()

    asyncio.run(all_at_once())
    assert sizes == [0, 50]
    assert check_trail(tmp_path).lines == 50


def test_a_server_that_could_record_nothing_does_not_start(data_dir):
    (data_dir / "file").touch()
    settings = ApiSettings(data_dir=data_dir, audit_dir=str(data_dir / "file"))
    with pytest.raises(RefusalError, match="DENSITYD_AUDIT_DIR"):
        refuse_unusable_audit(settings)
    refuse_unusable_audit(ApiSettings(data_dir=data_dir, audit_dir="-"))


def test_a_full_disk_does_not_keep_a_server_from_starting(data_dir, monkeypatch):
    def full(_trail: AuditTrail) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(AuditTrail, "open", full)
    refuse_unusable_audit(ApiSettings(data_dir=data_dir))
