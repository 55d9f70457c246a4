"""A worker refuses what it could never work with, and says why in one line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.workers.place import Place
from workers.main import run_worker


def spoil_database(place: Place) -> str:
    place.database.dispose()
    file = place.settings.data_dir / "densityd.sqlite3"
    file.write_bytes(b"garbage" * 1000)
    for other in (f"{file}-wal", f"{file}-shm"):
        Path(other).unlink(missing_ok=True)
    return str(file)


def spoil_schema(place: Place) -> str:
    with place.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '2026_11_24_keys'"))
    return "2026_11_24_keys"


def spoil_store(place: Place) -> str:
    place.settings.blob_root.write_text("no folder")
    return str(place.settings.blob_root)


@pytest.mark.parametrize("spoil", [spoil_database, spoil_schema, spoil_store])
def test_a_worker_without_its_stores_ends_with_one_line(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Place], str],
) -> None:
    # It would stay for the tests that follow.
    monkeypatch.setattr("workers.main.configure_logging", lambda *_: None)
    named = spoil(place)

    assert run_worker(place.settings) == 1

    [record] = [record for record in caplog.records if record.name == "workers.main"]
    assert record.levelname == "ERROR"
    assert named in record.getMessage()
