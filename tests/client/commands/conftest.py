"""Commands run in this process on the real service, and a table for it."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from densityd.cli import app
from tests.client.conftest import Service

ROWS = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(50, 3))


def run(*arguments: object, status: int = 0, says: str | None = None) -> Result:
    """Run a command that ends with a status, and says something where it asks."""
    result = CliRunner().invoke(app, [str(part) for part in arguments], input=says)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(autouse=True)
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DENSITYD_URL", service.url)
    return service.url


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    np.savetxt(file, ROWS, delimiter=",", header="height,weight,age", comments="")
    return file
