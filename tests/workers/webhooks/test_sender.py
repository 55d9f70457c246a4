"""Deliveries to real receivers: good ones, failing ones, slow ones, and those that must not be called."""

import base64
import hashlib
import hmac
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models_store.database.database import Database
from models_store.jobs.jobs import Jobs
from models_store.webhooks.deliveries import Deliveries, DueDelivery, Waiting
from models_store.webhooks.webhooks import Delivery, Webhooks
from tests.models_store.makers import PROJECT, submitted
from tests.waiting import wait_until
from workers.webhooks.posting import RefusedAddressError, post
from workers.webhooks.sender import Sender, _Turns


class Receiver:
    """A receiver that answers with a list of statuses, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.statuses.pop(0) if receiver.statuses[1:] else receiver.statuses[0]
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=b"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(500, 302, 204)
    yield receiver
    receiver.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """A receiver that accepts connections and says a byte now and then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def drip() -> Iterator[int]:
    """Return the port of a receiver that continues with its first record of TLS for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    # A handshake of 16 KiB, of which a byte comes now and then.
                    connection.sendall(b"\x16\x03\x03\x40\x00")
                    while True:
                        connection.sendall(b"\x02")
                        threading.Event().wait(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def endless_head() -> Iterator[str]:
    """A receiver whose 200 has a header that never ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.recv(2**16)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    while True:
                        connection.sendall(b"a")
                        threading.Event().wait(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def latest(webhooks: Webhooks, webhook_id: str) -> Delivery:
    return webhooks.deliveries(PROJECT, webhook_id, limit=1).items[0]


def test_a_failing_receiver_gets_the_event_in_the_end(
    database: Database, receiver: Receiver
) -> None:
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, receiver.url, events=["job.cancelled"])
    jobs = Jobs(database)
    job = submitted(jobs)
    jobs.cancel(PROJECT, job.id)
    sender = Sender(Deliveries(database, pauses_s=(0, 0, 0)), private=True)
    for status in (500, 302, 204):
        assert sender.send_due() == 1
        shown = latest(webhooks, webhook.id)
        assert shown.status == status
        assert shown.delivered == (status == 204)
    assert latest(webhooks, webhook.id).ended_at is not None
    assert sender.send_due() == 0

    assert len(receiver.requests) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    headers, body = receiver.requests[-1]
    assert webhook.secret is not None
    key = base64.b64decode(webhook.secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    told = json.loads(body)
    assert told["type"] == "job.cancelled"
    assert told["data"]["id"] == job.id


def test_a_receiver_that_refuses_at_once_is_not_tried_without_a_pause(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt writes to the database, for which others wait."""
    monkeypatch.setattr("workers.webhooks.sender._REST_S", 1e6)
    receiver.statuses = [500]
    webhooks, jobs = Webhooks(database), Jobs(database)
    webhook = webhooks.create(PROJECT, receiver.url, events=["job.cancelled"])
    for _ in range(5):
        jobs.cancel(PROJECT, submitted(jobs).id)
    sender = Sender(Deliveries(database, pauses_s=(0, 0, 0)), private=True)
    begun = [*sender._begin(), *sender._begin()]  # the first may have been refused by then
    assert begun

    def refused() -> int:
        shown = webhooks.deliveries(PROJECT, webhook.id, limit=5).items
        return sum(one.status == 500 for one in shown)

    wait_until(lambda: refused() == len(begun))
    assert sender._begin() == []
    sender.stop()
    for thread in begun:
        thread.join(60)
    assert not any(thread.is_alive() for thread in begun)
    assert len(receiver.requests) == len(begun)


def test_a_worker_whose_clock_is_wrong_signs_the_time_of_the_database(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, receiver.url, events=["job.cancelled"])
    webhooks.test(PROJECT, webhook.id)
    sender = Sender(Deliveries(database), private=True)
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    assert sender.send_due() == 1
    monkeypatch.undo()
    headers, _ = receiver.requests[0]
    assert abs(int(headers["webhook-timestamp"]) - real()) < 300


def test_what_cannot_be_reached_is_told(database: Database) -> None:
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, "http://127.0.0.1:1/", events=["job.failed"])
    webhooks.test(PROJECT, webhook.id)
    sender = Sender(Deliveries(database, pauses_s=(0,)), private=True)
    sender.send_due()
    assert "refused" in (latest(webhooks, webhook.id).error or "")


def test_a_receiver_that_hangs_up_is_not_called_a_host_that_does_not_exist(
    database: Database,
) -> None:
    webhooks = Webhooks(database)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        webhook = webhooks.create(PROJECT, url, events=["job.failed"])
        webhooks.test(PROJECT, webhook.id)

        def hang_up() -> None:
            caller, _ = server.accept()
            with caller:
                caller.recv(65_536)  # or what is left unread would reset the connection
                caller.shutdown(socket.SHUT_WR)
                while caller.recv(65_536):
                    pass

        threading.Thread(target=hang_up, daemon=True).start()
        assert Sender(Deliveries(database, pauses_s=(0,)), private=True).send_due() == 1
    assert latest(webhooks, webhook.id).error == "The receiver did not answer with HTTP."


def test_a_private_address_behind_a_name_is_not_called(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = Webhooks(database)
    port = receiver.server.server_port
    webhook = webhooks.create(PROJECT, f"https://rebinding.example:{port}/", events=["job.failed"])
    webhooks.test(PROJECT, webhook.id)
    asked = []

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        # A public address beside a private one, as a name under attack has.
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("93.184.215.14", port)), (*kind, ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    Sender(Deliveries(database, pauses_s=(0,)), private=False).send_due()
    assert asked == ["rebinding.example"]
    assert "not public" in (latest(webhooks, webhook.id).error or "")
    assert receiver.requests == []


def test_a_name_is_looked_up_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    answers = [real("127.0.0.1", receiver.server.server_port, type=socket.SOCK_STREAM)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())
    url = f"http://once.example:{receiver.server.server_port}/"
    assert post(url, b"{}", {}, private=True) == 500
    assert receiver.requests[0][0]["host"].startswith("once.example:")


def test_loopback_is_refused_by_default() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"):
        with pytest.raises((RefusedAddressError, OSError)):
            post(f"https://{host}:1/", b"", {}, private=False, timeout_s=1)


def test_a_receiver_that_says_nothing_is_left(silent: str) -> None:
    with pytest.raises(TimeoutError):
        post(silent, b"{}", {}, private=True, timeout_s=0.3)


def test_a_head_that_does_not_end_in_time_delivers_nothing(endless_head: str) -> None:
    with pytest.raises(TimeoutError):
        post(endless_head, b"{}", {}, private=True, timeout_s=0.4)


@pytest.mark.parametrize(
    ("interim", "outcome"), [(3, 204), (10_000, "the head of the response is too long")]
)
def test_a_receiver_that_says_to_continue_for_ever_is_left(
    interim: int, outcome: int | str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                received = b""
                while not received.endswith(b"{}"):
                    received += connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * interim)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        if isinstance(outcome, int):
            assert post(url, b"{}", {}, private=True) == outcome
        else:
            with pytest.raises(http.client.HTTPException, match=outcome):
                post(url, b"{}", {}, private=True)
        thread.join()


def test_the_response_after_early_hints_counts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                connection.sendall(2 * hints + b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert post(url, b"{}", {}, private=True) == 204
        thread.join()


def test_a_handshake_that_never_ends_is_ended(drip: int) -> None:
    with pytest.raises(TimeoutError):
        post(f"https://127.0.0.1:{drip}/", b"{}", {}, private=True, timeout_s=0.4)


def test_a_delivery_that_cannot_be_sent_has_an_outcome_and_stops_no_other(
    database: Database, receiver: Receiver
) -> None:
    webhooks = Webhooks(database)
    # As an earlier release accepted it.
    bad = webhooks.create(PROJECT, f"http://{'a' * 64}.example/", events=["job.failed"])
    worse = webhooks.create(PROJECT, "http://[v1.a]:80/", events=["job.failed"])
    good = webhooks.create("other", receiver.url, events=["job.failed"])
    for webhook in (bad, worse):
        webhooks.test(PROJECT, webhook.id)
    webhooks.test("other", good.id)
    sender = Sender(Deliveries(database, pauses_s=()), private=True)
    assert sender.send_due() == 3
    for webhook in (bad, worse):
        shown = latest(webhooks, webhook.id)
        assert shown.ended_at is not None
        assert shown.error is not None
    assert len(receiver.requests) == 1


def test_whatever_a_delivery_raises_is_its_outcome(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, "http://127.0.0.1:1/", events=["job.failed"])
    webhooks.test(PROJECT, webhook.id)

    def lookup(*_: Any, **__: Any) -> list[Any]:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    sender = Sender(Deliveries(database, pauses_s=()), private=True)
    assert sender.send_due() == 1
    assert latest(webhooks, webhook.id).ended_at is not None


def test_deliveries_for_which_no_thread_could_be_started_keep_no_place(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.statuses = [204]
    webhooks = Webhooks(database)
    made = [webhooks.create(PROJECT, receiver.url, events=["job.failed"]) for _ in range(2)]
    for webhook in made:
        webhooks.test(PROJECT, webhook.id)
    monkeypatch.setattr("workers.webhooks.sender._LEASE_S", 0.0)
    sender = Sender(Deliveries(database), private=True)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            assert sender._begin() == []
    monkeypatch.setattr("workers.webhooks.sender._LEASE_S", 60.0)
    assert sender.send_due() == 2
    sender.stop()
    assert len(receiver.requests) == 2
    assert all(latest(webhooks, webhook.id).delivered for webhook in made)


def test_a_worker_that_ends_does_not_wait_for_a_receiver(tmp_path: Path) -> None:
    """End a sender while its receiver says nothing, for which the attempt would wait an hour."""
    code = f"""
import socket, sys
from models_store.database.database import Database, migrate
from models_store.webhooks.deliveries import Deliveries
from models_store.webhooks.webhooks import Webhooks
from workers.webhooks import posting
from workers.webhooks.sender import Sender
posting.post.__kwdefaults__["timeout_s"] = 3600.0
migrate("sqlite:///{tmp_path}/rows.sqlite3")
database = Database("sqlite:///{tmp_path}/rows.sqlite3")
receiver = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{{receiver.getsockname()[1]}}/"
webhooks = Webhooks(database)
webhooks.test("default", webhooks.create("default", url, events=["job.failed"]).id)
sender = Sender(Deliveries(database), private=True)
sender.start()
connection, _ = receiver.accept()
sender.stop()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)  # noqa: S603 - our own code


def test_slow_receivers_of_a_project_keep_two_places_and_projects_take_turns() -> None:
    turns = _Turns()
    waiting = [
        Waiting(webhook * 10 + n, f"wh_{project}{webhook}", project)
        for project in ("many", "few")
        for webhook, n in ((i, 0) for i in range(20 if project == "many" else 1))
    ]
    chosen = turns.choose(waiting)
    assert [one.project for one in chosen] == ["many", "few", "many"]
    for one in chosen:
        turns.begin(a_due(one))
    assert turns.choose(waiting[:20]) == []
    for one in chosen:
        turns.end(a_due(one))
    # Those that were served wait for the others.
    again = turns.choose(waiting)
    assert not {one.webhook_id for one in again if one.project == "many"} & {
        one.webhook_id for one in chosen
    }


def a_due(one: Waiting) -> DueDelivery:
    return DueDelivery(
        id=f"msg_{one.position}",
        webhook_id=one.webhook_id,
        project=one.project,
        url="http://127.0.0.1:1/",
        secret="",
        event="webhook.test",
        data={},
        attempt=1,
        taken_at=datetime.now(UTC),
        created_at=datetime.now(UTC),
    )
