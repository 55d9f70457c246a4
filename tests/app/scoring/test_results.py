"""Results that wait for callers who read slowly, and bodies that wait on the disk."""

import asyncio
import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from starlette.testclient import TestClient

from app.http.body_memory import BodyMemory
from app.problems.problem import Problem
from app.rows.response_table import Chunk
from app.scoring.request import ScoreRequest
from app.scoring.results import FEW_BYTES, Results
from app.scoring.samples import Drawing
from models_store.files.local_blobs import LocalBlobs
from tests.app.conftest import assert_refused
from tests.app.serving import COLUMNS, registered
from tests.tables.files import arrow, npy, parquet

PROJECT = "one"
MANY = np.arange(FEW_BYTES, dtype=np.float64).reshape(-1, 2)  # eight times as much as is few


def results_of(folder: Path, *, memory: BodyMemory, files: BodyMemory) -> Results:
    return Results(
        2,
        LocalBlobs(folder),
        1 << 30,
        memory=memory.of(PROJECT).kept_share(),
        files=files.of(PROJECT).kept_share(),
    )


async def read(results: Results) -> list[Chunk]:
    return [chunk async for chunk in results.chunks()]


@pytest.mark.parametrize("room", [10 * MANY.nbytes, MANY.nbytes])
def test_results_beyond_the_memory_of_a_project_wait_on_the_disk(tmp_path, room):
    memory, files = BodyMemory(room), BodyMemory(1 << 30)
    codes = np.arange(len(MANY)).astype(np.uint8)

    async def main() -> None:
        results = results_of(tmp_path, memory=memory, files=files)
        await results.add(Chunk(MANY, codes))
        await results.add(Chunk(-MANY))
        held = [MANY.nbytes * 2, 0] if room > MANY.nbytes * 2 else [0, MANY.nbytes * 2]
        held[0] += codes.nbytes  # the reasons are always in memory
        assert [memory.held, files.held] == held
        parts = await read(results)
        assert all(part.values.nbytes <= FEW_BYTES for part in parts)
        assert np.array_equal(np.concatenate([part.values for part in parts]), [*MANY, *-MANY])
        known = [part.codes for part in parts if part.codes is not None]
        assert np.array_equal(np.concatenate(known), codes)
        assert results.whole is None

    asyncio.run(main())
    gc.collect()
    assert [memory.held, files.held] == [0, 0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_results_leave_room_for_bodies(tmp_path):
    """Results can go to the disk, which bodies cannot."""
    memory, files = BodyMemory(8 * MANY.nbytes), BodyMemory(1 << 30)

    async def main() -> None:
        many = [results_of(tmp_path, memory=memory, files=files) for _ in range(8)]
        for results in many:
            await results.add(Chunk(MANY))
        assert memory.held > 0
        with memory.of(PROJECT).share() as body:
            body.hold(2 * MANY.nbytes)

    asyncio.run(main())


def test_wide_results_come_in_more_rows_at_a_time(tmp_path):
    """A format that writes column by column would take several times as long."""
    memory = BodyMemory(1 << 30)

    async def main() -> None:
        results = dataclasses.replace(
            results_of(tmp_path, memory=memory, files=memory), width=4_000
        )
        await results.add(Chunk(np.zeros((64, 4_000))))
        assert [len(part.values) for part in await read(results)] == [32, 32]

    asyncio.run(main())


def test_few_results_are_one_chunk(tmp_path):
    memory = BodyMemory(1 << 30)

    async def main() -> None:
        results = results_of(tmp_path, memory=memory, files=memory)
        await results.add(Chunk(MANY[:100]))
        assert results.whole is not None
        assert np.array_equal(results.whole.values, MANY[:100])

    asyncio.run(main())


def test_results_beyond_the_disk_space_of_a_project_are_refused(tmp_path):
    memory, files = BodyMemory(0), BodyMemory(3 * MANY.nbytes)

    async def main() -> None:
        results = results_of(tmp_path, memory=memory, files=files)
        await results.add(Chunk(MANY))
        with pytest.raises(Problem, match="overloaded"):
            await results.add(Chunk(MANY))

    asyncio.run(main())
    gc.collect()
    assert files.held == 0


@pytest.fixture
def people(client: TestClient) -> TestClient:
    """The application with the model `people`."""
    registered(client.app.state.database, client.app.state.blobs)  # type: ignore[attr-defined]
    return client


def asked(client: TestClient, what: str, kind: str, content: bytes) -> Any:
    headers = {"Content-Type": kind, "Accept": "application/x-npy"}
    return client.post(f"/v1/models/people/{what}", content=content, headers=headers)


def test_large_results_count_until_they_are_read(people, monkeypatch):
    counted = []
    change = BodyMemory.change

    def counting(memory: BodyMemory, project: str, size: int) -> None:
        change(memory, project, size)
        counted.append(memory.held)

    monkeypatch.setattr(BodyMemory, "change", counting)
    rows = np.zeros((20_000, 3), np.int8)
    answer = asked(people, "inverse", "application/x-npy", npy(rows))
    assert answer.status_code == 200
    assert max(counted) >= rows.size * 8
    assert people.app.state.body_memory.held == 0


@pytest.mark.parametrize(
    ("kind", "write"),
    [("application/vnd.apache.arrow.stream", arrow), ("application/vnd.apache.parquet", parquet)],
)
def test_bodies_and_what_they_unpack_to_count_on_the_disk(people, kind, write):
    content = write(pa.table(dict.fromkeys(COLUMNS, np.zeros(100_000))))
    files = people.app.state.body_files
    assert asked(people, "log_prob", kind, content).status_code == 200
    with files.of("default").share() as share:
        share.hold((16 << 30) - 2_000_000)
        refused = asked(people, "log_prob", kind, content)
    assert_refused(refused, 503, "overloaded")
    assert files.held == 0


def test_results_on_the_disk_are_closed_in_a_thread(tmp_path, monkeypatch):
    closed: list[Any] = []
    monkeypatch.setattr("app.scoring.results.close_apart", closed.append)

    async def main() -> Results:
        results = results_of(tmp_path, memory=BodyMemory(0), files=BodyMemory(1 << 30))
        await results.add(Chunk(MANY))
        return results

    results = asyncio.run(main())
    del results
    gc.collect()
    assert len(closed) == 1
    assert not closed[0].closed
    closed[0].close()


_ROWS = np.zeros((200_000, 3))
_WAITING = {
    "whole": ("application/x-npy", npy(_ROWS[:20_000])),
    "streamed": ("application/x-npy", npy(_ROWS)),
    "text": ("text/csv", b"1,1,1\n" * 20_000),
    "document": ("application/json", b"[%b]" % b",".join([b"[1,1,1]"] * 20_000)),
}


@pytest.mark.parametrize("what", _WAITING)
def test_rows_count_while_they_wait_for_the_engine(people, monkeypatch, what):
    memory, counted = people.app.state.body_memory, []
    compute = ScoreRequest.compute

    async def counting(
        self: ScoreRequest, function: Any, flow: Any, rows: Any, **given: Any
    ) -> Any:
        counted.append((memory.held, rows.nbytes))
        return await compute(self, function, flow, rows, **given)

    monkeypatch.setattr(ScoreRequest, "compute", counting)
    kind, content = _WAITING[what]
    headerless = kind + ";header=absent" * (kind == "text/csv")
    assert asked(people, "log_prob", headerless, content).status_code == 200
    held, size = counted[0]
    assert held >= size > FEW_BYTES
    assert asked(people, "log_prob", "application/x-npy", npy(_ROWS[:9])).status_code == 200
    assert counted[-1][0] == memory.held == 0
    with memory.of("default").share() as share:
        share.hold((128 << 20) - size // 2)
        refused = asked(people, "log_prob", headerless, content)
        few = asked(people, "log_prob", "application/x-npy", npy(_ROWS[:9]))
    assert_refused(refused, 503, "overloaded")
    assert (few.status_code, memory.held) == (200, 0)


def test_the_context_of_samples_counts_while_they_are_drawn_and_read(client, monkeypatch):
    state, names = client.app.state, ("day", "hour")
    registered(state.database, state.blobs, name="given", context_columns=names)
    memory, counted, draw = state.body_memory, [], Drawing._draw

    async def counting(self: Drawing, drawing: Any, *, admitted: bool) -> Any:
        counted.append(memory.held)
        return await draw(self, drawing, admitted=admitted)

    def sampled(rows: int, n: int) -> int:
        counted.clear()
        body = {"n": n, "context": [[0.5, 1.0]] * rows}
        return int(client.post("/v1/models/given/sample", json=body).status_code)

    monkeypatch.setattr(Drawing, "_draw", counting)
    assert sampled(1, 10_000) == 200
    assert min(counted) < 16 * 150_000
    assert (sampled(150_000, 150_000), memory.held) == (200, 0)
    assert min(counted) == 16 * 150_000
    with memory.of("default").share() as share:
        share.hold((128 << 20) - 100_000)
        assert (sampled(1, 1), sampled(10_000, 10_000)) == (200, 503)
        reading = asyncio.run(memory.of("default").room(1))
        share.hold(96 << 20)  # a context that counts as much as the response waits for no others
        monkeypatch.setattr("app.http.body_memory._PATIENCE_S", 0.1)
        assert (sampled(1, 150_000), sampled(150_000, 150_000)) == (503, 200)
        del reading
    assert memory.held == 0
