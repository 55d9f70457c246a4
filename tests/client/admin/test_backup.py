"""`densityd backup` and `restore` on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from densityd.cli import app
from models_store.consistency import compare
from models_store.database.database import Database
from models_store.database.revisions import head_revision
from models_store.files.blobs import Blobs
from models_store.files.store_identity import adopt
from models_store.keys import Keys, Scope
from tests.api.serving import registered


@pytest.fixture
def laptop(tmp_path: Path, sqlite_url: str) -> Path:
    """A data directory with a model."""
    database, blobs = Database(sqlite_url), Blobs.in_folder(tmp_path / "blobs")
    adopt(database, blobs)
    registered(database, blobs)
    database.dispose()
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def check_whole(url: str, folder: Path) -> None:
    database = Database(url)
    found = compare(database, Blobs.in_folder(folder), deep=True, grace_s=0)
    assert (found.checked, found.unusable, found.orphans) == (1, [], [])
    assert database.revision() == head_revision()
    database.dispose()


def test_a_laptop_moves_to_postgresql_and_back_by_back_ups(
    laptop: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(laptop))
    assert run("backup", laptop / "backup").exit_code == 0
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(laptop / "data"))
    monkeypatch.setenv("DENSITYD_DATABASE_URL", postgres_url)

    moved = run("restore", laptop / "backup")

    assert moved.exit_code == 0, moved.output
    assert "1 files" in moved.output
    check_whole(postgres_url, laptop / "data" / "blobs")
    database = Database(postgres_url)
    Keys(database).create("default", Scope.READ)
    database.dispose()
    refused = run("restore", laptop / "backup")
    assert refused.exit_code == 1
    assert "densityd: the target is not empty: the database has rows" in refused.stderr
    # And from there into a folder, and into an empty installation.
    assert run("backup", laptop / "second").exit_code == 0
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "")
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(laptop / "third"))
    restored = run("restore", laptop / "second")
    assert restored.exit_code == 0, restored.output
    check_whole(f"sqlite:///{laptop / 'third' / 'densityd.sqlite3'}", laptop / "third" / "blobs")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("restore", "{}/none"), 1, "no whole back-up"),
        (("backup", "{}/copy"), 1, "has no schema yet"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    result = run(*(argument.format(tmp_path) for argument in arguments))

    assert result.exit_code == status
    [line] = result.stderr.splitlines()
    assert words in line


def test_a_damaged_file_gives_status_1_and_a_back_up_of_the_rest(
    laptop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(laptop))
    [file] = (laptop / "blobs" / "models").rglob("*.safetensors")
    file.write_bytes(b"cut")

    result = run("backup", laptop / "backup")

    assert result.exit_code == 1
    assert "not copied: model people:1 of project default" in result.stderr
    assert (laptop / "backup" / "rows.sqlite3").exists()
