import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.serve import RefusalError, main, refuse_unsafe_address
from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.keys import Keys, Scope
from tests.api.conftest import listening
from tests.support.waiting import wait_until


def test_a_loopback_address_is_served():
    for host in ("127.0.0.1", "127.0.0.53", "::1", "localhost"):
        refuse_unsafe_address(ApiSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "nonexistent.invalid"])  # noqa: S104  refused
def test_another_address_is_refused_without_keys_unless_meant(host, data_dir):
    with pytest.raises(RefusalError, match="DENSITYD_ALLOW_ANONYMOUS=true"):
        refuse_unsafe_address(ApiSettings(host=host, data_dir=data_dir))
    refuse_unsafe_address(ApiSettings(host=host, allow_anonymous=True))
    database = Database(f"sqlite:///{data_dir / 'densityd.sqlite3'}")
    Keys(database).create("p", Scope.READ)
    database.dispose()
    refuse_unsafe_address(ApiSettings(host=host, data_dir=data_dir))


def test_the_process_says_in_a_few_words_why_it_does_not_start(monkeypatch, data_dir):
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(data_dir))
    for name, value, reason in (
        ("STORE_URL", "/dev/null", "The blob store /dev/null cannot be written"),
        ("HOST", "0.0.0.0", "no API keys"),  # noqa: S104  refused
        ("PORT", "99999", "DENSITYD_PORT: "),
        ("DATABASE_URL", "sqlite:////nonexistent/densityd.sqlite3", "needs revision"),
        ("DATABASE_URL", "mysql://u:s3cret@h/d", "DENSITYD_DATABASE_URL: the database is"),
        ("STORE_URL", "ftp://host/path", "DENSITYD_STORE_URL: ftp:// is no store"),
        ("STORE_URL", "s3:/bucket", "DENSITYD_STORE_URL: the store is an absolute path"),
        ("BROKER_URL", "amqp://u:s3cret@h", "DENSITYD_BROKER_URL: the broker's URL"),
        ("BROKER_URL", "sentinel://:s3cret@h", "DENSITYD_BROKER_URL: a URL of Sentinels has"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(f"DENSITYD_{name}", value)
            with pytest.raises(SystemExit, match=reason) as caught:
                main()
        assert str(caught.value).startswith("densityd api: ")
        assert "\n" not in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert not (data_dir / "s3:").exists()


def test_a_garbage_database_is_named(monkeypatch, data_dir):
    (data_dir / "densityd.sqlite3").write_bytes(b"garbage" * 1000)
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(data_dir))
    with pytest.raises(SystemExit, match=r"densityd\.sqlite3"):
        main()


@pytest.mark.slow
def test_an_open_event_stream_does_not_hold_the_stop(data_dir):
    with (
        listening(data_dir) as (url, process),
        httpx.Client(base_url=url, timeout=120) as client,
        client.stream("GET", f"/v1/jobs/{submit_job(client)}/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        assert time.monotonic() - began < 60
        assert not any(line == "event: end" for line in lines)
    log_lines = (data_dir / "log").read_text().splitlines()
    assert all(json.loads(line)["process"] == "api" for line in log_lines)


def submit_job(client: httpx.Client) -> str:
    body = {"model_name": "m", "target": {"potential": "U1"}}
    return str(client.post("/v1/jobs/variational", json=body).json()["id"])


def test_a_first_key_from_a_file_opens_another_address(data_dir, tmp_path):
    file = tmp_path / "first"
    file.write_text(f"key_{'a1' * 16}.{'b2' * 32}")
    refuse_unsafe_address(ApiSettings(host="0.0.0.0", data_dir=data_dir, first_key_file=file))  # noqa: S104  served
    database = Database(f"sqlite:///{data_dir / 'densityd.sqlite3'}")
    assert Keys(database).bearer(file.read_text()) is not None
    database.dispose()


def test_staged_files_are_swept_while_the_service_runs(settings, monkeypatch):
    monkeypatch.setattr("app.main.SWEEP_PAUSE_S", 0.01)
    with TestClient(create_app(settings)) as client, ExitStack() as files:
        staged = client.app.state.blobs.staged  # type: ignore[attr-defined]  # a FastAPI
        old, fresh = files.enter_context(staged()), files.enter_context(staged())
        past = time.time() - 2 * 24 * 3600
        os.utime(old, (past, past))
        wait_until(lambda: not old.exists())
        assert fresh.exists()


def test_a_process_without_models_is_ready_without_libraries_of_tensors_tables_and_plots(data_dir):
    code = """
import sys
from fastapi.testclient import TestClient
from app.main import create_app
from app.settings import ApiSettings

with TestClient(create_app(ApiSettings())) as client:
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/models").status_code == 200
    assert client.get("/openapi.json").status_code == 200
print(*{"llvmlite", "matplotlib", "numba", "onnx", "pandas", "torch"} & sys.modules.keys())
"""
    environment = {**os.environ, "DENSITYD_DATA_DIR": str(data_dir)}
    run = subprocess.run(  # noqa: S603  the code above
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
