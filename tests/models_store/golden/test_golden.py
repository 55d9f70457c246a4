"""Files of released formats, which every later version reads: those that are here stay as they are.

`python -m tests.models_store.golden.test_golden FOLDER` writes those of the format of today, for a
folder of their own beside these when a format changes.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import migrate
from tests.app.mixed_model import NAMES, SPEC, TYPES, mixed_flow
from tests.app.serving import registered

FOLDERS = sorted(path for path in Path(__file__).parent.glob("format_*") if path.is_dir())
FILE = {"Content-Type": "application/octet-stream"}
HELD_OUT = {"rows": 100, "quantiles": [-30 + 0.025 * step for step in range(1001)]}
MODELS = ["people", "cars"]
ROWS = {
    "people": [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0], [150.0, 99.0, 4.0]],
    "cars": [
        ["Ideal", 7.25, "yes", "2024-02-29", 5, 70.1],
        [None, None, "no", "2023-01-01", 3, 60],
    ],
}


def scores(client: TestClient, model: str) -> NDArray[np.float64]:
    answer = client.post(f"/v1/models/{model}/log_prob", json={"rows": ROWS[model]})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["log_prob"])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return _client(tmp_path_factory.mktemp("golden"))


def _client(folder: Path) -> TestClient:
    settings = ApiSettings(data_dir=folder)
    migrate(settings.resolved_database_url)
    return TestClient(create_app(settings))


# Each import starts a process with torch: one of each kind and of each model tells most.
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("people", "checkpoint"),
        ("cars", "export"),
        pytest.param("people", "export", marks=pytest.mark.long),
        pytest.param("cars", "checkpoint", marks=pytest.mark.long),
    ],
)
def test_a_file_of_a_released_format_is_imported(
    client: TestClient, folder: Path, kind: str, model: str
) -> None:
    content = (folder / f"{model}.{kind}.safetensors").read_bytes()
    with client:
        answer = client.post(f"/v1/models/{model}/versions", content=content, headers=FILE)
        assert answer.status_code == 201, answer.text
        known = json.loads((folder / "scores.json").read_text())[model]
        np.testing.assert_allclose(scores(client, model), known, rtol=1e-6)
        if kind == "export":
            assert answer.json()["metrics"]["test_log_likelihood"] == 3.0
            assert client.get(answer.headers["location"]).json()["held_out"]["rows"] == 100


def write_files(folder: Path) -> None:
    """Write the files of the format of today."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as data, _client(Path(data)) as client:
        state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
        stores = state.database, state.blobs
        registered(*stores, held_out=HELD_OUT)
        cars: dict[str, Any] = {
            "columns": NAMES,
            "flow": mixed_flow(),
            "types": TYPES,
            "held_out": HELD_OUT,
        }
        registered(*stores, name="cars", spec=SPEC, **cars)
        for model in MODELS:
            for kind in ("export", "checkpoint"):
                content = client.get(f"/v1/models/{model}/versions/1/{kind}").content
                (folder / f"{model}.{kind}.safetensors").write_bytes(content)
        known = {model: scores(client, model).tolist() for model in MODELS}
        (folder / "scores.json").write_text(json.dumps(known))


if __name__ == "__main__":
    write_files(Path(sys.argv[1]))
