"""Requests of a few cells, which do not wait for the large documents of others."""

import json
import threading

import pytest

from app.fairness.turns import NOBODY
from tables.typed_rows import TypedRows
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


@pytest.mark.fault(1081)
@pytest.mark.parametrize(("path", "media_type", "body"), REQUESTS.values(), ids=list(REQUESTS))
def test_fault_1081_a_few_cells_do_not_wait_for_large_documents(client, path, media_type, body):
    begun, release = threading.Event(), threading.Event()

    def parse() -> None:
        begun.set()
        release.wait(WAIT_S)

    large = client.portal.start_task_soon(client.app.state.threads.alone.run, NOBODY, parse)
    try:
        assert begun.wait(WAIT_S)
        response = client.post(path, content=body, headers={"Content-Type": media_type})
        assert response.status_code in (200, 201), response.text
        assert not large.done()
    finally:
        release.set()
    large.result(WAIT_S)
