"""Servers of object storage that answer oddly."""

import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models_store.errors import BlobDiskError
from models_store.files.object_blobs import ObjectBlobs
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
def blobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectBlobs:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    endpoint = f"http://127.0.0.1:{server.server_port}"
    address = StoreAddress(
        url="s3://b/p", endpoint=endpoint, cache_dir=str(tmp_path), cache_bytes=2**20
    )
    return ObjectBlobs(address)


def listing(*keys: str, more: str = "") -> bytes:
    return _LIST.format(more, "".join(map(_ITEM.format, keys))).encode()


def test_what_is_listed_beside_what_was_asked_for_is_not_deleted(
    server: Server, blobs: ObjectBlobs
) -> None:
    keys = ["jobs/job_1/a.bin", "jobs/job_10/a.bin", "models/m/a.bin"]
    server.answer = lambda handler: handler.say(
        listing(*keys) if handler.command == "GET" else _DELETED
    )
    assert blobs.keys("jobs/job_1") == keys[:1]
    blobs.delete("jobs/job_1")
    deleted = "".join(server.bodies)
    assert [key for key in keys if f"<Key>p/{key}</Key>" in deleted] == keys[:1]


def test_a_list_that_begins_again_is_not_read_for_ever(server: Server, blobs: ObjectBlobs) -> None:
    keys = [f"datasets/{number}/a" for number in range(1000)]
    server.answer = lambda handler: handler.say(listing(*keys, more=_MORE))
    with pytest.raises(BlobDiskError, match="without an end"):
        blobs.keys("datasets")


def test_a_small_object_that_is_large_is_not_read_whole(server: Server, blobs: ObjectBlobs) -> None:
    server.answer = lambda handler: handler.say(bytes(5 * 2**20))
    with pytest.raises(BlobDiskError, match="larger"):
        blobs.identity()


def test_more_than_was_asked_for_is_not_passed_on(server: Server, blobs: ObjectBlobs) -> None:
    server.answer = lambda handler: handler.say(
        bytes(20), HTTPStatus.PARTIAL_CONTENT, Content_Range="bytes 0-9/10"
    )
    with pytest.raises(BlobDiskError, match="asked for"):
        list(blobs.stream("results/job_1/a.csv", 0, 10))


def test_a_redirect_is_not_told_as_silence(server: Server, blobs: ObjectBlobs) -> None:
    server.answer = lambda handler: handler.say(b"", HTTPStatus.MOVED_PERMANENTLY)
    with pytest.raises(BlobDiskError, match="redirect"):
        blobs.size("datasets/ds_1/a")
