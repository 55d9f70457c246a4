import asyncio
import threading

import httpx2
import pytest
from fastapi import Request
from starlette.testclient import TestClient

from app.http import multipart
from app.http.multipart import file_part
from tests.app.conftest import TABLE, assert_nothing_was_left, assert_refused


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.csv"\r\n'
FORMS = {
    "no boundary": ("multipart/form-data", form(FILE + b"\r\n" + TABLE), 400, "multipart"),
    "long boundary": (f"multipart/form-data; boundary={'x' * 5000}", b"", 400, "multipart"),
    "empty": ("multipart/form-data; boundary=x", b"", 400, "multipart"),
    "no form": ("multipart/form-data; boundary=x", b"nothing", 400, "multipart"),
    "no file": (
        "multipart/form-data; boundary=x",
        form(b'Content-Disposition: form-data; name="table"\r\n\r\n' + TABLE),
        400,
        "multipart",
    ),
    "second part": (
        "multipart/form-data; boundary=x",
        form(FILE + b"\r\n" + TABLE, FILE + b"\r\n" + TABLE),
        400,
        "multipart",
    ),
    "100000 parts": (
        "multipart/form-data; boundary=x",
        form(*[b"\r\n"] * 100_000),
        400,
        "multipart",
    ),
    "no closing boundary": (
        "multipart/form-data; boundary=x",
        form(FILE + b"\r\n" + TABLE, end=b""),
        400,
        "multipart",
    ),
    "giant header": (
        "multipart/form-data; boundary=x",
        form(b"X: " + b"x" * 1_000_000 + b"\r\n" + FILE + b"\r\n" + TABLE),
        400,
        "multipart",
    ),
    "many headers": (
        "multipart/form-data; boundary=x",
        form(b"X: x\r\n" * 5000 + FILE + b"\r\n" + TABLE),
        400,
        "multipart",
    ),
    "unknown type": (
        "multipart/form-data; boundary=x",
        form(FILE.replace(b".csv", b".exe") + b"\r\n" + TABLE),
        415,
        "media-type",
    ),
    "empty file": ("multipart/form-data; boundary=x", form(FILE + b"\r\n"), 400, "dataset-empty"),
    "wrong magic": (
        "multipart/form-data; boundary=x",
        form(FILE.replace(b".csv", b".npy") + b"\r\n" + TABLE),
        415,
        "media-type",
    ),
}


def post(client: TestClient, content_type: str, body: bytes) -> httpx2.Response:
    return client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("content_type", "body", "status", "slug"), FORMS.values(), ids=list(FORMS)
)
def test_a_bad_form_is_refused(shared_client, shared_settings, content_type, body, status, slug):
    assert_refused(post(shared_client, content_type, body), status, slug)
    assert_nothing_was_left(shared_client, shared_settings)


def test_a_form_in_single_bytes_is_the_same_form(client):
    body = form(FILE + b"Content-Type: text/csv\r\n\r\n" + TABLE)
    response = client.post(
        "/v1/datasets",
        content=(body[i : i + 1] for i in range(len(body))),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert response.status_code == 201
    assert response.json()["rows"] == 4


SEMICOLONS = b'Content-Disposition: form-data; name="name"'


def test_a_header_with_many_semicolons_is_refused(client):
    fine = form(SEMICOLONS + b";" * 63 + b"\r\n\r\nn", FILE + b"\r\n" + TABLE)
    assert post(client, "multipart/form-data; boundary=x", fine).status_code == 201
    long = form(SEMICOLONS + b";" * 64 + b"\r\n\r\nn", FILE + b"\r\n" + TABLE)
    assert_refused(post(client, "multipart/form-data; boundary=x", long), 400, "multipart")


def test_headers_of_all_parts_are_bounded_together(client, settings):
    option = b'Content-Disposition: form-data; name="exclude"'
    parts = [option + b" " * 900 + b"\r\n\r\na"] * 600
    body = form(*parts, FILE + b"\r\n" + TABLE)
    assert_refused(post(client, "multipart/form-data; boundary=x", body), 400, "multipart")
    assert_nothing_was_left(client, settings)
    many = form(*[option + b"\r\n\r\nheight"] * 4_000, FILE + b"\r\n" + TABLE)
    response = post(client, "multipart/form-data; boundary=x", many)
    assert response.status_code == 201


def test_parts_before_the_file_are_read_in_a_thread(monkeypatch):
    threads = []
    feed = multipart._Form.feed

    def noted(self: multipart._Form, chunk: bytes) -> None:
        threads.append(threading.get_ident())
        feed(self, chunk)

    monkeypatch.setattr(multipart._Form, "feed", noted)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": form(FILE + b"\r\n" + TABLE), "more_body": False}

    async def main() -> bytes:
        headers = [(b"content-type", b"multipart/form-data; boundary=x")]
        part = await file_part(Request({"type": "http", "headers": headers}, receive))
        return b"".join([piece async for piece in part.chunks])

    assert asyncio.run(main()) == TABLE
    assert threads[0] != threading.get_ident()
