"""Group D: callers who leave in the middle, and listings that are forged."""

import base64
import json
import random

import pytest

from tests.faults.test_slow_callers import in_flight
from tests.faults.wire import connect, head
from tests.waiting import wait_until

JSON = "Content-Type: application/json"
LOG_PROB = "/v1/models/people/log_prob"


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["head", "half", "whole"])
def test_callers_who_leave_in_the_middle_of_a_score_leave_nothing_behind(service, part):
    body = json.dumps({"rows": [[171.5, 68.2, 33.0]] * 20_000}).encode()
    request = head("POST", LOG_PROB, JSON, f"Content-Length: {len(body)}")
    for _ in range(20):
        with connect(service.port) as connection:
            connection.sendall(request + body[: int(len(body) * part)])
    wait_until(lambda: in_flight(service) == 0, within_s=120, what="a request is still served")


def forged_cursors() -> list[str]:
    draw = random.Random(0)  # noqa: S311 - not for secrets
    return [
        "0",
        "-1",
        "9" * 40,
        "null",
        "' OR 1=1 --",
        "../../etc/passwd",
        "a" * 10_000,
        *(base64.urlsafe_b64encode(draw.randbytes(size)).decode() for size in (1, 8, 16, 64)),
        *(base64.urlsafe_b64encode(text).decode() for text in (b"0", b'{"a":1}', b"[]", b"NaN")),
    ]


@pytest.mark.parametrize(
    "path", ["/v1/datasets", "/v1/jobs", "/v1/models", "/v1/models/people/versions"]
)
def test_forged_listings_are_refused(service, path):
    with service.client() as client:
        for cursor in forged_cursors():
            response = client.get(path, params={"cursor": cursor})
            assert response.status_code in {400, 422}, cursor
        for limit in (0, -1, 10**9, 10**30, "1e3", "all"):
            assert client.get(path, params={"limit": limit}).status_code == 422, limit
        for pattern in ("(a+)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "%"):
            refused = client.get(path, params={"name": pattern, "filter": pattern})
            assert refused.status_code == 422
