import json
import os
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from app.settings import ApiSettings
from densityd.admin.doctor import Report, examine, mask
from densityd.cli import app
from models_store.database.database import migrate
from models_store.files.blobs import STAGING
from workers.settings import WorkerSettings


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DENSITYD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(tmp_path))
    return tmp_path


def examined() -> Report:
    return examine(ApiSettings(), WorkerSettings())


def verdicts(report: Report) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in report.findings}


def test_a_fresh_folder_has_no_problem_only_things_that_are_not_there_yet(data_dir: Path) -> None:
    report = examined()

    assert report.healthy
    assert verdicts(report)["database"] == verdicts(report)["broker"] == "note"
    assert list(data_dir.iterdir()) == [], "looking changed something"


def test_a_migrated_database_is_named_with_its_revision() -> None:
    migrate(ApiSettings().resolved_database_url)

    finding = {found.check: found for found in examined().findings}["database"]

    assert finding.verdict == "ok"
    assert "revision" in finding.detail


def test_a_damaged_database_is_a_problem(data_dir: Path) -> None:
    (data_dir / "densityd.sqlite3").write_bytes(b"garbage" * 1000)

    report = examined()

    assert verdicts(report)["database"] == "problem"
    assert not report.healthy


def test_a_broker_that_is_named_but_silent_is_a_problem(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_BROKER_URL", f"unix://{data_dir}/no.sock")

    assert verdicts(examined())["broker"] == "problem"


def test_files_that_crashes_left_are_counted(data_dir: Path) -> None:
    staging = data_dir / "blobs" / STAGING
    staging.mkdir(parents=True)
    old, new = staging / "old", staging / "new"
    old.write_bytes(b"x" * 2**20)
    new.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))

    finding = {found.check: found for found in examined().findings}["staging"]

    assert finding.verdict == "note"
    assert finding.detail.startswith("1 files (1.0 MiB)")
    assert old.exists()
    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    result = CliRunner().invoke(app, ["doctor", "--delete"])
    assert "deleted 1 files (1.0 MiB)" in result.output
    assert [path.name for path in staging.iterdir()] == ["new"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda:99", "cuda:all"])
def test_a_device_that_is_not_there_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("DENSITYD_DEVICE", device)

    assert verdicts(examined())["device"] == "problem"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:s3cret@host:5432/db", "postgresql://u:***@host:5432/db"),
        ("redis://:s3cret@host/0", "redis://:***@host/0"),
        ("redis://u:s3:cr@et@host/0", "redis://u:***@host/0"),
        (
            "postgresql://host/db?user=u&password=s3cret&x=1",
            "postgresql://host/db?user=u&password=***&x=1",
        ),
        ("postgresql://host/db?sslpassword=s3cret", "postgresql://host/db?sslpassword=***"),
        ("unix:///data/redis.sock", "unix:///data/redis.sock"),
        ("http://minio:9000", "http://minio:9000"),
        pytest.param(
            "postgresql://u:s3/cr et@host/db",
            "postgresql://u:***@host/db",
        ),
        pytest.param(
            "postgresql://host/db?password=s3 cret&x=1",
            "postgresql://host/db?password=***&x=1",
        ),
    ],
)
def test_passwords_are_masked(url: str, masked: str) -> None:
    assert mask(url) == masked


def test_every_setting_is_printed_with_its_source_and_no_password(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_BROKER_URL", f"unix://u:s3cret@{data_dir}/no.sock")

    result = CliRunner().invoke(app, ["doctor", "--json"])

    assert result.exit_code == 1
    assert "s3cret" not in result.output
    report = json.loads(result.output)
    settings = {setting["variable"]: setting for setting in report["settings"]}
    fields = ApiSettings.model_fields | WorkerSettings.model_fields
    names = {name for name, field in fields.items() if not field.exclude}
    assert settings.keys() == {f"DENSITYD_{name.upper()}" for name in names}
    assert settings["DENSITYD_DATA_DIR"] == {
        "variable": "DENSITYD_DATA_DIR",
        "value": str(data_dir),
        "source": "environment",
    }
    assert settings["DENSITYD_PORT"]["source"] == "default"


def test_the_text_for_people_has_a_line_for_each_check(data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 0
    assert f"{data_dir}  (environment)" in result.output
    for check in ("database", "broker", "store", "disk", "staging", "device"):
        assert f"  {check}" in result.output


def test_help_shows_how_it_is_called() -> None:
    result = CliRunner().invoke(app, ["doctor", "--help"])

    assert result.exit_code == 0
    for example in ("densityd doctor --deep", "--json | jq"):
        assert example in result.output
