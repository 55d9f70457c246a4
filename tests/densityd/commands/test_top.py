"""``densityd top`` and ``densityd demo``."""

import re

import pytest
from typer.testing import CliRunner

from densityd.cli import app
from tests.densityd.conftest import Service


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_without_a_terminal_jobs_and_models_are_printed_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSITYD_URL", service.url)
    shown = run("top")
    assert "jobs of project default" in shown
    assert "NATS A ROW" in shown
    assert re.search(r"succeeded +ranked:1 .* job_[0-9a-f]{32}\b", shown)


def test_nothing_there_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSITYD_URL", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["top"])
    assert result.exit_code == 3
    assert "densityd up" in result.output
