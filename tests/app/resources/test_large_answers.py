"""Answers about one thing that may have megabytes."""

import errno

import pytest
from pydantic import BaseModel

from app.http.streaming import StreamedResponse
from app.resources.large_answers import answer_large
from models_store.files.local_blobs import LocalBlobs
from tests.app.resources.test_listing import WIDE
from tests.models_store.makers import added, submitted


class Text(BaseModel):
    text: str


def no_room(**_):
    raise OSError(errno.ENOSPC, "full")


@pytest.mark.fault(200)
@pytest.mark.parametrize("full", [False, True], ids=["", "on a full disk"])
def test_what_is_large_is_whole_and_leaves_no_file(client, registry, blobs, monkeypatch, full):
    dataset = added(registry, columns=WIDE)
    job = submitted(client.app.state.jobs, request={"context": [[0.25] * 4] * 10_000})
    if full:
        monkeypatch.setattr("app.resources.large_answers.tempfile.TemporaryFile", no_room)
    answer = client.get(f"/v1/datasets/{dataset.id}")
    shown = answer.json()["columns"]
    assert [
        {name: column[name] for name in wide} for column, wide in zip(shown, WIDE, strict=True)
    ] == WIDE
    assert int(answer.headers["content-length"]) == len(answer.content) > 500_000
    assert client.get(f"/v1/jobs/{job.id}").json()["request"] == job.request
    staging = blobs.root / "staging"
    assert not staging.exists() or list(staging.iterdir()) == []


@pytest.mark.fault(200)
def test_what_is_large_does_not_wait_in_memory(tmp_path):
    large = answer_large(Text(text="x" * 100_000), LocalBlobs(tmp_path))
    small = answer_large(Text(text="x"), LocalBlobs(tmp_path))
    assert isinstance(large, StreamedResponse)
    assert (large.body, small.body) == (b"", b'{"text":"x"}')
    assert list((tmp_path / "staging").iterdir()) == []
