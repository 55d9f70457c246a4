"""Models go out as files and come in again; what is no such file, or not a usable one, does not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from flows import MafSpec
from models_store.errors import ModelFileError, RequestError
from models_store.files.model_checks import read_model_file
from models_store.files.model_files import check_model_file
from models_store.requests.flow_limits import TrainingLimits
from tabular.columns import Column
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.serving import COLUMNS, a_flow, registered, stores

FILE = {"Content-Type": "application/octet-stream"}
LIMITS = TrainingLimits(10**6, 100, 2**32, 2**30)
ROWS = [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0], [150.0, 99.0, 4.0]]


@pytest.fixture(scope="module")
def trained(shared_client):
    return registered(*stores(shared_client))


@pytest.fixture
def exported(shared_client, trained):
    return exported_file(shared_client, trained.name)


def exported_file(client, name):
    answer = client.get(f"/v1/models/{name}/versions/1/checkpoint")
    assert answer.status_code == 200
    return answer.content


def imported(client, body, name="copy", **headers):
    return client.post(f"/v1/models/{name}/versions", content=body, headers={**FILE, **headers})


def scores(client, ref, rows):
    answer = client.post(f"/v1/models/{ref}/log_prob", json={"rows": rows})
    return answer.json()["log_prob"]


def metadata_of(body: bytes) -> dict[str, str]:
    length = int.from_bytes(body[:8], "little")
    found: dict[str, str] = json.loads(body[8 : 8 + length])["__metadata__"]
    return found


def edited(body: bytes, **changes: Any) -> bytes:
    """The same weights, described in another way."""
    described = json.loads(metadata_of(body)["densityd"]) | changes
    return save(load(body), {"densityd": json.dumps(described)})


@pytest.mark.slow
def test_an_exported_model_comes_back_bit_for_bit(shared_client, exported):
    answer = imported(shared_client, exported, name="back")
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/models/back/versions/1"
    version = answer.json()
    assert (version["name"], version["version"], version["columns"]) == ("back", 1, COLUMNS)
    assert version["lineage"]["job_id"] is None
    assert version["held_out"] is None
    assert scores(shared_client, "back", ROWS) == scores(shared_client, "people:1", ROWS)
    assert exported_file(shared_client, "back") == exported
    assert shared_client.get("/v1/models/back/versions/1").json() == version
    refused = shared_client.post("/v1/models/back/score", json={"rows": ROWS})
    assert_refused(refused, 422, "score-unavailable")


def test_an_import_is_the_next_version_and_what_the_name_stands_for_at_once(
    shared_client, exported
):
    registered(*stores(shared_client), name="next", seed=1)
    before = scores(shared_client, "next", ROWS)
    assert imported(shared_client, exported, name="next").json()["version"] == 2
    assert scores(shared_client, "next", ROWS) == scores(shared_client, "people", ROWS) != before
    alias = shared_client.put("/v1/models/next/aliases/production", json={"version": 2})
    assert alias.status_code == 200


def test_a_conditional_model_keeps_its_context(shared_client):
    registered(
        *stores(shared_client),
        name="heights",
        columns=["height", "weight"],
        context_columns=("age",),
    )
    body = exported_file(shared_client, "heights")
    version = imported(shared_client, body, name="heights-copy").json()
    assert version["context_columns"] == ["age"]
    assert scores(shared_client, "heights-copy", ROWS) == scores(shared_client, "heights", ROWS)


def test_the_same_import_under_one_key_makes_one_version(shared_client, exported):
    key = {"Idempotency-Key": "import-once"}
    first = imported(shared_client, exported, name="once", **key)
    assert registered(*stores(shared_client), name="once", seed=1).version == 2
    before = files(shared_client)
    again = imported(shared_client, exported, name="once", **key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json() == first.json()
    assert files(shared_client) == before


def test_a_key_of_another_import_or_upload_is_refused(shared_client, exported):
    key = {"Idempotency-Key": "import-twice"}
    registered(*stores(shared_client), name="elsewhere", seed=1)
    assert imported(shared_client, exported, name="twice", **key).status_code == 201
    before = files(shared_client)
    other = exported_file(shared_client, "elsewhere")
    for name, body in (("thrice", exported), ("twice", other)):
        refused = imported(shared_client, body, name=name, **key)
        assert_refused(refused, 422, "idempotency-key-reused")
    table = shared_client.post("/v1/datasets", content=TABLE, headers=CSV | key)
    assert_refused(table, 422, "idempotency-key-reused")
    assert files(shared_client) == before
    assert shared_client.get("/v1/models/thrice").status_code == 404


def test_pickles_and_archives_are_not_read(shared_client):
    before = files(shared_client)
    for body, media_type in (
        (
            b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.",
            FILE["Content-Type"],
        ),
        (b"PK\x03\x04" + bytes(60), FILE["Content-Type"]),
        (b"PK\x03\x04" + bytes(60), "application/vnd.safetensors"),
        (bytes(1024), "application/x-tar"),
        (b"{}", "application/json"),
    ):
        refused = imported(shared_client, body, **{"Content-Type": media_type})
        assert_refused(refused, 415, "media-type")
        assert "application/octet-stream" in refused.json()["supported"]
    assert files(shared_client) == before


def files(client):
    return client.app.state.blobs.keys("models")


def test_a_header_that_lies_is_refused(shared_client, exported):
    before = files(shared_client)
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32",'
    header += b'"shape":[2],"data_offsets":[4,12]}}'
    overlap = len(header).to_bytes(8, "little") + header + bytes(12)
    lengths = (2**63, 200 * 10**6, len(exported))
    lies = [length.to_bytes(8, "little") + exported[8:] for length in lengths]
    for body in (*lies, exported + b"junk", exported[:-1], overlap):
        assert_refused(imported(shared_client, body), 422, "checkpoint-invalid")
    assert files(shared_client) == before


def test_a_description_that_does_not_fit_the_weights_is_refused(exported, tmp_path):
    for changes in (
        {"format": 2},
        {"kind": "state"},
        {"more": 1},
        {"spec": {"family": "none"}},
        {"spec": {"family": "maf", "layers": 2, "hidden": [16], "more": 1}},
        {"spec": {"family": "maf", "layers": 3, "hidden": [16]}},
        {"dim": 2},
        {"columns": ["height", "weight"]},
        {"columns": ["height", "weight", "age", "size"], "dim": 4},
        {"preprocessing": {"standardise": False}},
        {"context_columns": ["size"]},
    ):
        assert_unreadable(edited(exported, **changes), tmp_path)


def assert_unreadable(body: bytes, folder: Path) -> None:
    """Assert that the check, here without its process, refuses a file."""
    (folder / "model").write_bytes(body)
    with pytest.raises(ModelFileError):
        read_model_file(folder / "model", limits=LIMITS, max_columns=10)


def test_types_of_megabytes_are_refused_before_any_weight_is_read(exported, tmp_path):
    types = [Column(name=name).to_dict() for name in COLUMNS]
    types[1]["levels"] = ["x" * 100] * 40_000
    (tmp_path / "model").write_bytes(edited(exported, types=types))
    with pytest.raises(ModelFileError, match="The levels of the columns take more than"):
        read_model_file(tmp_path / "model", limits=LIMITS, max_columns=10)


def test_types_whose_cells_cannot_be_read_are_refused(exported, tmp_path):
    types = [Column(name=name).to_dict() for name in COLUMNS]
    types[1] |= {"type": "datetime", "datetime_format": "%d.%m.%Y", "decimals": 15}
    file = tmp_path / "model"
    file.write_bytes(edited(exported, types=types))
    assert read_model_file(file, limits=LIMITS, max_columns=10)["types"] == types
    for wrong in ({"datetime_format": "%Q"}, {"datetime_format": ""}, {"decimals": 400}):
        file.write_bytes(edited(exported, types=[types[0], types[1] | wrong, types[2]]))
        with pytest.raises(ModelFileError, match=r"decimals of a column|formats? "):
            read_model_file(file, limits=LIMITS, max_columns=10)


def test_a_model_that_could_not_be_trained_here_is_refused(shared_client, exported):
    made = {"family": "made", "hidden": [4]}
    for slug, changes in (
        ("checkpoint-invalid", {"columns": ["height", "weight", "weight"]}),
        ("checkpoint-invalid", {"columns": ["height", "we\night", "age"]}),
        ("limit-parameters", {"spec": {"family": "maf", "layers": 10_000, "hidden": [16]}}),
        ("limit-columns", {"dim": 5000, "columns": [f"x{i}" for i in range(5000)]}),
        ("limit-memory", {"spec": made | {"masks": 2_000_000}}),
        ("limit-parameters", {"spec": made | {"conditional": "mixture", "components": 10**8}}),
    ):
        refused = imported(shared_client, edited(exported, **changes))
        assert_refused(refused, 422, slug)
        if slug == "limit-memory":
            assert "lower `flow.masks`" in refused.json()["detail"]


def test_weights_that_are_not_the_flows_own_are_not_read(exported, tmp_path):
    tensors = load(exported)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    undefined = tensors[name].clone()
    undefined.view(-1)[0] = torch.nan
    rest = {other: tensor for other, tensor in tensors.items() if other != name}
    for wrong in (
        rest,
        rest | {name: undefined},
        rest | {name: tensors[name].double()},
        tensors | {"more": torch.zeros(1)},
        a_flow(spec=MafSpec(layers=1, hidden=[8])).state_dict(),
    ):
        assert_unreadable(save(wrong, metadata_of(exported)), tmp_path)
    assert_unreadable(save(tensors), tmp_path)


@pytest.mark.slow
def test_a_check_that_swells_ends_its_child_alone(exported, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(exported)

    def refusal(mebibytes: int) -> str | None:
        memory = {"memory_bytes": mebibytes * 2**20, "timeout_s": 60}
        try:
            check_model_file(file, limits=LIMITS, max_columns=10, **memory)
        except RequestError as error:
            return f"{error.slug}: {error.detail}"
        return None

    refusals = {mebibytes: refusal(mebibytes) for mebibytes in (100, 1000)}
    assert refusals[100] is not None
    assert refusals[1000] is None
    for mebibytes, text in refusals.items():
        wanted = f"limit-memory: checking the file took more than the {mebibytes} MiB"
        assert text is None or text.startswith(wanted)


def test_orders_that_are_none_are_refused(shared_client, tmp_path):
    spec = MafSpec(layers=2, hidden=[8], order="random")
    registered(*stores(shared_client), name="ordered", spec=spec)
    body = exported_file(shared_client, "ordered")
    tensors = load(body)
    name = next(name for name in tensors if name.endswith("inverse_order"))
    for wrong in (-1, 10**6):
        tensors[name][0] = wrong
        assert_unreadable(save(tensors, metadata_of(body)), tmp_path)


def test_a_file_may_take_all_of_the_room_that_is_left(shared_client, trained, exported):
    projects = shared_client.app.state.projects
    used = shared_client.get("/v1/usage").json()["stored_bytes"]["used"]
    projects.put(trained.project, max_bytes=used + len(exported), max_queued_jobs=None)
    answers = [imported(shared_client, exported, "last") for _ in range(2)]
    projects.put(trained.project, max_bytes=None, max_queued_jobs=None)
    assert answers[0].status_code == 201
    assert_refused(answers[1], 507, "quota-storage")
