"""``densityd top`` and ``densityd demo``."""

import re

import pytest

from tests.densityd.commands.running import run


def test_without_a_terminal_jobs_and_models_are_printed_once() -> None:
    shown = run("top").stdout
    assert "jobs of project default" in shown
    assert "NATS A ROW" in shown
    assert re.search(r"succeeded +ranked:1 .* job_[0-9a-f]{32}\b", shown)


def test_nothing_there_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSITYD_URL", "http://127.0.0.1:9")
    assert "densityd up" in run("top", status=3).output
