"""Callers who leave while their request waits for its turn: nothing is read or computed for them."""

import asyncio
import json
import threading
from contextlib import suppress

import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from tabular.typed_rows import TypedRows
from tests.app.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.app.serving import registered

WAIT_S = 30.0
RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
NUMBERS = [[171.5, 68.2, 30.0]] * 6000
CELLS = TypedRows(COLUMNS).batch(mixed_rows(120)).to_pylist()
TENSOR = {"name": "rows", "shape": [6000, 3], "datatype": "FP64", "data": [30.0] * 18_000}


@pytest.fixture
def client(client):
    state = client.app.state
    stores = state.database, state.blobs
    registered(
        *stores,
        name="mixed",
        spec=SPEC,
        columns=NAMES,
        types=TYPES,
        flow=mixed_flow(),
        held_out=RANKS,
    )
    registered(*stores)
    return client


def engine(state, release):
    return state.engine.run(lambda: release.wait(WAIT_S))


def ends_when_its_caller_leaves(client, path, body, busy):
    """Return whether a request ends before what it waits for is free, once its caller has left."""
    name, _, query = path.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": name,
        "raw_path": name.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(_message):
        pass

    async def main():
        release = threading.Event()
        others = asyncio.create_task(busy(client.app.state, release))
        await asyncio.sleep(0)
        request = asyncio.create_task(client.app(scope, receive, send))
        await asyncio.wait({request}, timeout=WAIT_S / 3)
        ended = request.done()
        release.set()
        await others
        with suppress(ClientDisconnect):
            await request
        return ended

    return client.portal.call(main)


def test_few_rows_of_many_passes_are_not_computed_for_a_caller_who_left(client):
    path = "/v1/models/mixed/score?explain=true"
    body = json.dumps({"rows": CELLS}, default=str).encode()
    headers = {"Content-Type": "application/json"}
    client.post(
        path, content=body, headers=headers
    ).raise_for_status()  # the usual terms are known now
    assert ends_when_its_caller_leaves(client, path, body, engine)
