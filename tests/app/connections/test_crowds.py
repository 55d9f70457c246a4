"""A real server with small limits: what one caller holds open is in nobody else's way."""

import json
import shutil
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import httpx2
import pytest

from app.settings import ApiSettings
from models_store.database.database import Database
from models_store.files.local_blobs import LocalBlobs
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Keys, Scope
from tests.app.conftest import served
from tests.app.serving import registered
from tests.models_store.makers import LEASE_S, submitted
from tests.waiting import wait_until

OPEN_REQUESTS, STREAMS, CONNECTIONS = 4, 2, 24
pytestmark = pytest.mark.timeout(900)
ROW = b'{"rows": [[170.0, 70.0, 40.0]]}'
WITHIN_S = 120.0
ANSWER_S = 300.0  # of a first score, whose kernels may have to be compiled
IN_FLIGHT = "densityd_http_requests_in_flight "


class Crowd:
    """The server, keys of two projects, and a job of the first that runs."""

    def __init__(self, url, database, blobs, log):
        self.url = url
        self.log = log
        host, port = url.removeprefix("http://").split(":")
        self.address = host, int(port)
        self.database = database
        self.keys = Keys(database)
        self.jobs, self.work = Jobs(database), JobWork(database)
        for project in ("many", "few"):
            registered(database, blobs, project=project)
        submitted(self.jobs, project="many", model_name="other")
        self.job = self.work.claim("tester", lease_s=LEASE_S)
        self.admin = self.keys.create("monitoring", Scope.ADMIN).token
        self.few = self.keys.create("few", Scope.WRITE).token

    def many(self, **options):
        """A new key of the project that holds so much open."""
        return self.keys.create("many", Scope.WRITE, **options)

    def client(self, token):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=ANSWER_S, verify=False)

    def ask(self, method, path, token=None, **options):
        with self.client(token) as client:
            return client.request(method, path, **options)

    def score(self, token):
        headers = {"Content-Type": "application/json"}
        return self.ask("POST", "/v1/models/people/log_prob", token, content=ROW, headers=headers)

    def begin(self, token, *lines):
        """A connection whose request's body does not come."""
        connection = socket.create_connection(self.address, timeout=120)
        always = ("Host: localhost", f"Authorization: Bearer {token}", "Content-Type: text/csv")
        head = ("POST /v1/datasets HTTP/1.1", *always, "Content-Length: 100000", *lines)
        connection.sendall("\r\n".join([*head, "", "a,b\n1,2\n" * (not lines)]).encode())
        return connection

    def hold(self, token):
        """The same of a request that was admitted: its body is waited for."""
        connection = self.begin(token, "Expect: 100-continue")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        return connection

    def wait_for_open(self, number):
        """Wait until so many requests are being served."""

        def are_open():
            text = self.ask("GET", "/metrics", self.admin).text
            [line] = [line for line in text.splitlines() if line.startswith(IN_FLIGHT)]
            return float(line.split()[1]) == number + 1

        wait_until(are_open, f"there are not {number} requests open")

    def is_refused(self, token):
        return self.ask("GET", "/v1/datasets", token).status_code == 429


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("crowd")
    shutil.copy(migrated_database, folder)
    settings = ApiSettings(data_dir=folder)
    limits = {
        "DENSITYD_MAX_OPEN_REQUESTS": str(OPEN_REQUESTS),
        "DENSITYD_MAX_OPEN_STREAMS": str(STREAMS),
        "DENSITYD_MAX_CONNECTIONS": str(CONNECTIONS),
        "DENSITYD_MAX_PARSERS": "1",
        "DENSITYD_BODY_TIMEOUT_S": "60",
        "DENSITYD_HEADER_TIMEOUT_S": "60",
    }
    database = Database(settings.resolved_database_url)
    with served(folder, **limits) as url:
        crowd = Crowd(url, database, LocalBlobs(settings.blob_root), folder / "log")
        assert crowd.score(crowd.few).status_code == 200
        yield crowd
    database.dispose()


def events_of(crowd, token):
    """A stream that is open, and its lines."""
    stack = ExitStack()
    client = stack.enter_context(crowd.client(token))
    response = stack.enter_context(client.stream("GET", f"/v1/jobs/{crowd.job.id}/events"))
    return stack, response, response.iter_lines()


@contextmanager
def closing(connections):
    try:
        yield
    finally:
        for connection in connections:
            connection.close()


