"""Samples that wait for room, or are refused for want of it."""

import gc
import logging

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.http import body_memory
from app.http.body_memory import BodyMemory
from app.main import create_app
from app.scoring import samples
from app.scoring.samples import Drawing
from flows import drawn_bytes
from tests.app.serving import registered

NPY = "application/x-npy"
HELD_BYTES = 2 << 20  # of the rows of a response, their text and what is read ahead


@pytest.fixture
def client(settings):
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
        registered(state.database, state.blobs)
        yield client


@pytest.fixture
def drawn(monkeypatch):
    """Sizes of the chunks that were drawn; the one of -1 tells of an end in order."""
    sizes, draw, chunks = [], Drawing._draw, Drawing.chunks

    async def counted(self, *args, **options):
        rows = await draw(self, *args, **options)
        sizes.append(len(rows))
        return rows

    async def closed(self):
        try:
            async for rows in chunks(self):
                yield rows
        finally:
            sizes.append(-1)

    monkeypatch.setattr(Drawing, "_draw", counted)
    monkeypatch.setattr(Drawing, "chunks", closed)
    return sizes


def ask(client, rows):
    body = {"n": rows, "seed": 1}
    return client.post("/v1/models/people/sample", json=body, headers={"Accept": NPY})


def test_what_is_refused_for_want_of_room_has_drawn_nothing(client, drawn, monkeypatch, caplog):
    monkeypatch.setattr(body_memory, "_PATIENCE_S", 0.05)
    memory = client.app.state.body_memory
    with memory.of("default").share() as others:
        others.hold(memory._max_bytes // 2)
        refused = ask(client, 30_000)
        assert refused.json()["type"] == "/problems/overloaded"
        assert drawn == []
        assert ask(client, 5).status_code == 200
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert drawn == [5, -1]
    assert ask(client, 30_000).status_code == 200


def test_a_few_rows_of_a_slow_flow_are_the_same(client, drawn, monkeypatch):
    at_once = ask(client, 100)
    monkeypatch.setattr(samples, "turn_rows", lambda *_: 64)
    np.testing.assert_array_equal(
        np.frombuffer(at_once.content[-2400:]), np.frombuffer(ask(client, 100).content[-2400:])
    )
    assert drawn == [100, -1, 64, -1, 64, 36, -1]


def test_samples_that_were_drawn_and_wait_count(client, monkeypatch):
    counted: list[int] = []
    change = BodyMemory.change

    def noted(memory, project, size):
        counted.append(size)
        change(memory, project, size)

    monkeypatch.setattr(BodyMemory, "change", noted)
    assert ask(client, 30_000).status_code == 200
    assert max(counted) == HELD_BYTES + drawn_bytes(30_000, 3)
    gc.collect()
    assert sum(counted) == 0
