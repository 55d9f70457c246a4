"""Log lines: requests are logged as all else is, whoever listens."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest

from models_store.process.logs import (
    REQUEST_ID,
    TRACEPARENT,
    AccessLog,
    JsonFormatter,
    JsonHandler,
)

LOGGER = logging.getLogger("tests.access")
FIELDS = {"key_id": 'oidc:"\u00e9"', "project": "p"}
MESSAGE = 'POST /v1/models/%d "\u2028" answered 200 in 0.0001 s'


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[JsonHandler]:
    """The only handler of a process, which writes to a text."""
    handler = JsonHandler("api")
    handler.setStream(io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(LOGGER, "level", logging.INFO)
    yield handler
    handler.close()


def write(level: int = logging.INFO, *, wait: bool = True) -> None:
    async def request() -> None:
        REQUEST_ID.set("abc")
        TRACEPARENT.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        AccessLog(LOGGER).write(level, MESSAGE, FIELDS)
        if wait:
            await asyncio.sleep(0)

    asyncio.run(request())


def lines(handler: JsonHandler) -> list[str]:
    text: str = handler.stream.getvalue()
    return text.splitlines()


def test_a_request_has_the_line_that_a_record_would_have(handler):
    write()
    [line] = lines(handler)
    fields = json.loads(line)
    record = logging.makeLogRecord(
        {"name": LOGGER.name, "levelname": "INFO", "msg": "%s", "args": (MESSAGE,), **FIELDS}
    )
    expected = json.loads(JsonFormatter("api").format(record))
    times = fields.pop("time"), expected.pop("time")
    assert [len(time) for time in times] == [24, 24]
    trace = {name: fields.pop(name) for name in ("request_id", "trace_id", "span_id")}
    assert trace == {
        "request_id": "abc",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
    }
    assert fields == expected
    assert line.isascii()


def test_lines_that_wait_come_before_a_later_record_and_at_the_end(handler):
    write(wait=False)
    handler.emit(logging.makeLogRecord({"msg": "later"}))
    write(wait=False)
    handler.flush()
    assert [json.loads(line)["message"] for line in lines(handler)] == [MESSAGE, "later", MESSAGE]


def test_a_level_that_is_off_has_no_line(handler):
    write(logging.DEBUG)
    assert lines(handler) == []


def test_whoever_else_listens_gets_records(handler, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler, caplog.handler])
    write()
    assert [record.getMessage() for record in caplog.records] == [MESSAGE]
    assert caplog.records[0].__dict__["project"] == "p"
    assert len(lines(handler)) == 1
