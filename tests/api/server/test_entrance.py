import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from app.http.exchange import exchange_of
from app.main import create_app
from models_store.process.traces import TRACES
from tests.api.serving import registered
from tests.support.collectors import Collector

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
        assert len(headers.multi_items()) == len(dict(headers))  # none twice


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
        return {"traceparent": exchange_of(request).traceparent}

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


SERVER = 2
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
ROWS = {"rows": [[170, 70, 40], [180, 80, 50]]}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    TRACES.configure("api")
    yield collector
    TRACES.close()
    collector.close()


def test_a_request_and_its_work_are_spans_of_the_callers_trace(client, collector):
    state = client.app.state
    registered(state.database, state.blobs)
    score = "/v1/models/people/log_prob"
    assert client.post(score, json=ROWS, headers={"traceparent": CALLER}).status_code == 200
    assert client.post("/v1/models/people/sample", json={"n": 3}).status_code == 200
    assert client.get("/v1/jobs/none").status_code == 404
    assert client.get("/livez").status_code == 200
    body = {"model_name": "u", "target": {"potential": "U1"}}
    job = client.post("/v1/jobs/variational", json=body, headers={"traceparent": CALLER}).json()
    TRACES.close()

    names = [span.name for span in collector.spans]
    assert names.count("engine") == 2
    assert not [name for name in names if "livez" in name]
    [scored] = collector.named("POST /v1/models/{ref}/log_prob")
    assert (scored.service, scored.kind, scored.trace_id) == ("densityd-api", SERVER, TRACE_ID)
    assert scored.parent_id == "b7ad6b7169203331"
    assert scored.attributes["http.response.status_code"] == 200
    assert scored.attributes["http.route"] == "/v1/models/{ref}/log_prob"
    assert scored.attributes["densityd.project"] == "default"
    [engine] = [span for span in collector.named("engine") if span.parent_id == scored.span_id]
    assert engine.attributes["densityd.rows"] == 2
    assert 0 < engine.seconds <= scored.seconds
    [missing] = collector.named("GET /v1/jobs/{job_id}")
    assert missing.attributes["http.response.status_code"] == 404
    assert missing.trace_id != TRACE_ID
    [submitted] = collector.named("POST /v1/jobs/variational")
    stored = state.jobs.get("default", job["id"]).traceparent
    assert stored == f"00-{TRACE_ID}-{submitted.span_id}-01", "workers continue from this span"


def test_a_caller_who_does_not_sample_is_followed(client, collector):
    client.get("/v1/models", headers={"traceparent": CALLER[:-2] + "00"})
    TRACES.close()
    assert collector.spans == []


def test_without_a_collector_or_where_they_are_turned_off_there_are_none(monkeypatch):
    TRACES.configure("api")
    assert not TRACES.on
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x")
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            TRACES.configure("api")
            assert not TRACES.on


def test_a_collector_that_does_not_answer_keeps_no_process_from_ending(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
        TRACES.configure("api")
        with TRACES.span("a"):
            pass
        TRACES.close()
        # The exporter still waits.
        assert "last-spans" in {thread.name for thread in threading.enumerate()}
