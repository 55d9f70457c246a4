import tracemalloc

import httpx2
import pytest

from app.http.json_body import validate_json
from app.problems.problem import Problem
from app.rows.decode.json import decode_document
from app.rows.shape import RowsShape
from app.scoring.samples import SampleRequest
from models_store.requests.bulk import SamplingRequest

WAIT_S = 120.0


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
