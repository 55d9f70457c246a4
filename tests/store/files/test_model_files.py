"""Files of models whose headers, or the records in them, are too large."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models_store.errors import ModelFileError
from models_store.exports.exported_files import RECORD_KEY, read_record
from models_store.files.model_files import MAX_HEADER_BYTES, read_model_file
from models_store.requests.flow_limits import TrainingLimits

LIMITS = TrainingLimits(
    max_parameters=10**6, max_layers=100, max_memory_bytes=10**9, max_model_bytes=10**9
)
RECORD = {
    "format": 1,
    "metrics": {},
    "held_out": None,
    "dataset_sha256": None,
    "target": None,
    "seed": None,
    "code_version": "1",
    "description": None,
    "tags": {},
}


def a_file(folder: Path, metadata: dict[str, str], *, tensors: int = 1) -> Path:
    path = folder / "model.safetensors"
    named = {f"t{n}": torch.zeros(0) for n in range(tensors)}
    save_file(named, path, metadata=metadata)
    return path


def test_a_header_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}")
    for read in (read_record, partial(read_model_file, limits=LIMITS, max_columns=10)):
        with pytest.raises(ModelFileError, match="header has more"):
            read(path)


def test_the_target_of_a_record_may_have_many_values(tmp_path: Path) -> None:
    target = {"loadings": [[0.5] * 100] * 1_100}
    path = a_file(tmp_path, {RECORD_KEY: json.dumps(RECORD | {"target": target})})
    found = read_record(path)
    assert found is not None
    assert found.target == target


def test_a_record_of_large_metrics_is_refused(tmp_path: Path) -> None:
    def read(**changed: object) -> None:
        text = json.dumps({**RECORD, **changed})
        read_record(a_file(tmp_path, {RECORD_KEY: text}))

    read(metrics={"trials": [{"stage": 1}] * 1_000})
    with pytest.raises(ModelFileError):
        read(metrics={"curve": "x" * 65_536})
