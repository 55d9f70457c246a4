"""Models go out as files and come in again; what is no such file, or not a usable one, does not."""

import asyncio
import io
import json
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from app.engine.loaded_models import LoadedModels
from app.limits import OpenBound, Threads
from app.models import registration as imports
from flows import MafSpec
from models_store.errors import ModelFileError, RequestError
from models_store.files.model_files import check_model_file, read_model_file
from models_store.records import Version
from models_store.requests.flow_limits import TrainingLimits
from tabular.columns import Column
from tests.app.conftest import assert_refused
from tests.app.serving import COLUMNS, a_flow, registered
from tests.waiting import wait_until

FILE = {"Content-Type": "application/octet-stream"}
ROWS = [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0], [150.0, 99.0, 4.0]]


@pytest.fixture(scope="module")
def trained(shared_client):
    state = shared_client.app.state
    return registered(state.database, state.blobs)


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


def edited(body: bytes, **changes: Any) -> bytes:
    """The same weights, described in another way."""
    return save(load(body), {"densityd": json.dumps({**description(body), **changes})})


def metadata_of(body: bytes) -> dict[str, str]:
    return {"densityd": json.dumps(description(body))}


def description(body: bytes) -> dict[str, Any]:
    length = int.from_bytes(body[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["densityd"])
    return found


@pytest.mark.long
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
    state = shared_client.app.state
    registered(state.database, state.blobs, name="next", seed=1)
    before = scores(shared_client, "next", ROWS)
    assert imported(shared_client, exported, name="next").json()["version"] == 2
    assert scores(shared_client, "next", ROWS) == scores(shared_client, "people", ROWS) != before
    alias = shared_client.put("/v1/models/next/aliases/production", json={"version": 2})
    assert alias.status_code == 200


def test_a_conditional_model_keeps_its_context(shared_client):
    state = shared_client.app.state
    registered(
        state.database,
        state.blobs,
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
    state = shared_client.app.state
    assert registered(state.database, state.blobs, name="once", seed=1).version == 2
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
    state = shared_client.app.state
    registered(state.database, state.blobs, name="elsewhere", seed=1)
    assert imported(shared_client, exported, name="twice", **key).status_code == 201
    before = files(shared_client)
    other = exported_file(shared_client, "elsewhere")
    for name, body in (("thrice", exported), ("twice", other)):
        refused = imported(shared_client, body, name=name, **key)
        assert_refused(refused, 422, "idempotency-key-reused")
    table = shared_client.post(
        "/v1/datasets", content=b"a,b\n1,2\n2,1\n3,5\n", headers={"Content-Type": "text/csv", **key}
    )
    assert_refused(table, 422, "idempotency-key-reused")
    assert files(shared_client) == before
    assert shared_client.get("/v1/models/thrice").status_code == 404


def test_simultaneous_imports_with_one_key_make_one_version(shared_client, exported):
    def post(_: int) -> tuple[int, int]:
        answer = imported(shared_client, exported, name="race", **{"Idempotency-Key": "race"})
        return answer.status_code, answer.json()["version"]

    before = len(files(shared_client))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(post, range(4))) == {(201, 1)}
    assert len(shared_client.get("/v1/models/race/versions").json()["items"]) == 1
    assert len(files(shared_client)) == before + 1


def a_pickle() -> bytes:
    """What `torch.save` wrote before it wrote archives, and would run what it names."""
    return b"\x80\x02cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03."


def a_zip(name: str = "archive/data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, a_pickle())
    return buffer.getvalue()


def a_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("weights")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (a_pickle(), "application/octet-stream"),
        (a_zip(), "application/octet-stream"),
        (a_zip(), "application/zip"),
        (a_zip("../../../../tmp/evil"), "application/vnd.safetensors"),
        (a_tar(), "application/octet-stream"),
        (a_tar(), "application/x-tar"),
        (b"{}", "application/json"),
    ],
    ids=["pickle", "pt", "zip-type", "zip-slip", "tar-link", "tar-type", "json"],
)
def test_faults_178_179_pickles_and_archives_are_not_read(shared_client, body, media_type):
    before = files(shared_client)
    refused = imported(shared_client, body, **{"Content-Type": media_type})
    assert_refused(refused, 415, "media-type")
    assert "application/octet-stream" in refused.json()["supported"]
    assert files(shared_client) == before


def files(client):
    return client.app.state.blobs.keys("models")


