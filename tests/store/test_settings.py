"""Settings from files, and addresses of stores."""

from pathlib import Path

import pytest
import redis
from pydantic import ValidationError

from app.settings import ApiSettings
from models_store.database.engines import parse_url, sqlite_file
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
def test_a_file_that_cannot_be_read_is_one_line(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DENSITYD_BROKER_URL_FILE", str(file))
    with pytest.raises(ValidationError) as raised:
        StoreSettings()
    assert first_error(raised.value) == "DENSITYD_BROKER_URL_FILE: the file cannot be read"


def test_a_bad_value_in_a_file_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_variable_that_is_no_setting_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
