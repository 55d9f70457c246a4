import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from flows import (
    FitState,
    Flow,
    FlowSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    RealNvpSpec,
    build,
    compile_flow,
    fit_encoding,
    spec_to_dict,
)
from flows.mixed.companion import Companion
from flows.mixed.companion_fitting import fit_companion
from models_store.errors import BlobCorruptError, CheckpointMismatchError, ModelFileError
from models_store.exports.exported_files import RECORD_KEY, read_record
from models_store.files.blobs import Blobs, StoredBlob
from models_store.files.checkpoints import load_model, load_state, save_model, save_state
from models_store.files.model_checks import read_model_file
from models_store.files.model_files import MAX_HEADER_BYTES
from models_store.files.served_models import load_compiled
from models_store.requests.flow_limits import TrainingLimits

KEY = "models/job_1/1.safetensors"
COLUMNS = ["a", "b", "c"]
SPECS: list[FlowSpec] = [
    MadeSpec(hidden=[8]),
    MafSpec(layers=2, hidden=[8]),
    MafSpec(layers=2, hidden=[8], batch_norm=None, order="random"),
    RealNvpSpec(layers=2, hidden=[8]),
]
MOMENTS = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs.in_folder(tmp_path / "blobs")


def make(spec: FlowSpec = SPECS[1], *, standardise: bool = True) -> Flow:
    return build(spec, 3, standardise=MOMENTS if standardise else None, seed=7).eval()


def save(
    blobs: Blobs, key: str = KEY, *, spec: FlowSpec = SPECS[1], standardise: bool = True
) -> StoredBlob:
    flow = make(spec, standardise=standardise)
    return save_model(
        blobs,
        key,
        flow,
        spec=spec,
        columns=COLUMNS,
        preprocessing={"standardise": standardise, "dequantise": None, "logit": None},
    )


def test_a_loaded_model_gives_the_same_densities(blobs):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for spec in SPECS:
        for standardise in (True, False):
            stored = save(blobs, spec=spec, standardise=standardise)
            loaded = load_model(blobs, KEY, stored.sha256)
            expected = make(spec, standardise=standardise).log_prob(x)
            assert torch.equal(loaded.log_prob(x), expected), spec
            assert not loaded.training


def test_a_companion_is_loaded_as_it_was_calibrated(blobs):
    columns = [MixedColumn(), MixedColumn(levels=2)]
    spec = MixedSpec(columns=columns, flow=MadeSpec(hidden=[8]), hidden=[8], rows=100)
    rows = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)).double()
    rows[:, 1] = rows[:, 1].round()
    flow = build(spec, 2, seed=0).eval()
    fit_encoding(flow, rows)
    companion = fit_companion(flow, rows[:60], rows[60:], seed=0)
    assert companion is not None
    flow.companion = companion
    for value in companion.calibration().values():
        value.add_(0.25)
    told = {"standardise": False, "dequantise": None, "logit": None}
    stored = save_model(blobs, KEY, flow, spec=spec, columns=["a", "b"], preprocessing=told)
    loaded = load_model(blobs, KEY, stored.sha256)
    assert isinstance(loaded.companion, Companion)
    assert_close(loaded.companion.calibration(), companion.calibration(), rtol=0, atol=0)


def test_the_noise_of_discrete_columns_is_loaded_of_older_models_too(blobs):
    steps = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    usual = {"standardise": True, "dequantise": None, "logit": None}
    for absent in ((), ("widths",), ("widths", "extent"), ("steps", "widths")):
        columns = [MixedColumn(step=step, noise=2 * step) for step in steps.tolist()]
        flow = build(SPECS[1], 3, standardise=MOMENTS, columns=columns, seed=7)
        fit_encoding(flow, torch.randn(100, 3))
        flow.preprocessing.denoise = None
        for name in absent:
            setattr(flow.preprocessing, name, None)
        stored = save_model(blobs, KEY, flow, spec=SPECS[1], columns=COLUMNS, preprocessing=usual)
        loaded = load_model(blobs, KEY, stored.sha256)
        assert loaded.preprocessing.steps is not None
        assert loaded.preprocessing.widths is not None
        expected = steps * 0 if "steps" in absent else steps
        assert torch.equal(loaded.preprocessing.steps, expected)
        assert torch.equal(loaded.preprocessing.widths, expected if absent else 2 * steps)
        x = torch.randn(20, 3)
        assert torch.equal(loaded.log_prob(x), flow.eval().log_prob(x))


def test_equal_models_are_equal_files(blobs):
    assert (
        save(blobs, "models/job_1/1.safetensors").sha256
        == save(blobs, "models/job_2/1.safetensors").sha256
    )