@pytest.mark.parametrize("case", ["2^63", "200 MB", "beyond the end", "junk", "cut", "overlap"])
def test_a_header_that_lies_is_refused(shared_client, exported, case):
    before = files(shared_client)
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32",'
    header += b'"shape":[2],"data_offsets":[4,12]}}'
    body = {
        "2^63": (2**63).to_bytes(8, "little") + exported[8:],
        "200 MB": (200 * 10**6).to_bytes(8, "little") + exported[8:],
        "beyond the end": (len(exported)).to_bytes(8, "little") + exported[8:],
        "junk": exported + b"junk",
        "cut": exported[:-1],
        "overlap": len(header).to_bytes(8, "little") + header + bytes(12),
    }[case]
    assert_refused(imported(shared_client, body), 422, "checkpoint-invalid")
    assert files(shared_client) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"kind": "state"},
        {"more": 1},
        {"spec": {"family": "none"}},
        {"spec": {"family": "maf", "layers": "2", "hidden": [16]}},
        {"spec": {"family": "maf", "layers": 2, "hidden": [16], "more": 1}},
        {"spec": {"family": "maf", "layers": 3, "hidden": [16]}},
        {"spec": {"family": "nsf"}},
        {"dim": 2},
        {"columns": ["height", "weight"]},
        {"columns": ["height", "weight", "age", "size"], "dim": 4},
        {"preprocessing": {"standardise": False}},
        {"preprocessing": {}},
        {"context_columns": ["size"]},
    ],
    ids=str,
)
def test_a_description_that_does_not_fit_the_weights_is_refused(exported, tmp_path, changes):
    assert_unreadable(edited(exported, **changes), tmp_path)


def assert_unreadable(body: bytes, folder: Path) -> None:
    """Assert that the check, here without its process, refuses a file."""
    (folder / "model").write_bytes(body)
    limits = TrainingLimits(10**6, 100, 2**32, 2**30)
    with pytest.raises(ModelFileError):
        read_model_file(folder / "model", limits=limits, max_columns=10)


@pytest.mark.parametrize("field", ["levels", "spikes", "na_values"])
def test_types_of_megabytes_are_refused_before_any_weight_is_read(exported, tmp_path, field):
    many = [float(number) for number in range(270_000)]
    lists = {"levels": ["x" * 100] * 40_000, "spikes": many, "na_values": ["y" * 30] * 100_000}
    types = [Column(name=name).to_dict() for name in COLUMNS]
    types[1][field] = lists[field]
    (tmp_path / "model").write_bytes(edited(exported, types=types))
    limits = TrainingLimits(10**6, 100, 2**32, 2**30)
    with pytest.raises(ModelFileError, match="The levels of the columns take more than"):
        read_model_file(tmp_path / "model", limits=limits, max_columns=10)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("datetime_format", "%Q"),
        ("datetime_format", "%d.%d.%Y"),
        ("datetime_format", ""),
        ("decimals", 400),
        ("decimals", -1),
    ],
)
def test_types_whose_cells_cannot_be_read_are_refused(exported, tmp_path, field, value):
    types = [Column(name=name).to_dict() for name in COLUMNS]
    types[1] |= {"type": "datetime", "datetime_format": "%d.%m.%Y", "decimals": 15}
    limits = TrainingLimits(10**6, 100, 2**32, 2**30)
    (tmp_path / "model").write_bytes(edited(exported, types=types))
    assert read_model_file(tmp_path / "model", limits=limits, max_columns=10).types == types
    types[1][field] = value
    (tmp_path / "model").write_bytes(edited(exported, types=types))
    with pytest.raises(ModelFileError, match=r"decimals of a column|formats? "):
        read_model_file(tmp_path / "model", limits=limits, max_columns=10)


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"columns": ["height", "weight", "weight"]}, "dataset-duplicate-columns"),
        ({"columns": ["height", "we\night", "age"]}, "column-name"),
        ({"spec": {"family": "maf", "layers": 10_000, "hidden": [16]}}, "limit-parameters"),
        ({"spec": {"family": "maf", "layers": 2, "hidden": [10**6] * 2}}, "limit-parameters"),
        ({"dim": 5000, "columns": [f"x{i}" for i in range(5000)]}, "limit-columns"),
    ],
    ids=["twice", "control", "layers", "parameters", "columns"],
)
def test_a_model_that_could_not_be_trained_here_is_refused(shared_client, exported, changes, slug):
    assert_refused(imported(shared_client, edited(exported, **changes)), 422, slug)


def test_weights_that_are_not_the_flows_own_are_refused(shared_client, exported):
    body = save(load(exported) | {"more": torch.zeros(1)}, metadata_of(exported))
    assert_refused(imported(shared_client, body), 422, "checkpoint-invalid")


