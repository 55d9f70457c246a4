"""Servers of object storage that answer oddly."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models_store.errors import BlobCorruptError, BlobDiskError
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress

_ITEM = (
    "<Contents><Key>p/{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>a</ETag><Size>1</Size></Contents>"
)
_LIST = "<ListBucketResult><Name>b</Name><Prefix></Prefix>{}{}</ListBucketResult>"
_MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
_DELETED = b"<DeleteResult><Deleted><Key>p/jobs/job_1/a.bin</Key></Deleted></DeleteResult>"
_HEADERS = {"ETag": '"a"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}


class Server(ThreadingHTTPServer):
    """Server whose responses a test says, and the bodies that it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[str] = []
        self.answer: Callable[[_Handler], None] = lambda handler: handler.say(b"")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Answer as the test says."""
        length = int(self.headers.get("Content-Length", 0))
        self.server.bodies.append(self.rfile.read(length).decode())
        self.server.answer(self)

    do_HEAD = do_POST = do_GET  # noqa: N815 - names of the library

    def say(self, content: bytes, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        """Send a response."""
        self.send_response_only(status)
        for name, value in (_HEADERS | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def blobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{server.server_port}"
    address = StoreAddress(
        url="s3://b/p", endpoint=endpoint, cache_dir=str(tmp_path), cache_bytes=2**20
    )
    return Blobs(address)


def listing(*keys: str, more: str = "") -> bytes:
    return _LIST.format(more, "".join(map(_ITEM.format, keys))).encode()


def test_what_is_listed_beside_what_was_asked_for_is_not_deleted(
    server: Server, blobs: Blobs
) -> None:
    keys = ["jobs/job_1/a.bin", "jobs/job_10/a.bin", "models/m/a.bin"]
    server.answer = lambda handler: handler.say(
        listing(*keys) if handler.command == "GET" else _DELETED
    )
    assert blobs.keys("jobs/job_1") == keys[:1]
    blobs.delete("jobs/job_1")
    deleted = "".join(server.bodies)
    assert [key for key in keys if f"<Key>p/{key}</Key>" in deleted] == keys[:1]


def test_what_comes_with_another_hash_is_refused_and_not_kept(server: Server, blobs: Blobs) -> None:
    """A bucket may give another file's bytes, of the same length."""
    right, wrong = b"a" * 1000, b"b" * 1000
    key, sha256 = "models/m/1.safetensors", hashlib.sha256(right).hexdigest()

    def give(content: bytes) -> None:
        server.answer = lambda handler: (
            handler.say(content, HTTPStatus.PARTIAL_CONTENT, Content_Range="bytes 0-999/1000")
            if handler.command == "GET"
            else handler.say(content)
        )

    give(wrong)
    for use in (blobs.open, blobs.verify):
        with pytest.raises(BlobCorruptError):
            use(key, sha256)
    give(right)
    assert blobs.open(key, sha256).read_bytes() == right
    give(wrong)
    assert blobs.verify(key, sha256).read_bytes() == right, "there is a copy"
    blobs.open(key, sha256).write_bytes(wrong)
    with pytest.raises(BlobCorruptError):
        blobs.verify(key, sha256)
    give(right)
    assert blobs.verify(key, sha256).read_bytes() == right


@pytest.mark.parametrize(
    ("code", "told"),
    [("RequestTimeTooSkewed", "the clock of this machine is off"), ("AccessDenied", "credentials")],
)
def test_a_clock_that_is_off_is_not_told_as_wrong_credentials(
    server: Server, blobs: Blobs, code: str, told: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    server.answer = lambda handler: handler.say(body, HTTPStatus.FORBIDDEN)
    with pytest.raises(BlobDiskError, match=told):
        blobs.keys("datasets")


def test_a_redirect_is_not_told_as_silence(server: Server, blobs: Blobs) -> None:
    server.answer = lambda handler: handler.say(b"", HTTPStatus.MOVED_PERMANENTLY)
    with pytest.raises(BlobDiskError, match="another endpoint"):
        blobs.size("datasets/ds_1/a")
