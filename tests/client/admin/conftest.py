"""An environment without settings but a data directory, which is not there yet."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("DENSITYD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DENSITYD_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"
