"""Commands that use the real service, and a table for it."""

from pathlib import Path

import numpy as np
import pytest

from tests.densityd.commands.people import ROWS
from tests.densityd.conftest import Service


@pytest.fixture(autouse=True)
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DENSITYD_URL", service.url)
    return service.url


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    np.savetxt(file, ROWS, delimiter=",", header="height,weight,age", comments="")
    return file
