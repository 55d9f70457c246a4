"""Requests of a few cells, which do not wait for the large documents of others."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from app.fairness.turns import NOBODY, Threads, on_account_of
from app.rows.decode.json import QUICK_COLUMNS, decoded_document
from app.rows.model_types import ModelTypes
from app.rows.shape import RowsShape
from tabular.columns import Column
from tabular.typed_rows import TypedRows
from tests.app.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.app.serving import registered

WAIT_S = 120.0
ROW = {**TypedRows(COLUMNS).batch(mixed_rows(1)).to_pylist()[0], "cut": "never seen"}
TEXTS = ["" if ROW[name] is None else str(ROW[name]) for name in NAMES]
CSV = f"{','.join(NAMES)}\n{','.join(TEXTS)}\n".encode()
TENSOR = {"name": "rows", "shape": [1, len(NAMES)], "datatype": "BYTES", "data": TEXTS}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n%b\r\n--x--\r\n'
)
TABLE = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(40))
SCORE = "/v1/models/mixed/log_prob"
REQUESTS = {
    "JSON": (SCORE, "application/json", json.dumps({"rows": [ROW]}, default=str).encode()),
    "NDJSON": (SCORE, "application/x-ndjson", json.dumps(ROW, default=str).encode() + b"\n"),
    "CSV": (SCORE, "text/csv", CSV),
    "tensor": (
        "/v2/models/mixed/infer",
        "application/json",
        json.dumps({"inputs": [TENSOR]}).encode(),
    ),
    "form": ("/v1/datasets", "multipart/form-data; boundary=x", FORM % TABLE),
}


@pytest.fixture
def client(client):
    state = client.app.state
    registered(
        *(state.database, state.blobs),
        name="mixed",
        spec=SPEC,
        columns=NAMES,
        types=TYPES,
        flow=mixed_flow(),
    )
    return client


@contextmanager
def held(client: TestClient, pool: Threads) -> Iterator[Future[None]]:
    """Keep the thread of a pool at work."""
    assert client.portal is not None
    begun, release = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(WAIT_S)

    working = client.portal.start_task_soon(pool.run, NOBODY, work)
    try:
        assert begun.wait(WAIT_S)
        yield working
    finally:
        release.set()
    working.result(WAIT_S)


@pytest.mark.parametrize(("path", "media_type", "body"), REQUESTS.values(), ids=list(REQUESTS))
def test_a_few_cells_do_not_wait_for_large_documents(client, path, media_type, body):
    with held(client, client.app.state.threads.alone) as large:
        response = client.post(path, content=body, headers={"Content-Type": media_type})
        assert response.status_code in (200, 201), response.text
        assert not large.done()


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/csv", CSV + CSV.partition(b"\n")[2] * 2_000),
        ("application/x-ndjson", REQUESTS["NDJSON"][2] * 1_000),
    ],
    ids=["CSV", "NDJSON"],
)
def test_large_files_are_not_read_where_a_few_cells_are(client, media_type, body):
    with held(client, client.app.state.threads.cells) as few:
        response = client.post(SCORE, content=body, headers={"Content-Type": media_type})
        assert response.status_code == 200, response.text
        assert not few.done()


@pytest.mark.parametrize(("rows", "is_brief"), [(1, True), (40, False)])
def test_many_new_texts_are_not_read_where_few_ones_are(rows, is_brief):
    names = [f"c{number}" for number in range(QUICK_COLUMNS)]
    types = ModelTypes(tuple(Column(name=n, type="category", levels=("a",)) for n in names), dim=64)
    read_in = []

    class Shape(RowsShape):
        def check_count(self, count: int) -> None:
            read_in.append(threading.current_thread().name.partition("_")[0])
            super().check_count(count)

    async def read() -> None:
        pools = {name: Threads(name, 1, each=1) for name in ("alone", "cells")}
        threads = Threads("any", 1, each=1, **pools)
        body = json.dumps([["new"] * len(names)] * rows).encode()
        with on_account_of("project", threads):
            await decoded_document(body, Shape(names, 100, types))
        threads.close()

    asyncio.run(read())
    assert read_in[-1] == ("cells" if is_brief else "alone")
