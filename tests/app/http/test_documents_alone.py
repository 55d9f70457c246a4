import asyncio
import gc
import json
import threading
import tracemalloc
import weakref
from typing import Any

import httpx2
import pytest

from app.fairness.turns import NOBODY, Threads, on_account_of
from app.http.json_body import validate_json
from app.problems.problem import Problem
from app.rows.body import in_thread_if_large
from app.rows.decode.json import decode_document
from app.rows.shape import RowsShape
from app.scoring.samples import SampleRequest
from models_store.jobs.jobs import Jobs
from models_store.labels import Labels
from models_store.registry import Registry
from models_store.requests.bulk import SamplingRequest
from tests.app.conftest import CSV, JSON
from tests.app.http.test_packed_bodies import pulse
from tests.app.serving import registered

WAIT_S = 120.0


def most_at_once(threads: Threads, owners: list[str]) -> tuple[int, list[str]]:
    """Decode a large body for each owner; how many at most at a time, and in which order."""
    lock, begun, release = threading.Lock(), threading.Event(), threading.Event()
    now, most, order = 0, 0, []

    def decode(_body: bytes, owner: str) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
            order.append(owner)
        begun.set()
        release.wait(WAIT_S)
        with lock:
            now -= 1

    async def ask(owner: str) -> None:
        with on_account_of(owner, threads):
            await in_thread_if_large(decode, b" " * (1 << 20), owner)

    async def main() -> None:
        tasks = [asyncio.create_task(ask(owner)) for owner in owners]
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        # Whatever else would begin has a thread by now: each is asked before this one's turn.
        with on_account_of(NOBODY, threads):
            await threads.run(NOBODY, lambda: None)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    return most, order


@pytest.fixture
def threads():
    made = Threads("test", 6, each=6, alone=Threads("alone", 1, each=1))
    yield made
    made.close()


def test_large_bodies_are_decoded_one_at_a_time_by_project(threads):
    most, order = most_at_once(threads, ["a"] * 5 + ["b"])
    assert most == 1
    assert order.index("b") <= 2


def test_the_service_has_one_thread_for_documents(client):
    threads = client.app.state.threads
    assert threads.alone is not threads


def test_the_service_has_one_thread_for_cells_and_one_for_large_files(client):
    threads = client.app.state.threads
    pools = [threads.cells, threads.files]
    assert len({threads, threads.alone, *pools}) == 4
    assert [pool._pool._max_workers for pool in pools] == [1, 1]


class Document:
    """Document that a parser makes."""


def test_the_error_about_a_document_does_not_keep_the_document(threads):
    made: list[weakref.ref[Document]] = []

    def decode(_body: bytes) -> None:
        document = Document()
        made.append(weakref.ref(document))
        raise ValueError("its rows have another width")

    async def main() -> ValueError:
        with on_account_of("a", threads), pytest.raises(ValueError, match="width") as raised:
            await in_thread_if_large(decode, b" " * (1 << 20))
        return raised.value

    error = asyncio.run(main())
    assert made[0]() is None, error


def test_a_document_leaves_no_large_collection_to_whoever_makes_the_next_object(threads):
    def uncollected(_body: bytes) -> int:
        document = [[number] for number in range(100_000)]
        return gc.get_count()[0] if document else 0

    async def main() -> int:
        with on_account_of("a", threads):
            return await in_thread_if_large(uncollected, b" " * (1 << 20))

    assert asyncio.run(main()) < 50_000


MIB = 1 << 20
LISTS = {
    "lists": b"[]",
    "objects": b"{}",
    "nested lists": b"[[1]]",
    "objects of numbers": b'{"a":1}',
    "lists after strings": b'"[",[]',
}


def filled(frame: bytes, unit: bytes, *, size: int = 4 * MIB) -> bytes:
    """A document of about this many bytes, all of the same unit."""
    count = (size - len(frame)) // (len(unit) + 1)
    return frame % b",".join([unit] * count)


@pytest.mark.long
@pytest.mark.parametrize("unit", LISTS.values(), ids=list(LISTS))
def test_more_lists_than_a_table_of_that_size_can_have_are_refused_before_they_are_made(unit):
    body = filled(b'{"rows":[%b]}', unit)
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match=r"lists and objects; at most \d+ are allowed") as caught:
            decode_document(body, RowsShape(["a", "b", "c", "d"], max_rows=10**8))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.type.slug == "validation"
    assert most < 12 * len(body)  # the lists would take twenty times as much


def test_the_narrowest_table_has_no_more_lists_than_are_allowed():
    body = b'{"rows":[' + b",".join([b"[1]"] * 1000) + b'],"columns":["a"]}'
    assert decode_document(body, RowsShape(["a"], max_rows=1000)).shape == (1000, 1)


VALUES = {
    "strings": b'""',
    "lists": b"[]",
    "lists of strings": b'[""]',
    "objects": b'{"a":[]}',
}


@pytest.mark.parametrize("model", [SampleRequest, SamplingRequest])
@pytest.mark.parametrize("unit", VALUES.values(), ids=list(VALUES))
def test_a_request_has_a_bounded_number_of_values_and_of_errors(model, unit):
    frame = b'{"model":"m","n":3,"context":[%b]}'
    with pytest.raises(Problem, match="at most 500000 are allowed") as caught:
        validate_json(model, filled(frame, unit))
    assert caught.value.type.slug == "validation"
    with pytest.raises(Problem) as caught:
        validate_json(model, filled(frame, unit, size=64 * 1024))
    assert len(caught.value.errors) <= 10


