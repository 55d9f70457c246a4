"""Deliveries to real receivers: good ones, failing ones, slow ones, and those that must not be called."""

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import WebhookDeliveryRow
from models_store.jobs.jobs import Jobs
from models_store.webhooks.deliveries import Deliveries
from models_store.webhooks.webhooks import Delivery, Webhooks
from tests.store.makers import PROJECT, submitted
from workers.webhooks import Sender


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
                self.send_response_only(103)
                self.end_headers()
                self.send_response(status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", "0")
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


@contextmanager
def serving(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Give each connection to a function, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """The queries are tried on both databases elsewhere."""
    database = Database(sqlite_url)
    yield database
    database.dispose()


def send_due(sender: Sender) -> int:
    begun = sender.send_due()
    for thread in begun:
        thread.join(60)
    return len(begun)


def latest(webhooks: Webhooks, webhook_id: str) -> Delivery:
    return webhooks.deliveries(PROJECT, webhook_id, limit=1).items[0]


def told_of(database: Database, url: str, *, private: bool = True, timeout_s: float = 5) -> str:
    """Return what the list of deliveries says of one attempt."""
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, url, events=["job.failed"])
    webhooks.test(PROJECT, webhook.id)
    deliveries = Deliveries(database, pauses_s=())
    assert send_due(Sender(deliveries, private=private, timeout_s=timeout_s)) == 1
    shown = latest(webhooks, webhook.id)
    assert shown.ended_at is not None
    assert not shown.delivered
    return shown.error or ""


def test_a_failing_receiver_gets_the_event_in_the_end(database, receiver):
    webhooks = Webhooks(database)
    webhook = webhooks.create(PROJECT, receiver.url, events=["job.cancelled"])
    jobs = Jobs(database)
    job = submitted(jobs)
    jobs.cancel(PROJECT, job.id)
    with database.write() as session:
        session.execute(update(WebhookDeliveryRow).values(created_at=db_now(-3600)))
    sender = Sender(Deliveries(database, pauses_s=(0, 0, 0)), private=True)
    for status in (500, 302, 204):
        assert send_due(sender) == 1
        shown = latest(webhooks, webhook.id)
        assert shown.status == status
        assert shown.delivered == (status == 204)
    assert latest(webhooks, webhook.id).ended_at is not None
    assert send_due(sender) == 0

    assert len(receiver.requests) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    headers, body = receiver.requests[-1]
    assert webhook.secret is not None
    key = base64.b64decode(webhook.secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    told = json.loads(body)
    since = datetime.fromisoformat(told["timestamp"]).timestamp()
    assert int(headers["webhook-timestamp"]) - since > 3500, (
        "of the attempt, or it would be too old"
    )
    assert told["type"] == "job.cancelled"
    assert told["data"]["id"] == job.id


def test_what_cannot_be_reached_is_told(database: Database) -> None:
    assert "refused" in told_of(database, "http://127.0.0.1:1/")


def test_a_delivery_that_cannot_be_sent_has_an_outcome(database: Database) -> None:
    for url in ("http://[v1.a]:80/", f"http://{'a' * 64}.example/"):
        assert told_of(database, url)


def endless(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"a" * 10_000)


NO_HTTP, LATE = "The receiver did not answer with HTTP.", "The receiver did not answer in time."


@pytest.mark.parametrize(
    ("answer", "scheme", "told"),
    [
        (lambda connection: connection.recv(65_536), "http", NO_HTTP),
        (lambda _: threading.Event().wait(5), "http", LATE),
        (lambda _: threading.Event().wait(5), "https", LATE),
        (endless, "http", NO_HTTP),
        (lambda connection: connection.sendall(b"HTTP/1.1 400\r\n\r\n"), "https", "TLS failed: "),
    ],
    ids=["hangs up", "says nothing", "no handshake", "a head without end", "no certificate"],
)
def test_a_receiver_that_does_not_answer_right_is_left_and_told(database, answer, scheme, told):
    timeout_s = 0.3 if told == LATE else 5
    with serving(answer) as port:
        found = told_of(database, f"{scheme}://127.0.0.1:{port}/", timeout_s=timeout_s)
    assert found.startswith(told)


@pytest.mark.parametrize("host", ["127.0.0.1", "rebinding.example"])
def test_a_private_address_is_not_called_whatever_its_name(database, receiver, monkeypatch, host):
    port = receiver.server.server_port
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    told = told_of(database, f"https://{host}:{port}/", private=False)
    assert told == "The host has an address that is not public."
    assert receiver.requests == []


def test_a_worker_that_ends_does_not_wait_for_a_receiver(tmp_path: Path) -> None:
    """End a sender while its receiver says nothing, for which the attempt would wait an hour."""
    code = f"""
import socket
from models_store.database.database import Database, migrate
from models_store.webhooks.deliveries import Deliveries
from models_store.webhooks.webhooks import Webhooks
from workers.webhooks import Sender
migrate("sqlite:///{tmp_path}/rows.sqlite3")
database = Database("sqlite:///{tmp_path}/rows.sqlite3")
receiver = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{{receiver.getsockname()[1]}}/"
webhooks = Webhooks(database)
webhooks.test("default", webhooks.create("default", url, events=["job.failed"]).id)
sender = Sender(Deliveries(database), private=True, timeout_s=3600.0)
sender.start()
connection, _ = receiver.accept()
sender.stop()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)  # noqa: S603 - our own code
