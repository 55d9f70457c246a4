import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from densityd.cli import app
from densityd.client import ApiError, Client, Settings
from models_store.consistency import compare
from models_store.database.database import Database
from models_store.database.revisions import head_revision
from models_store.files.blobs import Blobs
from models_store.files.store_identity import adopt
from models_store.jobs.live_workers import Workers
from models_store.keys import Keys, Scope
from models_store.settings import StoreSettings
from tests.api.serving import registered
from workers.settings import WorkerSettings


def commands(group: Any, *path: str) -> Iterator[list[str]]:
    """Yield the words of each command, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield [*path, name]


def test_every_command_has_help_with_an_example() -> None:
    for command in commands(get_command(app)):
        result = CliRunner().invoke(app, [*command, "--help"])

        assert result.exit_code == 0
        examples = result.output.partition("Examples:\n")[2]
        assert f"densityd {' '.join(command)}" in examples.partition("\n\n")[0]


def test_help_begins_with_what_a_newcomer_needs_and_cuts_no_sentence_off() -> None:
    listed = CliRunner().invoke(app, ["--help"]).output.partition("Commands:\n")[2]

    names = [
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    assert names[:3] == ["up", "demo", "train"]
    assert names[-2:] == ["keys", "audit"]
    assert len(list(commands(get_command(app)))) == 27
    assert "..." not in listed
    assert CliRunner().invoke(app, ["--version"]).output.startswith("densityd ")


def test_migrating_twice_is_safe_names_the_revision_and_makes_the_first_key(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"key_{32 * 'a'}.{64 * 'b'}")
    monkeypatch.setenv("DENSITYD_FIRST_KEY_FILE", str(tmp_path / "key"))
    for _ in range(2):
        result = CliRunner().invoke(app, ["migrate"])
        assert result.exit_code == 0, result.output
        assert "revision" in result.output
    database = Database(StoreSettings(data_dir=data_dir).resolved_database_url)
    database.check_revision()
    assert [key.id for key in Keys(database).list()] == [f"key_{32 * 'a'}"]
    database.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://user:s3cret@host/name",
        "postgresql://user:s3cret@[::1/name",
        "postgresql://user:s3cret@127.0.0.1:1/name",
        "sqlite:////dev/null",
    ],
)
def test_migrating_a_database_that_cannot_be_used_is_refused_in_one_line(monkeypatch, url):
    monkeypatch.setenv("DENSITYD_DATABASE_URL", url)

    result = CliRunner().invoke(app, ["migrate"])

    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert result.output.startswith("densityd: ")
    assert result.output.count("\n") == 1, result.output
    assert "s3cret" not in result.output


def test_migrating_creates_private_files_and_warns_of_a_folder_that_others_may_enter(data_dir):
    data_dir.mkdir()
    data_dir.chmod(0o755)
    os.umask(0o022)
    result = CliRunner().invoke(app, ["migrate"])

    assert result.exit_code == 0
    assert f"chmod 700 {data_dir}" in result.output
    files = list(data_dir.iterdir())
    assert files
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_the_check_of_a_worker_tells_alive_from_dead(data_dir: Path) -> None:
    assert CliRunner().invoke(app, ["worker", "--check"]).exit_code == 1

    assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    assert CliRunner().invoke(app, ["worker", "--check"]).exit_code == 1
    settings = WorkerSettings(data_dir=data_dir)
    workers = Workers(Database(settings.resolved_database_url))
    workers.beat(settings.label)
    assert CliRunner().invoke(app, ["worker", "--check"]).exit_code == 0

    workers.beat(settings.label, unfit="It has no store.")
    unfit = CliRunner().invoke(app, ["worker", "--check"])
    assert (unfit.exit_code, "It has no store." in unfit.stderr) == (1, True)


def test_a_wrong_setting_is_one_line_that_names_it_and_not_its_value(monkeypatch):
    monkeypatch.setenv("DENSITYD_WORKER_CONCURRENCY", "s3cret")

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 2
    assert result.output.startswith("densityd: DENSITYD_WORKER_CONCURRENCY: ")
    assert "s3cret" not in result.output
    assert result.output.count("\n") == 1


def test_the_command_line_answers_without_importing_torch() -> None:
    code = "import sys, densityd.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


def test_a_start_whose_words_cannot_be_written_goes_on(tmp_path: Path) -> None:
    (tmp_path / "densityd.sqlite3").write_bytes(b"no database")  # which is looked at later
    tmp_path.chmod(0o755)  # of which it would warn
    code = "from densityd.cli import main; main()"
    command = [sys.executable, "-c", code, "up", "--port", "0", "--data-dir", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        said = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)  # noqa: S603 - our own code
    assert b"densityd.sqlite3" in said.stderr


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def test_a_key_is_shown_once_then_listed_without_its_secret_then_revoked(data_dir: Path) -> None:
    made = keys("create", "--project", "fraud", "--scope", "write", "--rate", "5")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    key_id, _, secret = token.partition(".")
    database = Database(f"sqlite:///{data_dir / 'densityd.sqlite3'}")
    found = Keys(database).bearer(token)
    assert found is not None
    assert (found.project, found.scope, found.rate) == ("fraud", Scope.WRITE, 5.0)

    listed = keys("list").stdout
    assert key_id in listed
    assert secret not in listed
    assert "usable" in listed
    assert secret not in keys("list", "--json").stdout

    assert keys("revoke", token).exit_code == 0
    assert Keys(database).bearer(token) is None
    [entry] = json.loads(keys("list", "--json").stdout)
    assert (entry["id"], entry["state"]) == (key_id, "revoked")
    database.dispose()


def test_what_cannot_be_is_one_line() -> None:
    missing = keys("list")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "`densityd migrate` makes it" in missing.stderr
    wrong = keys("create", "--project", "a/b")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("densityd: a project matches")
    assert keys("create", "--scope", "root").exit_code == 2
    assert keys("create", "--expires-days", "0").exit_code == 2
    nobodys = "key_" + "0" * 32
    unknown = keys("revoke", nobodys)
    assert (unknown.exit_code, unknown.stderr) == (1, f"densityd: No such key: {nobodys}.\n")


def test_a_key_in_a_new_folder_says_so(data_dir: Path) -> None:
    question = f"made {data_dir}: is it the service's DENSITYD_DATA_DIR?"
    assert question in keys("create").stderr
    made = keys("create", "--label", "mine", "--expires-days", "2", "--json")
    assert question not in made.stderr
    key = json.loads(made.stdout)
    assert (key["token"].partition(".")[0], key["label"]) == (key["id"], "mine")
    assert key["expires_at"] > key["created_at"]
    assert json.loads(keys("revoke", key["id"], "--json").stdout)["state"] == "revoked"


def test_the_client_and_the_commands_show_the_key_of_the_environment(service, monkeypatch):
    token = Keys(service.database).create("default", Scope.READ).token
    monkeypatch.setenv("DENSITYD_URL", service.url)
    while CliRunner().invoke(app, ["list", "models"]).exit_code == 0:
        pass  # it may have seen that there are no keys, a second ago
    refused = CliRunner().invoke(app, ["list", "models"])
    assert refused.exit_code == 1
    assert "Set DENSITYD_API_KEY to a key of the service." in refused.stderr
    with Client(Settings(service.url, api_key=token)) as client:
        assert "people" in [model.name for model in client.models.list()]
        with pytest.raises(ApiError) as caught:
            client.models.delete_alias("people", "x")
        assert (caught.value.status, caught.value.type) == (403, "/problems/forbidden")
    monkeypatch.setenv("DENSITYD_API_KEY", token)
    assert "people" in CliRunner().invoke(app, ["list", "models"]).stdout


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


def test_a_laptop_moves_to_postgresql_and_back_by_back_ups(laptop, postgres_url, monkeypatch):
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
def test_what_cannot_be_is_one_line_of_a_back_up(tmp_path, arguments, status, words):
    result = run(*(argument.format(tmp_path) for argument in arguments))

    assert result.exit_code == status
    [line] = result.stderr.splitlines()
    assert words in line


def test_a_damaged_file_gives_status_1_and_a_back_up_of_the_rest(laptop, monkeypatch):
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(laptop))
    [file] = (laptop / "blobs" / "models").rglob("*.safetensors")
    file.write_bytes(b"cut")

    result = run("backup", laptop / "backup")

    assert result.exit_code == 1
    assert "not copied: model people:1 of project default" in result.stderr
    assert (laptop / "backup" / "rows.sqlite3").exists()
