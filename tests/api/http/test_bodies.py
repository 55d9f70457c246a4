"""Bodies of requests: JSON that fits its schema or is told where it does not, and forms with a file."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx2
import numpy as np
import pytest
from backports import zstd
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope

from app.http.exchange import Exchange
from app.http.json_body import parse_json, read_body, validate_json
from app.http.packed_bodies import unpack
from app.limits import BodyMemory, Share
from app.problems.problem import Problem
from app.rows.decode import decode_document
from app.rows.shape import RowsShape
from app.scoring.samples import SampleRequest
from tests.api.conftest import CSV, TABLE, assert_nothing_was_left, assert_refused

TRAINING: dict[str, Any] = {"model_name": "m", "dataset_id": "ds_" + 32 * "0"}


def refusal(body: bytes | dict[str, Any], model: type = SampleRequest) -> Problem:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        validate_json(model, text)
    return caught.value


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "body-empty"),
        (b" \n", 400, "body-empty"),
        (b'{"n": 1,}', 400, "json-syntax"),
        (b'{"n": 1', 400, "json-syntax"),
        (b'{"n": "\\ud800"}', 400, "json-syntax"),
        (b'{"n": "\xff"}', 400, "json-syntax"),
        (b'\xef\xbb\xbf{"n": 1}', 400, "json-syntax"),
        ('{"n": 1}'.encode("utf-16"), 400, "json-syntax"),
        (b"[" * 100_000, 400, "json-syntax"),
        (b'{"n": NaN}', 400, "json-nonfinite"),
        (b'{"n": 1, "context": [[-Infinity]]}', 400, "json-nonfinite"),
        (b'{"n": 1, "context": [[1e400]]}', 422, "value-nonfinite"),
        (b'{"n": %s1%s}' % (b"[" * 900, b"]" * 900), 422, "validation"),
        (b"null", 422, "validation"),
        (b'{"n": 1.0}', 422, "validation"),
        (b'{"n": "5"}', 422, "validation"),
        (b'{"n": true}', 422, "validation"),
        (b'{"n": 0}', 422, "validation"),
        (b'{"n": 1, "sed": 3}', 422, "unknown-field"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_converted(body, status, slug):
    problem = refusal(body)
    assert (problem.status, problem.type.slug) == (status, slug)


def test_whole_numbers_and_surrogate_pairs_are_fine():
    assert validate_json(SampleRequest, b'{"n": 1, "context": [[2]]}').context == [[2.0]]
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_thousands_of_faults_are_told_in_a_few_words():
    assert "places" in refusal({**TRAINING, **dict.fromkeys(map(str, range(400)), 1)}).detail
    assert len(refusal({"n": 3, **dict.fromkeys(map(str, range(60)), 1)}).errors) == 60
    context = refusal(b'{"n": 3, "context": [%b]}' % b",".join([b'{"a":[]}'] * 20_000))
    assert len(context.errors) <= 10


def test_each_of_many_columns_may_have_options(client):
    names = [f"c{n}" for n in range(9_000)]
    body = {
        **TRAINING,
        "columns": names,
        "preprocessing": {"columns": {name: {"low": 0.125} for name in names}},
    }
    assert_refused(client.post("/v1/jobs/training", json=body), 404, "not-found")


@pytest.mark.parametrize("unit", [b"[]", b'"[",[]'])
def test_more_lists_than_a_table_can_have_are_refused_before_they_are_made(unit):
    body = b'{"rows":[%b]}' % b",".join([unit] * 300_000)
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match=r"lists and objects; at most \d+ are allowed"):
            decode_document(body, RowsShape(["a", "b", "c", "d"], max_rows=10**8))
        assert tracemalloc.get_traced_memory()[1] < 12 * len(body)
    finally:
        tracemalloc.stop()
    narrow = b'{"rows":[' + b",".join([b"[1]"] * 1000) + b'],"columns":["a"]}'
    assert decode_document(narrow, RowsShape(["a"], max_rows=1000)).shape == (1000, 1)


def post(
    client: TestClient, body: bytes | Iterable[bytes], media_type: str = "application/json"
) -> httpx2.Response:
    """Send a body to a route that takes any JSON up to 4 MiB."""
    return client.post("/v1/webhooks", content=body, headers={"Content-Type": media_type})


def test_other_media_types_than_json_are_refused(shared_client):
    for media_type in ("application/json; charset=utf-8", "Application/JSON"):
        assert_refused(post(shared_client, b"{}", media_type), 422, "validation")
    for media_type in ("text/plain", "", "application/x-www-form-urlencoded"):
        told = assert_refused(post(shared_client, b"{}", media_type), 415, "media-type")
        assert told["supported"] == ["application/json"]


def test_an_answer_is_small_and_repeats_no_value(shared_client):
    response = post(shared_client, b'{"url": "%s"}' % (b"x" * 90_000))
    assert_refused(response, 422, "validation")
    assert len(response.content) <= 8000
    assert b"xxx" not in response.content


def test_a_body_is_bounded_with_and_without_a_length(shared_client):
    body = b'{"url": "%s"}' % (b"x" * (4 << 20))
    assert_refused(post(shared_client, body), 413, "limit-body")
    assert_refused(post(shared_client, (body[i::2] for i in range(2))), 413, "limit-body")


def exchange_of(headers: dict[str, str], receive: Receive) -> Exchange:
    """A request with these headers, of an application without state."""

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope: dict[str, Any] = {
        "type": "http",
        "app": FastAPI(),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ],
    }
    return Exchange(scope, receive, send)


def test_the_pieces_of_a_body_count_together():
    async def main(limit: int) -> bytes:
        pieces = [b"abcd", b"efgh", b"ijkl"]

        async def receive() -> Message:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        with Share(BodyMemory(100), "p") as share:
            return await read_body(exchange_of({}, receive), limit=limit, share=share)

    assert asyncio.run(main(12)) == b"abcdefghijkl"
    with pytest.raises(Problem) as caught:
        asyncio.run(main(11))
    assert caught.value.type.slug == "limit-body"


def test_a_large_body_counts_while_it_is_in_memory(shared_client):
    memory = shared_client.app.state.body_memory
    with Share(memory, "default") as share:
        share.hold(shared_client.app.state.settings.max_bodies_bytes // 2)
        assert_refused(post(shared_client, b"{}".ljust(100_000)), 503, "overloaded")
        assert_refused(post(shared_client, b"{}"), 422, "validation")
    assert memory.held == 0


FORM = "multipart/form-data; boundary=x"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.csv"\r\n'
OPTION = b'Content-Disposition: form-data; name="exclude"\r\n\r\n'


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


def upload(
    client: TestClient, body: bytes | Iterable[bytes], media_type: str = FORM
) -> httpx2.Response:
    return client.post("/v1/datasets", content=body, headers={"Content-Type": media_type})


FORMS = {
    "no boundary": ("multipart/form-data", form(FILE + b"\r\n" + TABLE), 400, "multipart"),
    "empty": (FORM, b"", 400, "multipart"),
    "no form": (FORM, b"nothing", 400, "multipart"),
    "no file": (FORM, form(OPTION + TABLE), 400, "multipart"),
    "two files": (FORM, form(*[FILE + b"\r\n" + TABLE] * 2), 400, "multipart"),
    "many parts": (FORM, form(*[OPTION + b"a"] * 4097, FILE + b"\r\n" + TABLE), 400, "multipart"),
    "long option": (FORM, form(OPTION + b"a" * 50_000), 400, "multipart"),
    "cut off": (FORM, form(FILE + b"\r\n" + TABLE, end=b""), 400, "multipart"),
    "giant header": (FORM, form(b"X: " + b"x" * 10**6 + b"\r\n" + FILE), 400, "multipart"),
    "unknown type": (FORM, form(FILE.replace(b"csv", b"exe") + b"\r\n" + TABLE), 415, "media-type"),
    "wrong magic": (FORM, form(FILE.replace(b"csv", b"npy") + b"\r\n" + TABLE), 415, "media-type"),
    "empty file": (FORM, form(FILE + b"\r\n"), 400, "dataset-empty"),
}


# Starlette leaves the file of a form that is cut off to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("media_type", "body", "status", "slug"), FORMS.values(), ids=list(FORMS))
def test_a_bad_form_is_refused(shared_client, shared_settings, media_type, body, status, slug):
    assert_refused(upload(shared_client, body, media_type), status, slug)
    assert_nothing_was_left(shared_client, shared_settings)


def test_a_form_in_single_bytes_with_options_on_both_sides_is_one_table(client):
    exclude = b'Content-Disposition: form-data; name="exclude"\r\n\r\nweight'
    body = form(
        OPTION + b"height", FILE + b"Content-Type: text/csv\r\n\r\n" + TABLE + TABLE, exclude
    )
    response = upload(client, (body[i : i + 1] for i in range(len(body))))
    assert_refused(response, 422, "dataset-shape")  # no column is left: both options were read
    body = form(exclude, FILE + b"\r\n" + TABLE)
    assert upload(client, (body[i : i + 1] for i in range(len(body)))).json()["rows"] == 4


@pytest.mark.parametrize("media_type", [FORM, "application/x-npy"])
def test_a_file_beyond_the_limit_or_the_room_is_refused_as_it_comes(settings, client, media_type):
    table = np.zeros((200_000, 4)).tobytes()
    body = form(FILE.replace(b"csv", b"npy") + b"\r\n" + table) if media_type == FORM else table
    state = client.app.state
    for name, slug in (("max_upload_bytes", "limit-body"), ("max_project_bytes", "quota-storage")):
        limited = settings.model_copy(update={name: 100_000})
        client.app.state = type(state)(**{**vars(state), "settings": limited})
        response = upload(
            client, (body[i : i + 10_000] for i in range(0, len(body), 10_000)), media_type
        )
        assert response.json()["type"] == f"/problems/{slug}"
    client.app.state = state
    assert_nothing_was_left(client, settings)
    assert client.post("/v1/datasets", content=TABLE, headers=CSV).status_code == 201


CREATED = [f"created_at[{bound}]" for bound in ("gte", "gt", "lte", "lt")]


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "datasets", ["name_prefix", "sha256", "limit", "cursor", "tag", "order", *CREATED]),
        ("GET", "datasets/ds_00000000000000000000000000000000/rows", ["offset", "limit", "step"]),
        ("GET", "models/people", []),
        (
            "POST",
            "models/people/log_prob",
            ["space", "extra", "parts", "conditionals", "columns", "given"],
        ),
        ("POST", "models/people/sample", ["space"]),
    ],
)
def test_an_unknown_parameter_is_refused_with_the_known_ones(shared_client, method, path, known):
    response = shared_client.request(method, f"/v1/{path}", params={"Limit": 5})
    assert_refused(response, 422, "unknown-parameter")
    assert response.json()["errors"][0]["parameter"] == "Limit"
    assert response.json()["supported"] == known
    response = shared_client.request(method, f"/v1/{path}", params={"x" * 5000: 1, "y": 2})
    assert_refused(response, 422, "unknown-parameter")
    assert len(response.content) < 2000


LIMIT = 4_000_000


def read(pieces: Iterable[bytes], limit: int = LIMIT, **headers: str) -> tuple[bytes, Scope]:
    """The body that a route gets, and its scope."""
    return asyncio.run(_read(_messages(pieces), limit, headers))


async def _messages(pieces: Iterable[bytes]) -> AsyncIterator[Message]:
    for piece in pieces:
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


async def _read(
    messages: AsyncIterator[Message], limit: int, headers: dict[str, str]
) -> tuple[bytes, Scope]:
    body = bytearray()

    async def receive() -> Message:
        return await anext(messages)

    exchange = exchange_of({"transfer_encoding": "chunked"} | headers, receive)
    unpack(exchange, max_bytes=limit)
    more = True
    while more:
        message = await exchange.receive()
        assert message["type"] == "http.request"
        body.extend(message["body"])
        if len(body) > limit:  # as routes do
            raise Problem("limit-decoded-bytes" if exchange.is_packed else "limit-body")
        more = message["more_body"]
    return bytes(body), exchange.scope


def slug_of(pieces: Iterable[bytes], limit: int = LIMIT, **headers: str) -> str:
    with pytest.raises(Problem) as caught:
        read(pieces, limit, **headers)
    return caught.value.type.slug


def random_text(size: int) -> bytes:
    return np.random.default_rng(0).integers(65, 75, size, np.uint8).tobytes()


CHECKSUM = zstd.CompressionParameter.checksum_flag
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("coding", PACK)
def test_a_packed_body_is_unpacked_in_whatever_pieces_it_comes(coding):
    for size, step in ((0, 1), (1, 1), (500, 1), (300_000, 1000), (3_999_999, 10**9)):
        packed = PACK[coding](random_text(size))
        pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
        length = str(len(packed))
        body, scope = read(pieces, 4_000_000, content_encoding=coding, content_length=length)
        assert body == random_text(size)
        assert [name for name, _ in scope["headers"]] == [b"transfer-encoding"]


@pytest.mark.parametrize("coding", PACK)
def test_members_and_frames_may_follow_each_other(coding):
    packed = PACK[coding](b"a" * 1000) + PACK[coding](b"b")
    assert read([packed], content_encoding=f"x-{coding}")[0] == b"a" * 1000 + b"b"
    single = [packed[i : i + 1] for i in range(len(packed))]
    assert read(single, content_encoding=coding)[0] == b"a" * 1000 + b"b"
    assert slug_of([PACK[coding](random_text(1000))], 100, content_encoding=coding) == "limit-body"


def test_other_and_stacked_encodings_are_refused_and_none_by_another_name_is_accepted():
    for encoding in ("br", "gzip, gzip", "br, gzip", "deflate", "x-zstd, gzip", "nonsense"):
        assert slug_of([b""], content_encoding=encoding) == "content-encoding"
    assert read([b"ab", b"", b"cd"])[0] == b"abcd"
    for encoding in ("identity", "", "identity, identity"):
        assert read([b"ab"], content_encoding=encoding)[0] == b"ab"


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("zstd", b"no zstd at all"),
        ("zstd", zstd.compress(b"hello")[:-3]),
        ("zstd", zstd.compress(b"hello") + b"junk"),
        ("zstd", zstd.compress(b"a" * 10, options={CHECKSUM: 1})[:-1] + b"x"),
        ("zstd", gzip.compress(b"hello")),
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"hello")[:-3]),
        ("gzip", gzip.compress(b"hello")[:5]),
        ("gzip", zlib.compress(b"hello")),
        ("gzip", gzip.compress(b"a") + b"junk"),
    ],
    ids=range(10),
)
def test_corrupt_and_cut_data_is_refused(coding, packed):
    assert slug_of([packed], content_encoding=coding) == "content-decoding"


@pytest.mark.parametrize(
    ("coding", "bomb"),
    [("zstd", zstd.compress(bytes(1 << 28))), ("gzip", gzip.compress(bytes(1 << 26), 1))],
    ids=["zstd", "gzip"],
)
def test_a_bomb_is_stopped_early_by_its_size(coding, bomb):
    tracemalloc.start()
    try:
        assert slug_of([bomb], content_encoding=coding) == "limit-decoded-bytes"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_any_browser_takes_is_refused():
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    packed = compressor.compress(random_text(100_000)) + compressor.flush()
    assert slug_of([packed], content_encoding="zstd") == "content-decoding"
