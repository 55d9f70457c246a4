import asyncio
import json
import logging
import re

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from app.main import create_app

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_gets_an_id(shared_client):
    ids = {shared_client.get("/livez").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


def test_a_sane_id_of_the_caller_is_kept(shared_client):
    assert (
        shared_client.get("/livez", headers={"X-Request-ID": "abc-1.2"}).headers["x-request-id"]
        == "abc-1.2"
    )


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, 'a"b', "\u00e9".encode()])
def test_another_id_is_replaced(shared_client, given):
    request_id = shared_client.get("/livez", headers={"X-Request-ID": given}).headers[
        "x-request-id"
    ]
    assert re.fullmatch("[0-9a-f]{32}", request_id)


@pytest.mark.parametrize(
    "path", ["/livez", "/nowhere", "/v1/datasets?limit=0", "/docs", "/static/site.css"]
)
def test_every_answer_has_security_headers(shared_client, path):
    headers = shared_client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]


def test_no_other_site_may_read_answers(shared_client):
    headers = shared_client.get("/v1/datasets", headers={"Origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in headers


def test_requests_are_logged_with_template_and_status(shared_client, caplog):
    caplog.set_level(logging.INFO, "app.server.request_middleware")
    shared_client.get("/v1/datasets", headers={"X-Request-ID": "r1"})
    assert any("GET /v1/datasets answered 200" in message for message in caplog.messages)


def test_queries_are_not_logged(shared_client, caplog):
    caplog.set_level(logging.DEBUG, "app")
    shared_client.get("/v1/datasets", params={"cursor": "secret"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("app")]
    assert ours
    assert "secret" not in "".join(ours)


@pytest.mark.parametrize(
    ("given", "kept"), [(TRACE, TRACE), (TRACE.upper(), None), ("00-0-0-0", None), ("", None)]
)
def test_a_valid_trace_context_is_passed_on(settings, given, kept):
    app = create_app(settings)

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, str | None]:
        return {"traceparent": request.state.traceparent}

    with TestClient(app) as client:
        assert client.get("/seen", headers={"traceparent": given}).json()["traceparent"] == kept


@pytest.mark.parametrize("stopping", [True, False])
def test_a_request_that_is_cut_off_by_a_stop_is_told_so(settings, stopping):
    app = create_app(settings)
    sent = []
    reached = asyncio.Event()

    @app.get("/endless")
    async def endless() -> None:
        reached.set()
        await asyncio.sleep(60)

    async def receive():
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def cut_off():
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/endless",
            "query_string": b"",
            "headers": [],
        }
        async with app.router.lifespan_context(app):
            task = asyncio.create_task(app(scope, receive, send))
            await asyncio.wait_for(reached.wait(), 120)
            if stopping:
                app.state.stopping.set()
            task.cancel()
            await asyncio.wait([task])
        return task

    task = asyncio.run(cut_off())
    assert task.cancelled() is not stopping
    assert [message["type"] for message in sent[:1]] == ["http.response.start"] * stopping
    if stopping:
        assert sent[0]["status"] == 503
        assert json.loads(sent[1]["body"])["type"] == "/problems/stopping"
