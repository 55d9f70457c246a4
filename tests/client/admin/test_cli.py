import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from densityd.cli import app
from models_store.database.database import Database
from models_store.jobs.live_workers import Workers
from models_store.settings import StoreSettings
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


def test_migrating_twice_is_safe_and_names_the_revision(data_dir: Path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(app, ["migrate"])
        assert result.exit_code == 0, result.output
        assert "revision" in result.output
    database = Database(StoreSettings(data_dir=data_dir).resolved_database_url)
    database.check_revision()
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
def test_migrating_a_database_that_cannot_be_used_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DENSITYD_DATABASE_URL", url)

    result = CliRunner().invoke(app, ["migrate"])

    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert result.output.startswith("densityd: ")
    assert result.output.count("\n") == 1, result.output
    assert "s3cret" not in result.output


def test_migrating_creates_private_files_and_warns_of_a_folder_that_others_may_enter(
    data_dir: Path,
) -> None:
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
    Workers(Database(settings.resolved_database_url)).beat(settings.label)

    assert CliRunner().invoke(app, ["worker", "--check"]).exit_code == 0


def test_a_wrong_setting_is_one_line_that_names_it_and_not_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DENSITYD_WORKER_CONCURRENCY", "s3cret")

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 2
    assert result.output.startswith("densityd: DENSITYD_WORKER_CONCURRENCY: ")
    assert "s3cret" not in result.output
    assert result.output.count("\n") == 1


def test_the_command_line_answers_without_importing_torch() -> None:
    code = "import sys, densityd.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


def test_a_service_whose_words_cannot_be_written_serves_on() -> None:
    code = "import os; from densityd.cli import _say; _say('api was killed.'); os._exit(7)"
    with Path("/dev/full").open("w") as full:
        said = subprocess.run([sys.executable, "-c", code], stdout=full, check=False)  # noqa: S603 - our own code
    assert said.returncode == 7
