"""What doctor finds: settings, database, store, and rows and files that disagree; what it deletes when told to."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from app.settings import ApiSettings
from densityd.admin import doctor as examination
from densityd.admin.doctor import Finding, Report, examine, mask
from densityd.cli import app
from models_store.database.database import Database
from models_store.database.ids import new_id
from models_store.files.blobs import STAGING, Blobs, model_key
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from tests.api.serving import registered
from tests.store.makers import submitted
from workers.settings import WorkerSettings


def examined() -> Report:
    return examine(ApiSettings(), WorkerSettings())


def finding(check: str) -> Finding:
    return {found.check: found for found in examined().findings}[check]


def verdicts(report: Report) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in report.findings}


def test_a_fresh_folder_has_no_problem_only_things_that_are_not_there_yet(data_dir: Path) -> None:
    report = examined()

    assert report.healthy
    assert verdicts(report)["database"] == verdicts(report)["broker"] == "note"
    assert not data_dir.exists(), "looking changed something"


def test_a_migrated_database_is_named_with_its_revision() -> None:
    CliRunner().invoke(app, ["migrate"])

    found = finding("database")

    assert found.verdict == "ok"
    assert "revision" in found.detail


def test_a_damaged_database_is_a_problem(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "densityd.sqlite3").write_bytes(b"garbage" * 1000)

    report = examined()

    assert verdicts(report)["database"] == "problem"
    assert not report.healthy


def test_a_broker_that_is_named_but_silent_is_a_problem(data_dir, monkeypatch, redis_url):
    monkeypatch.setenv("DENSITYD_BROKER_URL", f"unix://{data_dir}/no.sock")

    assert finding("broker").verdict == "problem"
    monkeypatch.setenv("DENSITYD_BROKER_URL", redis_url)
    assert finding("broker").verdict == "ok"


def test_a_store_of_another_database_is_a_problem_and_not_looked_into(database, blobs):
    registered(database, blobs)
    assert finding("identity").verdict == "ok"
    blobs.mark("0" * 32)
    found = verdicts(examined())
    assert found["identity"] == "problem"
    assert "files" not in found


def test_a_worker_that_takes_no_jobs_is_a_problem(database: Database, blobs: Blobs) -> None:
    registered(database, blobs)
    assert finding("workers").verdict == "note"
    Workers(database).beat("fit")
    assert finding("workers").verdict == "ok"
    Workers(database).beat("unfit", unfit="It has no store.")
    found = finding("workers")
    assert (found.verdict, found.detail) == ("problem", "1 of 2 take no jobs:")
    assert list(found.items) == ["unfit: It has no store."]


def test_files_that_crashes_left_are_counted(data_dir: Path) -> None:
    staging = data_dir / "blobs" / STAGING
    staging.mkdir(parents=True)
    old, new = staging / "old", staging / "new"
    old.write_bytes(b"x" * 2**20)
    new.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))

    found = finding("staging")

    assert found.verdict == "note"
    assert found.detail.startswith("1 files (1.0 MiB)")
    assert old.exists()
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    result = CliRunner().invoke(app, ["doctor", "--delete"])
    assert "deleted 1 files (1.0 MiB)" in result.output
    assert [path.name for path in staging.iterdir()] == ["new"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_a_problem(monkeypatch):
    monkeypatch.setenv("DENSITYD_DEVICE", "cuda:99")

    assert finding("device").verdict == "problem"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:s3cret@host:5432/db", "postgresql://u:***@host:5432/db"),
        ("redis://u:s3:cr@et@host/0", "redis://u:***@host/0"),
        ("postgresql://host/db?password=s3cret&x=1", "postgresql://host/db?password=***&x=1"),
        ("unix:///data/redis.sock", "unix:///data/redis.sock"),
        pytest.param("postgresql://u:s3/cr et@host/db", "postgresql://u:***@host/db"),
    ],
)
def test_passwords_are_masked(url: str, masked: str) -> None:
    assert mask(url) == masked


def test_every_setting_is_printed_with_its_source_and_no_password(data_dir, monkeypatch):
    monkeypatch.setenv("DENSITYD_BROKER_URL", f"unix://u:s3cret@{data_dir}/no.sock")

    result = CliRunner().invoke(app, ["doctor", "--json"])

    assert result.exit_code == 1
    assert "s3cret" not in result.output
    report = json.loads(result.output)
    settings = {setting["variable"]: setting for setting in report["settings"]}
    fields = ApiSettings.model_fields | WorkerSettings.model_fields
    names = {name for name, field in fields.items() if not field.exclude}
    assert settings.keys() == {f"DENSITYD_{name.upper()}" for name in names}
    found = settings["DENSITYD_DATA_DIR"]
    assert (found["value"], found["source"]) == (str(data_dir), "environment")
    assert settings["DENSITYD_PORT"]["source"] == "default"


def test_the_text_for_people_has_a_line_for_each_check(data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 0
    assert f"{data_dir}  (environment)" in result.output
    for check in ("database", "broker", "store", "disk", "staging", "device"):
        assert f"  {check}" in result.output


DAY_S = 24 * 3600.0


@pytest.fixture
def database(data_dir: Path) -> Iterator[Database]:
    CliRunner().invoke(app, ["migrate"])
    url = f"sqlite:///{data_dir / 'densityd.sqlite3'}"
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


def test_an_installation_in_order_is_told_so(database: Database, blobs: Blobs) -> None:
    registered(database, blobs)

    result = doctor("--deep")

    assert result.exit_code == 0
    assert "ok       files     1 files that rows name have the right hash." in result.output
    assert "ok       orphans   Every file has its row." in result.output
    assert "ok       jobs" in result.output


def test_orphans_are_a_note_and_removed_only_when_that_is_wanted(database, blobs):
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


def test_only_a_deep_look_finds_a_flipped_bit(database: Database, blobs: Blobs) -> None:
    flip_last_bit(blobs.path(registered(database, blobs).checkpoint_key))

    assert doctor().exit_code == 0
    result = doctor("--deep", "--json")

    assert result.exit_code == 1
    [files] = [one for one in json.loads(result.output)["findings"] if one["check"] == "files"]
    assert files["verdict"] == "problem"
    assert files["items"][0].startswith("model people:1 of project default: ")
    assert "does not match its hash" in files["items"][0]


def test_nothing_is_removed_for_a_database_that_knows_no_file_of_the_store(
    database,  # noqa: ARG001 - it must be there, empty
    blobs,
):
    orphan = leave_orphan(blobs)

    result = prune()

    assert result.exit_code == 1
    assert "is it the right one?" in result.output
    assert orphan.exists()


def test_what_is_not_of_the_service_is_told_and_left_alone(database, blobs, tmp_path):
    registered(database, blobs)
    (blobs.root / "weights.pt").write_bytes(b"x")
    (blobs.root / "models" / "link").symlink_to(tmp_path)

    assert prune("--grace-h", "0").exit_code == 0
    result = doctor("--grace-h", "0")

    assert result.exit_code == 0
    assert "note     foreign   2 files" in result.output
    assert (blobs.root / "weights.pt").exists()
    assert (blobs.root / "models" / "link").is_symlink()


def test_of_a_long_list_people_see_the_first_and_programs_all(database, blobs):
    registered(database, blobs)
    for _ in range(25):
        leave_orphan(blobs)

    assert "and 5 more; --json lists them all" in doctor().output
    findings = json.loads(doctor("--json").output)["findings"]
    assert [len(found["items"]) for found in findings if found["check"] == "orphans"] == [25]


def test_a_job_that_no_worker_takes_over_is_a_note(database: Database, blobs: Blobs) -> None:
    registered(database, blobs)
    job = submitted(Jobs(database))
    JobWork(database).claim("gone", lease_s=-100)

    result = doctor()

    assert result.exit_code == 0
    assert "note     jobs      1 jobs lost their worker" in result.output
    assert job.id in result.output


def test_variables_that_are_no_settings_are_all_named_beside_the_rest(data_dir, monkeypatch):
    monkeypatch.setenv("DENSITYD_STORE_ULR", "s3://bucket")
    monkeypatch.setenv("DENSITYD_MEMROY_BYTES", "1")

    result = doctor()

    assert result.exit_code == 1
    assert "DENSITYD_STORE_ULR: the nearest setting is DENSITYD_STORE_URL" in result.output
    assert "DENSITYD_MEMROY_BYTES: the nearest setting is DENSITYD_MEMORY_BYTES" in result.output
    assert f"note     store     {data_dir}" in result.output


def test_memory_that_is_more_than_there_is_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("memory").verdict in ("ok", "note")
    monkeypatch.setenv("DENSITYD_MEMORY_BYTES", str(2**40))
    monkeypatch.setenv("DENSITYD_API_PROCESSES", "3")
    monkeypatch.setenv("DENSITYD_TRAINER_MEMORY_BYTES", str(2**40))

    found = finding("memory")

    assert found.verdict == "problem"
    assert "3 x DENSITYD_MEMORY_BYTES + 1 x DENSITYD_TRAINER_MEMORY_BYTES = 4096.0 GiB" in (
        found.detail
    )


@pytest.mark.usefixtures("database")
def test_a_clock_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("clock").verdict == "ok"

    class Late:
        """Stands in the place of ``time`` on a machine whose clock is five minutes late."""

        @staticmethod
        def time() -> float:
            return time.time() - 300

    monkeypatch.setattr(examination, "time", Late)
    found = finding("clock")
    assert found.verdict == "problem"
    assert "300.0 s behind" in found.detail