@pytest.mark.parametrize(
    ("path", "frame", "most"),
    [
        ("jobs/training", b'{"flow":{"family":"maf","hidden":[%b]}}', 100_000),
        ("jobs/variational", b'{"flow":{"family":"maf","hidden":[%b]}}', 100_000),
        ("webhooks", b'{"events":[%b]}', 2_000),
    ],
)
def test_a_request_without_a_context_has_fewer_values(server, path, frame, most):
    answer = httpx2.post(
        f"{server}/v1/{path}",
        content=filled(frame, b'"x"', size=MIB),
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 422
    assert f"at most {most} are allowed" in answer.json()["detail"]


@pytest.mark.long
@pytest.mark.parametrize("what", ["log_prob", "sample"])
def test_large_documents_of_small_values_hold_nobody_up(server, what):
    frame = {"log_prob": b'{"rows":[%b]}', "sample": b'{"n":3,"context":[%b]}'}[what]
    headers = {"Content-Type": "application/json"}
    with pulse(server) as seconds:
        for unit in (*LISTS.values(), *VALUES.values()):
            response = httpx2.post(
                f"{server}/v1/models/people/{what}",
                content=filled(frame, unit, size=4 * MIB - 100),
                headers=headers,
                timeout=60,
            )
            assert response.status_code == 422
    assert max(seconds) < 10  # it was half a minute


def test_what_megabytes_describe_is_changed_and_shown_one_at_a_time(client, monkeypatch):
    names = [f"{'c' * 100}{place}" for place in range(300)]
    rows = [
        ",".join(str((place * row) % 17 + row / 7) for place in range(300)) for row in range(40)
    ]
    wide = client.post("/v1/datasets", content="\n".join([",".join(names), *rows]), headers=CSV)
    rows = [f"{row},{row % 7}.5" for row in range(40)]
    few = client.post("/v1/datasets", content="\n".join(["a,b", *rows]), headers=CSV)
    threads: list[str] = []

    def note(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def noted(*given: Any, **options: Any) -> Any:
            threads.append(threading.current_thread().name.partition("_")[0])
            return real(*given, **options)

        monkeypatch.setattr(kind, name, noted)

    note(Labels, "_change")
    for name in ("get", "cancel", "resume", "submit"):
        note(Jobs, name)

    def threads_of(dataset: Any) -> list[str]:
        threads.clear()
        changed = json.dumps({"description": "x"})
        for headers in (JSON, {**JSON, "If-Match": '"no"'}):
            client.patch(dataset.headers["location"], content=changed, headers=headers)
        wanted = json.dumps({"model_name": "m", "dataset_id": dataset.json()["id"]})
        made = client.post("/v1/jobs/training", content=wanted, headers=JSON)
        assert made.status_code == 202, made.text
        job = made.headers["location"]
        assert client.post(f"{job}/cancel").status_code == 200
        assert client.post(f"{job}/resume").status_code == 202
        assert client.get(job).status_code == 200
        assert client.patch(job, content=changed, headers=JSON).status_code == 200
        return threads.copy()

    def threads_of_version(columns: list[str]) -> list[str]:
        registered(client.app.state.database, client.app.state.blobs, name="v", columns=columns)
        version = client.get("/v1/models/v").json()["latest"]["version"]
        threads.clear()
        path = f"/v1/models/v/versions/{version}"
        assert client.get(path).json()["columns"] == columns
        assert client.patch(path, content='{"description": "x"}', headers=JSON).status_code == 200
        return threads.copy()

    note(Registry, "version")
    assert threads_of_version([name.ljust(250, "c") for name in names]) == ["documents"] * 2
    assert threads_of_version(["a", "b"]) == ["requests"] * 2
    assert set(threads_of(wide)) == {"documents"}
    assert set(threads_of(few)) == {"requests"}


def test_what_uses_a_version_that_megabytes_describe_reads_it_one_at_a_time(client, monkeypatch):
    rows = [f"{row},{row % 7}.5" for row in range(40)]
    dataset = client.post("/v1/datasets", content="\n".join(["a,b", *rows]), headers=CSV).json()
    threads: list[str] = []

    def note(name: str) -> None:
        real = getattr(Registry, name)

        def noted(*given: Any) -> Any:
            threads.append(threading.current_thread().name.partition("_")[0])
            return real(*given)

        monkeypatch.setattr(Registry, name, noted)

    def threads_of(name: str, columns: list[str]) -> list[str]:
        registered(client.app.state.database, client.app.state.blobs, name=name, columns=columns)
        threads.clear()
        sampling = json.dumps({"model": name, "n": 3})
        made = client.post("/v1/jobs/sampling", content=sampling, headers=JSON)
        assert made.status_code == 202, made.text
        scoring = json.dumps({"model": f"{name}:1", "dataset_id": dataset["id"]})
        client.post("/v1/jobs/scoring", content=scoring, headers=JSON)
        version = f"/v1/models/{name}/versions/1"
        assert client.get(f"{version}/export").status_code == 200
        assert client.head(f"{version}/onnx").status_code == 200
        client.get(f"{version}/plots/learning-curve")
        return threads.copy()

    note("version")
    note("resolve")
    wide = [f"{place}".ljust(250, "c") for place in range(300)]
    assert threads_of("wide", wide) == ["documents"] * 5
    assert threads_of("few", ["a", "b"]) == ["requests"] * 5
