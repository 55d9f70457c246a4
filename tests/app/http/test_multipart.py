import httpx2
import pytest
from starlette.testclient import TestClient

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


@pytest.mark.fault(90)
@pytest.mark.parametrize(
    ("content_type", "body", "status", "slug"), FORMS.values(), ids=list(FORMS)
)
def test_fault_090_a_bad_form_is_refused(
    shared_client, shared_settings, content_type, body, status, slug
):
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
