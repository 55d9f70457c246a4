"""Spans of requests, as a collector receives them."""

import socket
import threading
from collections.abc import Iterator

import pytest

from models_store.process.traces import TRACES
from tests.api.serving import registered
from tests.support.collectors import Collector

SERVER = 2
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
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
    assert (scored.service, scored.kind, scored.trace_id) == ("densityd-api", SERVER, TRACE)
    assert scored.parent_id == "b7ad6b7169203331"
    assert scored.attributes["http.response.status_code"] == 200
    assert scored.attributes["http.route"] == "/v1/models/{ref}/log_prob"
    assert scored.attributes["densityd.project"] == "default"
    [engine] = [span for span in collector.named("engine") if span.parent_id == scored.span_id]
    assert engine.attributes["densityd.rows"] == 2
    assert 0 < engine.seconds <= scored.seconds
    [missing] = collector.named("GET /v1/jobs/{job_id}")
    assert missing.attributes["http.response.status_code"] == 404
    assert missing.trace_id != TRACE
    [submitted] = collector.named("POST /v1/jobs/variational")
    stored = state.jobs.get("default", job["id"]).traceparent
    assert stored == f"00-{TRACE}-{submitted.span_id}-01", "workers continue from this span"


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
