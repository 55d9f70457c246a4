"""What the client does when the service is busy, gone, or not itself; over real sockets."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from densityd.client import (
    ApiError,
    AsyncClient,
    Client,
    Retries,
    Settings,
    TimedOutError,
    TransportError,
    UnexpectedAnswerError,
    UnreachableError,
)
from densityd.client.call import Retry
from densityd.client.retrying import Attempts
from densityd.client.wire.files import DownloadProgress
from densityd.client.wire.problems import read_retry_after
from tests.client.scripted import (
    DATASET,
    DROP,
    JOB,
    VERSION,
    Reply,
    ScriptedServer,
    a_json,
    a_problem,
)
from tests.support.servers import free_port
from tests.support.waiting import Clock
from tests.tables.files import npy

QUICK = Retries(attempts=4, first_pause_s=0.001, longest_pause_s=2.0)
ROWS = np.zeros((6, 2))


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    with Client(Settings(scripted.url, retries=QUICK)) as client:
        yield client


def test_a_busy_service_is_asked_again_when_it_says(scripted, client):
    scripted.replies = [a_problem(503, Retry_After="1"), a_json(JOB)]
    began = time.monotonic()

    job = client.jobs.get("job_1")

    assert time.monotonic() - began >= 1
    assert job.ref == "m:1"
    assert job.model_dump()["newer"] is True
    first, second = scripted.asked
    assert first.headers["x-request-id"] == second.headers["x-request-id"]


def test_the_asynchronous_client_asks_again_too(scripted: ScriptedServer) -> None:
    scripted.replies = [a_problem(429, Retry_After="0"), DROP, a_json(DATASET)]

    async def walk() -> None:
        async with AsyncClient(Settings(scripted.url, retries=QUICK)) as client:
            assert (await client.datasets.get("ds_1")).rows == 6
            scripted.replies = [a_problem(503)]
            with pytest.raises(ApiError):
                await client.datasets.get("ds_1")

    asyncio.run(walk())
    assert len(scripted.asked) == 3 + QUICK.attempts


def test_a_job_is_started_once_however_often_it_is_asked_for(scripted, client):
    scripted.replies = [a_problem(503, Retry_After="0"), DROP, a_json(JOB, 202)]

    flow: Any = {"family": "maf", "hidden": np.array([8])}
    client.jobs.train("m", "ds_1", flow=flow)
    client.jobs.variational("m", {"potential": "U1"})

    *same, other = [asked.headers["idempotency-key"] for asked in scripted.asked]
    assert len(same) == 3
    assert len({*same}) == 1
    assert other not in same
    assert b'"hidden":[8]' in scripted.asked[0].body
    assert scripted.asked[-1].line == "POST /v1/jobs/variational"


@pytest.mark.parametrize("reply", [a_problem(503, Retry_After="0"), DROP])
def test_an_upload_is_sent_again_whole_and_with_the_same_key(scripted, client, reply):
    scripted.replies = [reply, a_json(DATASET, 201), a_json(DATASET, 201)]

    assert client.datasets.upload(ROWS).id == "ds_1"
    client.datasets.upload(ROWS)

    keys = [asked.headers["idempotency-key"] for asked in scripted.asked]
    assert keys[0] == keys[1] != keys[2]
    assert all(asked.body.endswith(ROWS.tobytes()) for asked in scripted.asked)


def test_an_import_is_sent_again_whole_and_with_the_same_key(scripted, client, tmp_path):
    scripted.replies = [DROP, a_json(VERSION, 201), a_json(VERSION, 201)]
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"weights")

    assert client.models.upload("m", file).version == 1
    client.models.upload("m", file)

    keys = [asked.headers["idempotency-key"] for asked in scripted.asked]
    assert keys[0] == keys[1] != keys[2]
    assert all(asked.body == b"weights" for asked in scripted.asked)


def test_an_upload_that_never_left_is_tried_again() -> None:
    port = free_port()
    started: list[ScriptedServer] = []

    def start() -> None:
        started.append(ScriptedServer(port))
        started[0].replies = [a_json(DATASET, 201)]

    threading.Timer(0.3, start).start()
    retries = Retries(attempts=1000, first_pause_s=0.1, longest_pause_s=0.1)
    with Client(Settings(f"http://127.0.0.1:{port}", retries=retries)) as client:
        assert client.datasets.upload(ROWS).id == "ds_1"

    assert len(started[0].asked) == 1
    assert started[0].asked[0].body.endswith(ROWS.tobytes())
    started[0].close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.jobs.resume("job_1"),
        lambda client: client.datasets.delete("ds_1"),
        lambda client: client.models.set_alias("m", "a", 1, etag='"1"'),
        lambda client: client.models.update("m", description="a", etag='"1"'),
    ],
    ids=["resume", "delete", "conditional move", "conditional change"],
)
def test_what_may_have_happened_is_not_asked_for_again_but_what_was_refused_is(
    scripted, client, ask
):
    scripted.replies = [a_problem(503, Retry_After="0"), DROP]

    with pytest.raises(TransportError):
        ask(client)

    assert len(scripted.asked) == 2


def test_a_service_that_wants_a_longer_pause_is_not_waited_for(scripted, client):
    scripted.replies = [a_problem(503, Retry_After="3", X_Request_ID="abc")]

    with pytest.raises(ApiError, match="busy") as caught:
        client.jobs.get("job_1")

    assert len(scripted.asked) == 1
    assert caught.value.request_id == "abc"
    assert caught.value.retry_after_s == 3


def test_nobody_there_is_told_apart() -> None:
    port = free_port()
    with (
        Client(Settings(f"http://127.0.0.1:{port}", retries=QUICK)) as client,
        pytest.raises(UnreachableError, match=f"127.0.0.1:{port}: cannot connect"),
    ):
        client.jobs.get("job_1")


def test_a_service_that_says_nothing_is_given_up(scripted, monkeypatch):
    silence = threading.Event()
    monkeypatch.setattr(scripted, "_answer", lambda _handler: silence.wait(10))
    settings = Settings(scripted.url, timeout_s=0.1, retries=Retries(attempts=1))

    with Client(settings) as client, pytest.raises(TimedOutError):
        client.jobs.get("job_1")

    silence.set()


@pytest.mark.parametrize(
    ("reply", "title", "detail"),
    [
        (
            Reply(502, b"<html>", {"Content-Type": "text/html"}),
            "Bad Gateway",
            "not from a densityd",
        ),
        (Reply(500, b"boom", {"Content-Type": "text/plain"}), "Internal Server Error", "boom"),
        (Reply(599, b"", {"Content-Type": "text/html"}), "Error", "not from a densityd"),
        (Reply(302, b"", {"Location": "/"}), "Found", "not from a densityd"),
    ],
)
def test_errors_that_others_give_are_told_too(scripted, client, reply, title, detail):
    scripted.replies = [reply]

    with pytest.raises(ApiError, match=detail) as caught:
        client.jobs.get("job_1")

    assert (caught.value.status, caught.value.title) == (reply.status, title)


@pytest.mark.parametrize("body", [b"<html>", b'{"id": 5}', b"[]"])
def test_answers_that_are_no_job_are_no_job(scripted, client, body):
    scripted.replies = [Reply(200, body)]

    with pytest.raises(UnexpectedAnswerError, match="is this a densityd"):
        client.jobs.get("job_1")


def test_all_requests_go_to_the_version_that_answered_the_first(scripted, client):
    body = npy([0.0, 1.0])
    scripted.replies = [Reply(200, body, {"X-Model": "m:3"}), Reply(200, body, {"X-Model": "m:3"})]

    assert len(client.log_prob("m", np.zeros((300_000, 1)))) == 4

    assert [asked.line for asked in scripted.asked] == [
        "POST /v1/models/m/log_prob",
        "POST /v1/models/m:3/log_prob",
    ]


def test_samples_that_are_cut_off_are_an_error_and_no_file(scripted, client, tmp_path):
    scripted.replies = [Reply(200, npy([[0.0]] * 8), cut=8)]

    with pytest.raises(TransportError, match="broke"):
        client.sample("m", 9)
    with pytest.raises(TransportError):
        client.models.download("m", 1, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []
    scripted.replies = [Reply(200, b"")]
    with pytest.raises(UnexpectedAnswerError, match="not an array"):
        client.sample("m", 9)
    with pytest.raises(UnexpectedAnswerError, match="Arrow"):
        client.sample("m", 9, to="table")


def test_lists_go_through_all_pages(scripted: ScriptedServer, client: Client) -> None:
    scripted.replies = [
        a_json({"items": [JOB, JOB], "next_cursor": "a b"}),
        a_json({"items": [JOB], "next_cursor": None}),
    ]

    assert len(list(client.jobs.list(state="succeeded"))) == 3
    assert [one.line for one in scripted.asked] == [
        "GET /v1/jobs?state=succeeded",
        "GET /v1/jobs?state=succeeded&cursor=a+b",
    ]


def test_events_go_on_after_a_broken_stream(scripted: ScriptedServer, client: Client) -> None:
    one = b'retry: 2000\n\nid: 1\nevent: state\ndata: {"state": "queued"}\n\n'
    one += b'event: closed\ndata: {"detail": "The API key was revoked"}\n\n'
    two = b': keep-alive\n\nid: 2\nevent: end\ndata: {"state": "cancelled"}\n\n'
    scripted.replies = [Reply(200, one, cut=99), Reply(200, two), Reply(204, b"")]

    events = list(client.jobs.events("job_1"))

    assert [(event.id, event.event, event.data["state"]) for event in events] == [
        (1, "state", "queued"),
        (2, "end", "cancelled"),
    ]
    afters = [asked.line.rpartition("=")[2] for asked in scripted.asked]
    assert afters == ["0", "1", "2"]


def test_a_wait_outlives_a_restart_of_the_service(scripted: ScriptedServer) -> None:
    scripted.replies = [a_json({**JOB, "state": "running"}), DROP, a_json(JOB)]
    settings = Settings(scripted.url, retries=Retries(attempts=1))

    with Client(settings) as client:
        assert client.jobs.wait("job_1").state == "succeeded"


def test_the_key_and_the_address_come_from_the_environment_or_the_caller(scripted, monkeypatch):
    monkeypatch.setenv("DENSITYD_URL", f"{scripted.url}/behind/")
    monkeypatch.setenv("DENSITYD_API_KEY", "from-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # of no use on this machine
    scripted.replies = [a_json(JOB)]

    with Client() as client:
        client.jobs.get("../job 1")
    with Client(Settings(scripted.url, "mine", request_ids=lambda: "r-1")) as client:
        client.jobs.get("job_1")

    first, second = scripted.asked
    assert first.line == "GET /behind/v1/jobs/..%2Fjob%201"
    assert first.headers["authorization"] == "Bearer from-environment"
    assert second.headers["authorization"] == "Bearer mine"
    assert second.headers["x-request-id"] == "r-1"
    assert "mine" not in repr(Settings(scripted.url, "mine"))
    for timeout_s, connect_s in ((60.0, 5.0), (1.0, 1.0)):  # who is not there is told soon
        timeout = Settings(scripted.url, timeout_s=timeout_s).http_options()["timeout"]
        assert (timeout.read, timeout.connect) == (timeout_s, connect_s)
    for host, proxied in (("localhost", False), ("example.com", True)):
        assert Settings(f"http://{host}").http_options()["trust_env"] == proxied


@pytest.mark.parametrize("url", ["ftp://example.com", "http://a:port"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="not a URL"):
        Client(url)


def test_pauses_double_and_are_bounded() -> None:
    retries = Retries(attempts=9, first_pause_s=1.0, longest_pause_s=5.0)
    error = UnreachableError("http://x", "gone")

    pauses = [retries.pause_s(error, sent=sent, retry=Retry.REFUSED) for sent in range(1, 10)]

    assert pauses.pop() is None
    for pause, longest in zip(pauses, [1, 2, 4, 5, 5, 5, 5, 5], strict=True):
        assert pause is not None
        assert longest / 2 <= pause <= longest


def test_pauses_outlast_a_restart_unless_the_caller_waits_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("densityd.client.retrying.time", clock)

    def waited_s(retries: Retries, *, longest_s: float) -> float:
        attempts, began = Attempts(retries, Retry.REFUSED, longest_s=longest_s), clock.now
        while (pause_s := attempts.pause_s(UnreachableError("http://x", "gone"))) is not None:
            clock.now += pause_s
        return clock.now - began

    assert 15 <= waited_s(Retries(), longest_s=60) <= 32
    assert waited_s(Retries(), longest_s=1) <= 1
    assert waited_s(Retries(longest_s=60), longest_s=1) >= 15
    assert 15 <= waited_s(Retries(attempts=100, longest_pause_s=1.0), longest_s=20) <= 20


def test_a_proxy_whose_service_starts_again_is_asked_again_where_that_is_safe(scripted, client):
    scripted.replies = [Reply(502, b"<html>"), a_json(JOB), Reply(504, b"<html>")]

    assert client.jobs.get("job_1").ref == "m:1"
    with pytest.raises(ApiError):
        client.jobs.resume("job_1")

    assert len(scripted.asked) == 3


def test_a_wait_that_is_over_asks_no_more(scripted: ScriptedServer, client: Client) -> None:
    scripted.replies = [DROP]

    with pytest.raises(TransportError):
        client.jobs.wait("job_1", timeout_s=0)

    assert len(scripted.asked) == 1


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    assert read_retry_after({"retry-after": "7"}) == 7
    for value in ("", "soon", "-1", "1.5"):
        assert read_retry_after({"retry-after": value}) is None
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert read_retry_after({"retry-after": soon}) == pytest.approx(3600, abs=600)
    no_zone = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)
    assert read_retry_after({"retry-after": format_datetime(no_zone)}) == pytest.approx(3600, abs=9)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert read_retry_after({"retry-after": past}) == 0


FILE = bytes(range(256)) * 40
RANGES = {"Accept-Ranges": "bytes", "ETag": '"abc"'}


def rest_of(start: int, *, cut: int = 0) -> Reply:
    there = FILE[start : len(FILE) - cut]
    headers = {**RANGES, "Content-Range": f"bytes {start}-{len(FILE) - 1}/{len(FILE)}"}
    return Reply(206, there, headers, cut=cut)


def test_a_download_that_breaks_off_goes_on_where_it_ended(scripted, client, tmp_path):
    scripted.replies = [
        Reply(200, FILE[:5000], RANGES, cut=len(FILE) - 5000),
        rest_of(5000, cut=240),
        DROP,
        rest_of(len(FILE) - 240),
    ]

    client.jobs.download("job_1", tmp_path / "result.npy")

    assert (tmp_path / "result.npy").read_bytes() == FILE
    asked = [(one.headers.get("range"), one.headers.get("if-range")) for one in scripted.asked]
    last = (f"bytes={len(FILE) - 240}-", '"abc"')
    assert asked == [(None, None), ("bytes=5000-", '"abc"'), last, last]


def test_a_download_may_break_off_any_number_of_times_while_more_of_it_comes() -> None:
    progress, error = DownloadProgress(QUICK), TransportError("http://x", "gone")
    progress.begin(200, RANGES)
    for mebibytes in range(1, 3 * QUICK.attempts):
        progress.add(2**20)
        assert progress.pause_s(error) is not None
        progress.begin(206, {"Content-Range": f"bytes {mebibytes * 2**20}-"})
    pauses = [progress.pause_s(error) for _ in range(QUICK.attempts)]
    assert pauses[0] is not None
    assert pauses[-1] is None


@pytest.mark.parametrize("answer", [Reply(200, FILE, RANGES), rest_of(49)], ids=["whole", "more"])
def test_a_file_that_is_another_by_now_is_no_rest(scripted, client, tmp_path, answer):
    scripted.replies = [Reply(200, FILE[:50], RANGES, cut=50), answer]

    with pytest.raises(UnexpectedAnswerError, match="changed during the download"):
        client.jobs.download("job_1", tmp_path / "result.npy")

    assert list(tmp_path.iterdir()) == []