def test_a_key_has_a_bounded_number_of_requests_open(crowd):
    token = crowd.many().token
    slow = [crowd.hold(token) for _ in range(OPEN_REQUESTS)]
    with closing(slow):
        refused = crowd.ask("GET", "/v1/datasets", token)
        assert refused.json()["type"] == "/problems/limit-open-requests"
        assert refused.json()["limit"] == OPEN_REQUESTS
        assert int(refused.headers["retry-after"]) > 0
        assert crowd.score(crowd.few).status_code == 200
        assert crowd.score(crowd.many().token).status_code == 200
        assert crowd.ask("GET", "/livez").status_code == 200
    wait_until(lambda: not crowd.is_refused(token), "what was closed still counts")


def test_the_keys_of_a_project_are_bounded_together(crowd):
    tokens = [crowd.many().token for _ in range(3)]
    slow = [crowd.hold(token) for token in tokens[:2] for _ in range(OPEN_REQUESTS)]
    with closing(slow):
        refused = crowd.ask("GET", "/v1/jobs", tokens[2])
        assert refused.status_code == 429
        assert "project" in refused.json()["detail"]
        assert crowd.score(crowd.few).status_code == 200


def test_a_key_has_a_bounded_number_of_streams(crowd):
    token = crowd.many(rate=1000).token
    streams = [events_of(crowd, token) for _ in range(STREAMS)]
    try:
        assert [response.status_code for _, response, _ in streams] == [200] * STREAMS
        refused = crowd.ask("GET", f"/v1/jobs/{crowd.job.id}/events", token)
        assert refused.status_code == 429
        assert refused.json()["type"] == "/problems/limit-open-requests"
        assert int(refused.headers["retry-after"]) > 0
        assert crowd.score(token).status_code == 200
    finally:
        for stack, _, _ in streams:
            stack.close()


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_stream_ends_with_its_key_and_says_so(crowd, how):
    key = crowd.many(expires_days=2 / 86_400 if how == "expired" else None)
    stack, response, lines = events_of(crowd, key.token)
    with stack:
        assert response.status_code == 200
        assert next(lines).startswith("retry")
        if how == "revoked":
            crowd.keys.revoke(key.key.id)
        rest = list(lines)  # until the server ends it
    at = rest.index("event: closed")
    content = json.loads(rest[at + 1].removeprefix("data: "))
    assert content["type"] == "/problems/unauthorized"
    assert "revoked" in content["detail"]
    assert not any(line.startswith("id: ") for line in rest[at:])
    assert crowd.ask("GET", f"/v1/jobs/{crowd.job.id}/events", key.token).status_code == 401


def test_long_answers_and_bodies_end_with_the_key_too(crowd):
    key = crowd.many()
    body = b'{"n": 100000000, "seed": 1}'
    head = (
        f"POST /v1/models/people/sample HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with (
        socket.create_connection(crowd.address, timeout=120) as answer,
        crowd.begin(key.token) as upload,
    ):
        answer.sendall(head.encode() + body)
        assert answer.recv(1000).startswith(b"HTTP/1.1 200")
        crowd.keys.revoke(key.key.id)
        received = b""
        deadline = time.monotonic() + WITHIN_S
        with suppress(ConnectionResetError):
            while chunk := answer.recv(2**20):
                received = (received + chunk)[-100:]
                assert time.monotonic() < deadline, "the answer continues"
        assert not received.endswith(b"0\r\n\r\n")  # what is cut off does not look whole
        upload.settimeout(0.2)
        told = b""
        while not told:
            assert time.monotonic() < deadline, "the upload continues"
            upload.sendall(b"3,4\n")
            try:
                told = upload.recv(1000)
            except TimeoutError:
                continue
        assert told.startswith(b"HTTP/1.1 401")


