import asyncio
import json
import logging
import re

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from app.main import create_app

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_gets_an_id_unless_it_brings_a_sane_one(shared_client):
    def ask(**headers):
        return shared_client.get("/livez", headers=headers).headers["x-request-id"]

    assert ask(**{"X-Request-ID": "abc-1.2"}) == "abc-1.2"
    found = {ask() for _ in range(3)}
    for given in ("", "a b", "a\tb", "x" * 129, 'a"b', "\u00e9".encode()):
        found.add(ask(**{"X-Request-ID": given}))
    assert len(found) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in found)


def test_every_answer_has_security_headers(shared_client):
    for path in ("/livez", "/nowhere", "/v1/datasets?limit=0", "/docs", "/static/site.css"):
        headers = shared_client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
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


def test_a_valid_trace_context_is_passed_on(settings):
    app = create_app(settings)

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, str | None]:
        return {"traceparent": request.state.traceparent}

    with TestClient(app) as client:
        for given, kept in ((TRACE, TRACE), (TRACE.upper(), None), ("00-0-0-0", None), ("", None)):
            answer = client.get("/seen", headers={"traceparent": given})
            assert answer.json()["traceparent"] == kept


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