def test_a_flipped_bit_and_a_cut_file_are_found(blobs):
    stored = save(blobs)
    path = blobs.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(flipped := whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    load_file(path)  # safetensors alone sees nothing wrong
    for content in (flipped, b"", whole[:100], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(BlobCorruptError):
            load_model(blobs, KEY, stored.sha256)


def replace(blobs: Blobs, data: bytes) -> str:
    """Store other bytes under the key, honestly hashed; their hash."""
    with blobs.staged(".safetensors") as path:
        path.write_bytes(data)
        return blobs.commit(path, KEY).sha256


def test_a_header_that_lies_is_refused(blobs):
    for header in (
        (2**63).to_bytes(8, "little"),
        (200 * 2**20).to_bytes(8, "little"),
        b"\x02\0\0\0\0\0\0\0{}junk",
        b"PK\x03\x04" + bytes(60),
    ):
        with pytest.raises(BlobCorruptError):
            load_model(blobs, KEY, replace(blobs, header))


def test_the_right_file_of_another_model_is_refused(blobs):
    stored = save(blobs)
    spec = {"family": "maf", "layers": 2, "hidden": [8]}
    load_model(blobs, KEY, stored.sha256, spec=spec, columns=COLUMNS)
    with pytest.raises(CheckpointMismatchError):
        load_model(blobs, KEY, stored.sha256, spec={**spec, "hidden": [9]})
    with pytest.raises(CheckpointMismatchError):
        load_model(blobs, KEY, stored.sha256, columns=["c", "b", "a"])


def rewrite(blobs: Blobs, **changes: object) -> str:
    """Store the model again with another description of itself; its new hash."""
    path = blobs.path(KEY)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["densityd"])
    with blobs.staged(".safetensors") as staged:
        save_file(load_file(path), staged, {"densityd": json.dumps({**header, **changes})})
        return blobs.commit(staged, KEY).sha256


def test_a_file_whose_description_does_not_fit_its_weights_is_refused(blobs):
    changes: list[dict[str, Any]] = [
        {"format": 2},
        {"kind": "state"},
        {"unknown": 1},
        {"dim": 4},
        {"dim": 2**40},
        {"columns": ["a"]},
        {"preprocessing": {}},
        {"preprocessing": {"standardise": False}},
        {"spec": {"family": "maf", "layers": 2, "hidden": [9]}},
        {"spec": {"family": "os.system"}},
        {"spec": {"family": "maf", "layers": 10**9}},
    ]
    for changed in changes:
        save(blobs)
        with pytest.raises(CheckpointMismatchError):
            load_model(blobs, KEY, rewrite(blobs, **changed))


def test_safetensors_of_somebody_else_are_refused(blobs, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    sha256 = replace(blobs, file.read_bytes())
    with pytest.raises(CheckpointMismatchError):
        load_model(blobs, KEY, sha256)
    with pytest.raises(CheckpointMismatchError):
        load_state(blobs, KEY, sha256)


def test_a_state_comes_back_bit_for_bit(blobs):
    tensors = {
        "weights": torch.tensor([0.1, -0.0, float("nan"), float("inf"), 1e-45]),
        "order": torch.randperm(7),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "step": torch.tensor(12),
        "moments": torch.rand(2, 3, dtype=torch.float64).T,
        "view": torch.arange(10.0)[2:4],
        "empty": torch.empty(0, 3),
    }
    meta: dict[str, Any] = {
        "epoch": 3,
        "best": -1.2345678901234567,
        "schedule": [1, None, {"a": True}],
    }
    stored = save_state(blobs, "jobs/job_1/1-3.safetensors", FitState(tensors, meta))
    loaded = load_state(blobs, stored.key, stored.sha256)
    assert loaded.meta == meta
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert loaded.tensors[name].shape == tensor.shape
        assert loaded.tensors[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_a_state_is_no_model_and_a_model_no_state(blobs):
    model = save(blobs)
    state = save_state(blobs, "jobs/job_1/1-1.safetensors", FitState({}, {}))
    with pytest.raises(CheckpointMismatchError):
        load_state(blobs, model.key, model.sha256)
    with pytest.raises(CheckpointMismatchError):
        load_model(blobs, state.key, state.sha256)


def test_what_was_loaded_outlives_its_file(blobs):
    stored = save_state(blobs, "jobs/job_1/1-1.safetensors", FitState({"a": torch.ones(5)}, {}))
    loaded = load_state(blobs, stored.key, stored.sha256)
    path = blobs.path(stored.key)
    path.write_bytes(b"")
    assert loaded.tensors["a"].tolist() == [1.0] * 5


LIMITS = TrainingLimits(
    max_parameters=10**6, max_layers=100, max_memory_bytes=10**9, max_model_bytes=10**9
)
EMPTY = ("held_out", "dataset_sha256", "target", "seed", "description")
RECORD: dict[str, Any] = {
    "format": 1,
    "metrics": {},
    "code_version": "1",
    "tags": {},
    **dict.fromkeys(EMPTY),
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


def test_a_model_is_served_without_pytorch_with_the_same_scores(blobs):
    spec = MafSpec(layers=2, hidden=[16])
    stored = save(blobs, spec=spec)
    rows = [[0.5, -1.0, 2.0], [3.0, 0.0, 0.25]]
    code = f"""
import sys
import numpy as np
from models_store.files.blobs import Blobs
from models_store.files.served_models import load_compiled

blobs, spec = Blobs.in_folder({str(blobs.root)!r}), {spec_to_dict(spec)!r}
flow = load_compiled(blobs, {KEY!r}, {stored.sha256!r}, spec=spec, columns={COLUMNS!r})
scores = flow.log_prob(np.array({rows!r}))
assert "torch" not in sys.modules
assert flow.sample(2, seed=1).shape == (2, 3)
print(*map(float.hex, scores))
"""
    run = subprocess.run(  # noqa: S603  the code above
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = compile_flow(load_model(blobs, KEY, stored.sha256)).log_prob(np.array(rows))
    assert run.stdout.split() == [float(score).hex() for score in expected]


@pytest.mark.parametrize("spec", [SPECS[1], MafSpec(layers=2, hidden=[16])])
def test_a_served_model_is_that_of_its_row(blobs, spec):
    stored = save(blobs, spec=spec)
    load = partial(load_compiled, blobs, KEY, stored.sha256)
    assert load(spec=spec_to_dict(spec), columns=COLUMNS).dim == len(COLUMNS)
    for other, columns in ((SPECS[0], COLUMNS), (spec, COLUMNS[::-1])):
        with pytest.raises(CheckpointMismatchError):
            load(spec=spec_to_dict(other), columns=columns)
    blobs.path(KEY).write_bytes(b"damaged")
    with pytest.raises(BlobCorruptError):
        load(spec=spec_to_dict(spec), columns=COLUMNS)
