"""Stored tables of released formats, which every later version reads: those here stay as they are.

`python -m tests.models_store.golden.test_golden_tables FOLDER` writes those of the format of today.
A folder has the file that was uploaded, the files that the service stored of it, the row of the
dataset, and the rows that callers get.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from models_store.database.database import migrate
from models_store.records import NewDataset
from tests.models_store.makers import PROJECT

FOLDERS = sorted(Path(__file__).parent.glob("tables_*"))
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
CSV = {"Content-Type": "text/csv"}
FIELDS = [
    "name",
    "rows",
    "dtype",
    "columns",
    "warnings",
    "source_format",
    "source_sha256",
    "key",
    "sha256",
    "bytes",
    "cells",
    "options",
]


@pytest.mark.long
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", UPLOADS)
def test_a_table_of_a_released_format_is_read_and_retyped(
    tmp_path: Path, folder: Path, name: str
) -> None:
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


def _client(folder: Path) -> TestClient:
    settings = ApiSettings(data_dir=folder)
    migrate(settings.resolved_database_url)
    return TestClient(create_app(settings))


def write_files(folder: Path) -> None:
    """Write the files of the format of today."""
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
    write_files(Path(sys.argv[1]))
