"""Versions that go from one service to another lose nothing that matters there."""

import json

import pytest
from safetensors.torch import load

from models_store.files.exported_files import RECORD_KEY
from tests.app.conftest import assert_refused
from tests.app.serving import registered

FILE = {"Content-Type": "application/octet-stream"}
ROWS = [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0], [150.0, 99.0, 4.0]]
QUANTILES = [-30 + 0.025 * step for step in range(1001)]
HELD_OUT = {"rows": 100, "quantiles": QUANTILES}

CHANGES: list[dict[str, object]] = [
    {"format": 2},
    {"more": 1},
    {"held_out": {"rows": 0, "quantiles": QUANTILES}},
    {"held_out": {"rows": 9, "quantiles": [0.0]}},
    {"held_out": {"rows": 9, "quantiles": QUANTILES[::-1]}},
    {"tags": {"": "x"}},
    {"description": "\0"},
    {"dataset_sha256": "x"},
    {"seed": -1},
    {"metrics": {str(number): 0 for number in range(201)}},
    {"metrics": {"x": "y" * 2**20}},
]


@pytest.fixture
def exported(client):
    registered(client.app.state.database, client.app.state.blobs, held_out=HELD_OUT)
    labels = {"description": "of mine", "tags": {"team": "space"}}
    assert client.patch("/v1/models/people/versions/1", json=labels).status_code == 200
    answer = client.get("/v1/models/people/versions/1/export")
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    return answer.content


def imported(client, body):
    return client.post("/v1/models/copy/versions", content=body, headers=FILE)


def edited(body, change):
    """The file with another record."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    record = json.loads(header["__metadata__"][RECORD_KEY])
    header["__metadata__"][RECORD_KEY] = json.dumps({**record, **change})
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    return len(content).to_bytes(8, "little") + content + body[8 + length :]


def test_an_import_restores_what_was_exported(client, exported):
    made = imported(client, exported)
    assert made.status_code == 201, made.text
    source = client.get("/v1/models/people/versions/1").json()
    copy = made.json()
    for name in ("metrics", "held_out", "description", "tags", "flow", "columns", "types"):
        assert copy[name] == source[name], name
    assert copy["metrics"]
    assert copy["held_out"]
    for name in ("dataset_sha256", "target", "seed", "code_version"):
        assert copy["lineage"][name] == source["lineage"][name], name
    assert (copy["lineage"]["job_id"], copy["lineage"]["dataset_id"]) == (None, None)
    scores = [
        client.post(f"/v1/models/{ref}/score", json={"rows": ROWS}).json()
        for ref in ("people:1", "copy:1")
    ]
    assert scores[0]["quantile"] == scores[1]["quantile"]
    assert scores[0]["log_prob"] == scores[1]["log_prob"]
    again = client.get("/v1/models/copy/versions/1/export").content
    assert imported(client, again).json()["metrics"] == source["metrics"]


def test_the_tensors_are_those_of_the_checkpoint(client, exported):
    plain = client.get("/v1/models/people/versions/1/checkpoint").content
    one, other = load(exported), load(plain)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    copy = imported(client, plain).json()
    assert (copy["metrics"], copy["held_out"], copy["tags"]) == ({}, None, {})


def test_a_record_that_is_none_is_refused(client, exported):
    for change in CHANGES:
        refused = imported(client, edited(exported, change))
        assert_refused(refused, 422, "checkpoint-invalid")
