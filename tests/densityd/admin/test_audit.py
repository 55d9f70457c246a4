"""`densityd audit verify`: says what is wrong with the trail, and by its exit status."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from densityd.cli import app
from models_store.audit.trail import AuditTrail


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DENSITYD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(tmp_path))
    trail = AuditTrail(tmp_path / "audit")
    for number in range(3):
        trail.append([{"n": number}])
    trail.close()
    return tmp_path / "audit"


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", "verify", *arguments])


def test_help_has_examples() -> None:
    assert "Examples:\n    densityd audit verify\n" in verify("--help").output
    assert "verify" in CliRunner().invoke(app, ["audit", "--help"]).output


def test_a_whole_trail_is_told_with_the_hash_to_keep(folder: Path) -> None:
    told = verify()
    assert (told.exit_code, told.output.splitlines()[-1]) == (
        0,
        "The trail is whole: 3 lines in 1 files.",
    )
    head = json.loads(verify("--json").output)["heads"]["1"]
    assert f"series 1 ends with {head}" in told.output
    assert "removed from the end show only with --holds" in told.output
    held = verify(str(folder), "--holds", head)
    assert (held.exit_code, "note" in held.output) == (0, False)
    missing = verify("--holds", "0" * 64)
    assert (missing.exit_code, "no line has the hash 000" in missing.output) == (1, True)


def test_a_changed_line_is_named_and_is_exit_status_1(folder: Path) -> None:
    [file] = folder.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"n": 1', b'"n": 7'))
    told = verify()
    assert told.exit_code == 1
    assert told.output.startswith(f"BROKEN: {file.name}, line 3 does not follow")
    assert json.loads(verify("--json").output)["whole"] is False


def test_where_there_is_no_trail_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = verify(str(tmp_path / "nothing"))
    assert (told.exit_code, "cannot be read" in told.stderr) == (1, True)
    monkeypatch.setenv("DENSITYD_AUDIT_DIR", "-")
    assert verify().exit_code == 2
    monkeypatch.setenv("DENSITYD_AUDIT_DIR", "audit")
    told = verify()
    assert (told.exit_code, "DENSITYD_AUDIT_DIR" in told.stderr) == (2, True)
