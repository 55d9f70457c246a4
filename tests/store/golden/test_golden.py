"""Files of released formats, which every later version reads: those that are here stay as they are.

`python -m tests.store.golden.test_golden FOLDER` writes those of the format of today, of models into
`format_N` and of tables into `tables_N`, for folders of their own beside these when a format changes. A folder of
tables has the files that were uploaded, those that the service stored, the rows of the datasets, and the rows that
callers get.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import migrate
from models_store.records import NewDataset
from models_store.requests.bulk import AcceptedSampling, AcceptedScoring
from models_store.requests.search import AcceptedEnsemble, AcceptedSearch
from models_store.requests.training import AcceptedTraining
from models_store.requests.variational import AcceptedVariational
from tests.api.mixed_model import NAMES, SPEC, TYPES, mixed_flow
from tests.api.serving import registered
from tests.store.makers import PROJECT

FOLDERS = sorted(path for path in Path(__file__).parent.glob("format_*") if path.is_dir())
TABLES = sorted(Path(__file__).parent.glob("tables_*"))
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

UPLOADS = {
    "numbers": b"height,weight\n171.5,68\n180.25,80\n,99\n150,1e-3\n",
    "mixed": (
        b"id,cut,price,sold,on,doors\n"
        b"a1,Ideal,7.25,yes,2024-02-29,5\n"
        b"a2,,,no,2023-01-01,3\n"
        b'a3,"Good, really",3.10,no,2023-06-15,5\n'
        b"a4,Ideal,-1.00,yes,2022-12-31,3\n"
        b"a5,Ideal,2.50,no,2022-12-30,3\n"
    ),
}
FIELDS = {field.name for field in fields(NewDataset)} - {"id", "project", "description", "tags"}
CSV = {"Content-Type": "text/csv"}


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
@pytest.mark.parametrize(("model", "kind"), [("people", "checkpoint"), ("cars", "export")])
def test_a_file_of_a_released_format_is_imported(client, folder, kind, model):
    content = (folder / f"{model}.{kind}.safetensors").read_bytes()
    with client:
        answer = client.post(f"/v1/models/{model}/versions", content=content, headers=FILE)
        assert answer.status_code == 201, answer.text
        known = json.loads((folder / "scores.json").read_text())[model]
        np.testing.assert_allclose(scores(client, model), known, rtol=1e-6)
        if kind == "export":
            assert answer.json()["metrics"]["test_log_likelihood"] == 3.0
            assert client.get(answer.headers["location"]).json()["held_out"]["rows"] == 100


@pytest.mark.parametrize("folder", TABLES, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", UPLOADS)
def test_a_table_of_a_released_format_is_read_and_retyped(tmp_path, folder, name):
    known = json.loads((folder / f"{name}.json").read_text())
    with _client(tmp_path) as client:
        state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
        shutil.copytree(folder / name, state.blobs.root, dirs_exist_ok=True)
        dataset_id = known["row"]["key"].split("/")[1]
        new = NewDataset(id=dataset_id, project=PROJECT, **known["row"])
        state.registry.add_dataset(new)
        url = f"/v1/datasets/{dataset_id}"
        assert client.get(f"{url}/rows").json() == known["rows"]
        shown = client.get(url).json()
        for column, of_then in zip(shown["columns"], known["columns"], strict=True):
            assert {field: column[field] for field in of_then} == of_then
        last = shown["columns"][-1]["name"]
        changed = client.patch(url, json={"types": {last: "category"}})
        assert changed.status_code == 200, changed.text
        assert changed.json()["columns"][-1]["type"] == "category"
        assert len(client.get(f"{url}/rows").json()["rows"]) == len(known["rows"]["rows"])


def write_models(folder: Path) -> None:
    """Write models of the format of today."""
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


def write_tables(folder: Path) -> None:
    """Write tables of the format of today."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as data, _client(Path(data)) as client:
        state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
        for name, content in UPLOADS.items():
            query = {"name": name, **({"exclude": "id"} if name == "mixed" else {})}
            made = client.post("/v1/datasets", params=query, content=content, headers=CSV).json()
            dataset = state.registry.dataset(PROJECT, made["id"])
            for path in state.blobs.root.glob(f"datasets/{dataset.id}/*"):
                stored = folder / name / path.relative_to(state.blobs.root)
                stored.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, stored)
            known: dict[str, Any] = {
                "row": {field: getattr(dataset, field) for field in FIELDS},
                "columns": made["columns"],
                "rows": client.get(f"/v1/datasets/{dataset.id}/rows").json(),
            }
            (folder / f"{name}.json").write_text(json.dumps(known, indent=1, sort_keys=True))


if __name__ == "__main__":
    write_models(Path(sys.argv[1]) / "format")
    write_tables(Path(sys.argv[1]) / "tables")


FILES = sorted(Path(__file__).parent.glob("requests_*.json"))
STORED = [
    (file.stem, name, kept) for file in FILES for name, kept in json.loads(file.read_text()).items()
]
REQUEST_MODELS: dict[str, type[BaseModel]] = {
    "training": AcceptedTraining,
    "search": AcceptedSearch,
    "sweep": AcceptedSearch,
    "ensemble": AcceptedEnsemble,
    "variational": AcceptedVariational,
    "scoring": AcceptedScoring,
    "sampling": AcceptedSampling,
}
MEANINGLESS = {"chosen_from", "residual"}


@pytest.mark.parametrize(
    ("name", "stored"),
    [pytest.param(name, kept, id=f"{release} {name}") for release, name, kept in STORED],
)
def test_a_request_of_a_released_version_means_what_it_did(name, stored):
    request = REQUEST_MODELS[name.split(maxsplit=1)[0]].model_validate(stored)
    assert without_news(request.model_dump(mode="json"), stored) == stored


def without_news(read: Any, stored: Any) -> Any:
    """Return what was read without the members that were not stored, and with those that mean nothing now."""
    if isinstance(stored, dict) and isinstance(read, dict):
        kept = {name: without_news(read[name], stored[name]) for name in stored if name in read}
        return kept | {name: stored[name] for name in MEANINGLESS & stored.keys()}
    if isinstance(stored, list) and isinstance(read, list) and len(read) == len(stored):
        return [without_news(*both) for both in zip(read, stored, strict=True)]
    return read
