"""Settings from files, and addresses of stores."""

import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from app.settings import ApiSettings
from models_store.database.engines import parse_url, sqlite_file
from models_store.process.logs import JOB_ID, REQUEST_ID, JsonFormatter, log_context
from models_store.settings import StoreSettings, first_error
from workers.settings import WorkerSettings


def test_a_setting_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://user:secret@host/densityd\n")
    monkeypatch.setenv("DENSITYD_DATABASE_URL_FILE", str(secret))
    assert StoreSettings().database_url == "postgresql://user:secret@host/densityd"
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "sqlite:////srv/x.sqlite3")
    assert StoreSettings().database_url == "sqlite:////srv/x.sqlite3"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_line(content, tmp_path, monkeypatch):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DENSITYD_BROKER_URL_FILE", str(file))
    with pytest.raises(ValidationError) as raised:
        StoreSettings()
    assert first_error(raised.value) == "DENSITYD_BROKER_URL_FILE: the file cannot be read"


def test_a_bad_value_in_a_file_is_not_shown(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("mysql://user:hidden@host/x")
    monkeypatch.setenv("DENSITYD_DATABASE_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(ValidationError) as raised:
        StoreSettings()
    assert "hidden" not in first_error(raised.value)


def test_a_bucket_has_an_endpoint_and_a_cache(tmp_path: Path) -> None:
    settings = StoreSettings(
        data_dir=tmp_path, store_url="s3://bucket/a", store_endpoint="http://minio:9000"
    )
    assert settings.store_address.is_remote
    assert settings.store_address.cache_dir == str(tmp_path / "store-cache")
    for bad in ("minio:9000", "http://key:secret@minio:9000"):
        with pytest.raises(ValidationError, match="endpoint"):
            StoreSettings(store_endpoint=bad)


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a?b", "a?mode=ro&x=1", "a b \N{SNOWMAN}"])
def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    settings = StoreSettings(data_dir=tmp_path / name)
    broker = settings.resolved_broker_url
    assert sqlite_file(parse_url(settings.resolved_database_url)) == (
        tmp_path / name / "densityd.sqlite3"
    )
    assert redis.connection.parse_url(broker)["path"] == str(settings.redis_socket)


def test_a_variable_that_is_no_setting_is_an_error_that_names_the_nearest(monkeypatch):
    monkeypatch.setenv("DENSITYD_DATABSE_URL", "sqlite:////srv/x.sqlite3")
    for kind in (StoreSettings, ApiSettings, WorkerSettings):
        with pytest.raises(ValidationError) as raised:
            kind()
        told = "there is no such setting; the nearest is DENSITYD_DATABASE_URL"
        assert first_error(raised.value) == f"DENSITYD_DATABSE_URL: {told}"


def test_every_process_takes_the_settings_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RATE_LIMIT", "5"), ("DEVICE", "cpu"), ("API_KEY", "k")):
        monkeypatch.setenv(f"DENSITYD_{name}", value)
    assert [kind().max_project_bytes for kind in (StoreSettings, WorkerSettings)] == [
        100 * 2**30
    ] * 2
    assert ApiSettings().rate_limit == 5


def test_what_follows_from_the_memory_fits_into_it() -> None:
    memory = 2**30
    settings = ApiSettings(memory_bytes=memory)
    parsers = settings.max_parsers * settings.parse_memory_bytes
    caches = settings.model_cache_bytes + settings.max_bodies_bytes
    assert parsers + caches + settings.import_memory_bytes <= memory


def line(message: str, *args: object, **extra: object) -> dict[str, Any]:
    record = logging.LogRecord("a.b", logging.INFO, "file", 1, message, args, None)
    vars(record).update(extra)
    text = JsonFormatter("api").format(record)
    assert text.isascii()
    assert "\n" not in text
    result: dict[str, Any] = json.loads(text)
    return result


def run(program: str) -> list[dict[str, Any]]:
    result = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == ""
    return [json.loads(text) for text in result.stderr.splitlines()]


def test_a_line_tells_when_who_and_what() -> None:
    fields = line("%d rows", 3)
    assert fields.pop("time").endswith("Z")
    assert fields == {"level": "INFO", "process": "api", "logger": "a.b", "message": "3 rows"}


def test_a_message_cannot_forge_a_line_or_reach_the_terminal() -> None:
    evil = 'a\r\n{"level": "CRITICAL"}\u2028\x1b[31m\x00\ud800'
    assert line("%s", evil)["message"] == evil


def test_lines_carry_the_ids_of_their_context() -> None:
    with log_context(request_id="req-1", job_id="job-1"):
        inside = line("x")
        with log_context(request_id="req-2"):
            assert line("x")["request_id"] == "req-2"
            assert "job_id" not in line("x")
        assert line("x")["job_id"] == "job-1"
    assert (inside["request_id"], inside["job_id"]) == ("req-1", "job-1")
    assert (REQUEST_ID.get(), JOB_ID.get()) == (None, None)
    with log_context(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"):
        traced = line("x")
    assert (traced["trace_id"], traced["span_id"]) == ("a" * 32, "b" * 16)


def test_extra_fields_stand_beside_the_message_and_replace_none() -> None:
    fields = line("x", seconds=0.5, path="/v1", level="fake", bad=float("nan"), other={1})
    assert (fields["seconds"], fields["path"]) == (0.5, "/v1")
    assert (fields["level"], fields["bad"], fields["other"]) == ("INFO", "nan", "{1}")


def test_a_process_logs_json_only_and_its_libraries_are_quiet() -> None:
    lines = run("""
        import logging, warnings
        from models_store.process.logs import configure_logging
        logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
        for _ in range(2):
            configure_logging("INFO", "worker")
        logging.getLogger("workers.main").debug("hidden")
        logging.getLogger("workers.main").info("shown")
        logging.getLogger("kombu.mixins").info("hidden")
        logging.getLogger("uvicorn.access").info("hidden")
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("celery.worker").warning("told")
        warnings.warn("careful")
    """)
    assert [fields["message"] for fields in lines][:3] == ["shown", "started", "told"]
    assert "careful" in lines[3]["message"]
    assert len(lines) == 4
    assert {fields["process"] for fields in lines} == {"worker"}


def test_an_exception_is_one_field_of_one_line() -> None:
    lines = run("""
        import logging, threading
        from models_store.process.logs import configure_logging
        configure_logging("INFO", "api")
        def fail():
            raise ValueError("in a\\nthread")
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        try:
            fail()
        except ValueError:
            logging.getLogger("app").exception("caught")
        fail()
    """)
    assert [fields["level"] for fields in lines] == ["CRITICAL", "ERROR", "CRITICAL"]
    assert [fields["message"] for fields in lines] == [
        "an error ended a thread",
        "caught",
        "an error ended the process",
    ]
    for fields in lines:
        assert fields["exception"].startswith("Traceback")
        assert "ValueError" in fields["exception"]
