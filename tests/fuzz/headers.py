"""What stands in headers and queries."""

from app.http.accept import best_coding
from app.http.content_codings import CODINGS
from app.problems.problem import Problem
from app.rows.codecs import request_codec, response_codec
from models_store.errors import CursorError
from models_store.listings.paging import decode_cursor, encode_cursor

SEEDS = [
    b"text/csv; header=absent; charset=utf-8",
    b"application/json;q=0.5, text/*;q=0.1, */*;q=1e-3, application/x-npy",
    b"gzip;q=0.5, zstd, identity;q=0, *",
    encode_cursor("jobs", 12).encode(),
]
WORDS = [b"q=", b";", b",", b"*/*", b"charset*=", b"utf-8''", b'="', b"=?utf-8?q?"]


def check_headers(data: bytes) -> None:
    """Each reader takes the text as its own, or says that it is none."""
    text = data.decode("latin-1")  # as servers hand headers over
    for read in (request_codec, response_codec):
        try:
            read(text)
        except Problem as problem:
            assert problem.type.slug in {"media-type", "not-acceptable"}  # noqa: PT017
    assert best_coding(text, ("identity", *CODINGS)) in {"identity", *CODINGS}
    try:
        position = decode_cursor("jobs", text)
    except CursorError:
        return
    assert encode_cursor("jobs", position) == text