def test_nothing_arrives_after_the_end_of_a_key_however_slow_its_reader_is(crowd):
    """Drop what was written before and nobody has read, with the connection."""
    key = crowd.many()
    body = b'{"n": 100000000, "seed": 1}'
    head = (
        f"POST /v1/models/people/sample HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket() as answer:
        answer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        answer.settimeout(120)
        answer.connect(crowd.address)
        answer.sendall(head.encode() + body)
        assert answer.recv(1000).startswith(b"HTTP/1.1 200")
        crowd.keys.revoke(key.key.id)
        crowd.wait_for_open(0)
        size, was_reset = 0, False
        try:
            while chunk := answer.recv(2**20):
                size += len(chunk)
        except ConnectionResetError:
            was_reset = True
        assert was_reset
        assert size < 2**16
    answered = [line for line in crowd.log.read_text().splitlines() if "/sample" in line]
    assert "broke off its response: 401" in answered[-1]
    assert "ERROR" not in crowd.log.read_text()
    assert crowd.score(crowd.few).status_code == 200


def test_idle_connections_make_room_for_new_ones(crowd):
    idle = [socket.create_connection(crowd.address, timeout=120) for _ in range(CONNECTIONS + 4)]
    with closing(idle):
        for one in idle:
            one.send(b"G")  # the kernel keeps one that is silent to itself for a second
        assert crowd.ask("GET", "/livez").status_code == 200
        assert crowd.score(crowd.few).status_code == 200
        # The oldest ones were closed for that.
        idle[0].settimeout(WITHIN_S)
        assert idle[0].recv(1000) == b""


def test_who_asks_again_at_once_has_no_more_connections_than_others_leave(crowd):
    """Requests that are refused hold no place: those of others come first."""
    token = crowd.many().token
    slow = [crowd.hold(token) for _ in range(OPEN_REQUESTS)]
    with closing(slow):
        crowded = [crowd.begin(token) for _ in range(CONNECTIONS)]
        with closing(crowded):
            for _ in range(5):
                assert crowd.score(crowd.few).status_code == 200
            assert crowd.ask("GET", "/livez").status_code == 200
        assert all(connection.fileno() >= 0 for connection in slow)


def test_a_service_full_of_requests_still_says_that_it_lives(crowd):
    tokens = [
        crowd.keys.create(f"p{n // 2}", Scope.WRITE).token
        for n in range(CONNECTIONS // OPEN_REQUESTS)
    ]
    slow = [crowd.hold(token) for token in tokens for _ in range(OPEN_REQUESTS)]
    with closing(slow):
        refused = crowd.ask("GET", "/v1/datasets", crowd.few)
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/overloaded"
        assert crowd.ask("GET", "/livez").status_code == 200
        assert crowd.ask("GET", "/readyz").status_code == 200
    wait_until(
        lambda: crowd.ask("GET", "/v1/datasets", crowd.few).status_code == 200, "it stays full"
    )


def test_uploads_are_parsed_in_turn_by_project(crowd):
    """One parser: what the others have queued before waits for its turn."""
    done = []
    rows = "\n".join(f"{n}.5,{n * n % 977}.25" for n in range(40_000))

    def upload(project, token, table):
        headers = {"Content-Type": "text/csv"}
        response = crowd.ask("POST", "/v1/datasets", token, content=table, headers=headers)
        assert response.status_code == 201, response.text
        done.append(project)

    token = crowd.many().token
    large = f"a,b\n{rows}\n".encode()
    uploads = [
        threading.Thread(target=upload, args=("many", token, large)) for _ in range(OPEN_REQUESTS)
    ]
    for thread in uploads:
        thread.start()
    crowd.wait_for_open(OPEN_REQUESTS)
    upload("few", crowd.few, b"a,b\n1,2\n3,5\n4,9\n")
    for thread in uploads:
        thread.join(120)
    assert done.index("few") <= 2
    assert sorted(done) == ["few", *["many"] * OPEN_REQUESTS]


def test_uploads_whose_callers_left_are_not_parsed(crowd):
    rows = "\n".join(f"{n}.5,{n * n % 977}.25" for n in range(100_000))
    body = f"a,b\n{rows}\n".encode()  # too large for a short try
    token = crowd.keys.create("left", Scope.WRITE).token
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: text/csv\r\nContent-Length: {len(body)}\r\n\r\n"
    callers = [socket.create_connection(crowd.address, timeout=120) for _ in range(OPEN_REQUESTS)]
    for caller in callers:
        caller.sendall(head.encode() + body)
    for caller in callers:
        caller.close()
    crowd.wait_for_open(0)
    stored = crowd.ask("GET", "/v1/datasets", token).json()["items"]
    assert len(stored) < OPEN_REQUESTS - 1  # one was being parsed, and one more perhaps before


def test_pipelined_requests_are_served_in_turn_with_those_of_others(crowd):
    """Hundreds of requests at once on each connection, all of which are then reset."""
    token = crowd.many(rate=10_000).token
    head = f"HEAD /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    connections = [socket.create_connection(crowd.address, timeout=120) for _ in range(16)]
    for connection in connections:
        connection.sendall(head.encode() * 500)
    for _ in range(5):
        assert crowd.score(crowd.few).status_code == 200
        assert crowd.ask("GET", "/livez").status_code == 200
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    crowd.wait_for_open(0)
    assert "unexpected error" not in crowd.log.read_text()