@pytest.mark.parametrize("case", ["nan", "double", "missing", "more", "other", "no words"])
def test_weights_that_are_not_the_flows_own_are_not_read(exported, tmp_path, case):
    tensors = load(exported)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    match case:
        case "nan":
            tensors[name].view(-1)[0] = torch.nan
        case "double":
            tensors[name] = tensors[name].double()
        case "missing":
            del tensors[name]
        case "more":
            tensors["more"] = torch.zeros(1)
        case "other":
            tensors = a_flow(spec=MafSpec(layers=1, hidden=[8])).state_dict()
        case _:
            pass
    metadata = None if case == "no words" else metadata_of(exported)
    assert_unreadable(save(tensors, metadata), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"masks": 2_000_000},
        {"masks": 10**9, "mask_weights": True},
        {"conditional": "mixture", "components": 10**8},
    ],
    ids=str,
)
def test_fields_beyond_the_weights_are_refused_by_the_estimate(shared_client, exported, changes):
    before = files(shared_client)
    spec = {"family": "made", "hidden": [4], **changes}
    refused = imported(shared_client, edited(exported, spec=spec))
    assert refused.status_code == 422
    assert refused.json()["type"].endswith(("/limit-memory", "/limit-parameters"))
    [field] = [name for name in changes if name in ("masks", "components")]
    assert f"lower '{field}' of the flow" in refused.json()["detail"]
    assert files(shared_client) == before


def test_a_registered_model_that_takes_too_much_is_not_loaded(shared_client, trained):
    state = shared_client.app.state
    version = state.registry.version("default", trained.name, 1)
    huge = replace(version, flow={"family": "made", "masks": 10**8}, checkpoint_key="models/other")
    with pytest.raises(RequestError) as caught:
        asyncio.run(_used(state.models, huge))
    assert (caught.value.slug, caught.value.pointer) == ("limit-memory", "")


async def _used(models: LoadedModels, version: Version) -> None:
    async with models.use(version):
        raise AssertionError("it was loaded")


def test_more_than_a_few_waiting_imports_are_refused_with_a_time_to_come_back(
    shared_client, exported, monkeypatch
):
    release, began = threading.Event(), threading.Event()

    def held(*_: Any, **__: Any) -> Any:
        began.set()
        release.wait(120)
        raise ModelFileError("for the test")

    uploads: OpenBound = shared_client.app.state.open_uploads
    monkeypatch.setattr(imports, "check_model_file", held)
    monkeypatch.setattr(uploads, "_each_key", 1)
    most = 8  # of a service without keys
    with ThreadPoolExecutor(most) as pool:
        waiting = [pool.submit(imported, shared_client, exported) for _ in range(most)]
        assert began.wait(120)
        wait_until(lambda: sum(uploads._open.values()) == most)
        refused = imported(shared_client, exported)
        release.set()
        assert_refused(refused, 429, "limit-open-requests")
        assert int(refused.headers["retry-after"]) > 0
        for answer in waiting:
            assert_refused(answer.result(), 422, "checkpoint-invalid")


def test_imports_are_checked_in_turn_by_project(settings, monkeypatch):
    order: list[bytes] = []
    began, release = threading.Event(), threading.Event()

    def held(file: Path, **_: Any) -> Any:
        order.append(file.read_bytes())
        began.set()
        release.wait(120)
        raise ModelFileError("for the test")

    async def main() -> None:
        threads = Threads("imports", 1, each=1)
        limits = TrainingLimits(10**6, 100, 2**32, 2**30)
        files = []
        for number, project in enumerate("aaab"):
            file = settings.data_dir / f"{number}.safetensors"
            file.write_bytes(project.encode())
            check = partial(imports.check_import, file, limits=limits, settings=settings)
            files.append(asyncio.create_task(threads.run(project, check)))
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*files, return_exceptions=True)
        threads.close()

    monkeypatch.setattr(imports, "read_record", lambda _file: None)  # these files hold no tensors
    monkeypatch.setattr(imports, "check_model_file", held)
    asyncio.run(main())
    assert order.index(b"b") < 3  # the last of the other three came before


@pytest.mark.long
def test_a_check_that_swells_ends_its_child_alone(exported, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(exported)
    limits = TrainingLimits(10**6, 100, 2**32, 2**30)

    def refusal(mebibytes: int) -> str | None:
        memory = {"memory_bytes": mebibytes * 2**20, "timeout_s": 60}
        try:
            check_model_file(file, limits=limits, max_columns=10, **memory)
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
    state = shared_client.app.state
    spec = MafSpec(layers=2, hidden=[8], order="random")
    registered(state.database, state.blobs, name="ordered", spec=spec)
    body = exported_file(shared_client, "ordered")
    tensors = load(body)
    name = next(name for name in tensors if name.endswith("inverse_order"))
    for wrong in (-1, 10**6):
        tensors[name][0] = wrong
        assert_unreadable(save(tensors, metadata_of(body)), tmp_path)
