"""The table of settings in the manual says what the code does."""

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from app.settings import ApiSettings
from models_store.settings import StoreSettings
from workers.settings import WorkerSettings

MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"
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
