"""Findings of doctor about rows and files that disagree, and what it deletes when told to."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from densityd.cli import app
from models_store.database.database import Database, migrate
from models_store.database.ids import new_id
from models_store.files.blobs import Blobs, model_key
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.app.serving import registered
from tests.models_store.makers import submitted

DAY_S = 24 * 3600.0


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DENSITYD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    url = f"sqlite:///{data_dir / 'densityd.sqlite3'}"
    migrate(url)
    database = Database(url)
    yield database
    database.dispose()


@pytest.fixture
def blobs(data_dir: Path) -> Blobs:
    return Blobs.in_folder(data_dir / "blobs")


def doctor(*options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *options])


def prune(*options: str) -> Result:
    return doctor("--delete", *options)


def leave_orphan(blobs: Blobs) -> Path:
    """A model whose job is not in the database, two days old."""
    key = model_key(new_id("job"), 1)
    with blobs.staged() as staged:
        staged.write_bytes(b"x" * 2**20)
        blobs.commit(staged, key)
    path = blobs.path(key)
    old = time.time() - 2 * DAY_S
    os.utime(path, (old, old))
    return path


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.long
def test_an_installation_in_order_is_told_so(database: Database, blobs: Blobs) -> None:
    registered(database, blobs)

    result = doctor("--deep")

    assert result.exit_code == 0
    assert "ok       files     1 files that rows name have the right hash." in result.output
    assert "ok       orphans   Every file has its row." in result.output
    assert "ok       jobs" in result.output


@pytest.mark.long
def test_orphans_are_a_note_and_removed_only_when_that_is_wanted(
    database: Database, blobs: Blobs
) -> None:
    version = registered(database, blobs)
    orphan = leave_orphan(blobs)
    young = leave_orphan(blobs)
    os.utime(young)

    result = doctor()
    assert result.exit_code == 0
    assert "note     orphans   1 files (1.0 MiB) have no row" in result.output
    assert orphan.parent.name in result.output
    assert orphan.exists()

    result = prune()
    assert result.exit_code == 0
    assert "deleted 1 files (1.0 MiB)" in result.output
    assert not orphan.exists()
    assert young.exists()
    blobs.verify(version.checkpoint_key, version.checkpoint_sha256)

    assert young.parent.name in prune("--grace-h", "0").stderr
    assert not young.exists()
    assert "deleted 0 files" in prune("--grace-h", "0").stderr


@pytest.mark.long
def test_a_lost_file_is_a_problem_and_its_row_stays(database: Database, blobs: Blobs) -> None:
    registered(database, blobs, name="kept")
    blobs.delete(registered(database, blobs, name="lost").checkpoint_key)

    prune()
    for options in ([], ["--deep"]):
        result = doctor(*options)
        assert result.exit_code == 1
        assert "problem  files     1 of 2 files" in result.output
        assert "model lost:1 of project default: Stored file" in result.output
        assert "is missing" in result.output


@pytest.mark.long
def test_only_a_deep_look_finds_a_flipped_bit(database: Database, blobs: Blobs) -> None:
    flip_last_bit(blobs.path(registered(database, blobs).checkpoint_key))

    assert doctor().exit_code == 0
    result = doctor("--deep", "--json")

    assert result.exit_code == 1
    [files] = [
        finding for finding in json.loads(result.output)["findings"] if finding["check"] == "files"
    ]
    assert files["verdict"] == "problem"
    assert files["items"][0].startswith("model people:1 of project default: ")
    assert "does not match its hash" in files["items"][0]


@pytest.mark.long
def test_nothing_is_removed_for_a_database_that_knows_no_file_of_the_store(
    database: Database,  # noqa: ARG001 - it must be there, empty
    blobs: Blobs,
) -> None:
    orphan = leave_orphan(blobs)

    result = prune()

    assert result.exit_code == 1
    assert "is it the right one?" in result.output
    assert orphan.exists()


@pytest.mark.long
def test_what_is_not_of_the_service_is_told_and_left_alone(
    database: Database, blobs: Blobs, tmp_path: Path
) -> None:
    registered(database, blobs)
    (blobs.root / "weights.pt").write_bytes(b"x")
    (blobs.root / "models" / "link").symlink_to(tmp_path)

    assert prune("--grace-h", "0").exit_code == 0
    result = doctor("--grace-h", "0")

    assert result.exit_code == 0
    assert "note     foreign   2 files" in result.output
    assert (blobs.root / "weights.pt").exists()
    assert (blobs.root / "models" / "link").is_symlink()


@pytest.mark.long
def test_of_a_long_list_people_see_the_first_and_programs_all(
    database: Database, blobs: Blobs
) -> None:
    registered(database, blobs)
    for _ in range(25):
        leave_orphan(blobs)

    assert "and 5 more; --json lists them all" in doctor().output
    findings = json.loads(doctor("--json").output)["findings"]
    assert [len(found["items"]) for found in findings if found["check"] == "orphans"] == [25]


@pytest.mark.long
def test_a_job_that_no_worker_takes_over_is_a_note(database: Database, blobs: Blobs) -> None:
    registered(database, blobs)
    job = submitted(Jobs(database))
    JobWork(database).claim("gone", lease_s=-100)

    result = doctor()

    assert result.exit_code == 0
    assert "note     jobs      1 jobs lost their worker" in result.output
    assert job.id in result.output
