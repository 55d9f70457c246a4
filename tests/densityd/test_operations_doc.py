"""The manual says what the code does: its settings, metrics and commands."""

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from typer.main import get_command

from app.settings import ApiSettings
from densityd.cli import app
from models_store.settings import StoreSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "operations.md"
METRICS = [
    name
    for module in ("app/metrics.py", "app/server/job_metrics.py", "workers/metrics.py")
    for name in re.findall(r'"(densityd_\w+)"', (ROOT / module).read_text())
]
FIELDS = StoreSettings.model_fields | ApiSettings.model_fields | WorkerSettings.model_fields


def row(name: str, field: FieldInfo) -> str:
    default = field.default
    shown = "unset" if default is None else str(default)
    if isinstance(default, bool):
        shown = shown.lower()
    return f"| `DENSITYD_{name.upper()}` | {shown} | {field.description} |"


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_setting_is_in_the_manual_with_its_default_and_meaning(name: str) -> None:
    assert row(name, FIELDS[name]) in MANUAL.read_text().splitlines()


def test_the_table_names_nothing_that_is_no_setting() -> None:
    table = MANUAL.read_text().split("## Settings")[1]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `DENSITYD_")]

    assert named == sorted(set(named), key=named.index)
    assert set(named) == {f"DENSITYD_{name.upper()}" for name in FIELDS}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_in_the_manual(name: str) -> None:
    assert f"`{name}" in MANUAL.read_text()


def test_every_command_is_in_the_manual_of_the_service_or_of_the_client() -> None:
    described = MANUAL.read_text() + (ROOT / "docs" / "client.md").read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group
    assert [name for name in commands if f"densityd {name}" not in described] == []
