"""Responses of rows in the format and the content coding that the client prefers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread
from app.http.accept import IDENTITY, best_coding, listed
from app.http.body_memory import ProjectMemory, body_memory_of
from app.http.content_codings import CODINGS, Compressor
from app.http.streaming import StreamedResponse
from app.rows.codecs import Codec
from app.rows.encode import Encoder
from app.rows.response_table import Chunk, ResponseTable
from tables.writers import Encoded

Chunks = Callable[[], AsyncGenerator[Chunk, None]]

ROWS_VARY = {"Vary": "Accept, Accept-Encoding"}
"""Headers that a response of rows depends on, for caches."""

_SMALL_VALUES = 32_768
_SMALL_CELLS = 2_048  # take longer than numbers
_SMALL_TEXT_BYTES = 131_072  # of names and levels, which are repeated in each row
_SMALL_COLUMNS = 64  # of a columnar format, whatever they hold
_PIECE_BYTES = 2**20  # of text that is made while the interpreter's lock is held
_MIN_PACKED_BYTES = 4096
_TEXT_CODINGS = (*CODINGS, IDENTITY)
_BINARY_CODINGS = (IDENTITY, *CODINGS)  # floats hardly get smaller, and take time to


def respond_whole(
    request: Request,
    codec: Codec,
    layout: ResponseTable,
    chunk: Chunk,
    *,
    headers: Mapping[str, str],
) -> Response:
    """Return the response of a single chunk of rows; a small one is encoded at once.

    Args:
        request: Request to respond to.
        codec: Format of the response.
        layout: Head of the response.
        chunk: Chunk of all rows.
        headers: Further headers.
    """
    encoder = codec.encoder(layout)
    text_bytes = layout.name_length + len(chunk.values) * encoder.row_bytes
    most_values = _SMALL_VALUES if layout.typed is None else _SMALL_CELLS
    is_wide = codec.columnar and len(layout.columns) > _SMALL_COLUMNS
    if is_wide or chunk.values.size > most_values or text_bytes > _SMALL_TEXT_BYTES:

        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield chunk

        return respond_streamed(request, codec, layout, chunks, headers=headers)
    encoded: list[Encoded] = [encoder.start(), _rows(encoder, chunk)]
    for _ in range(1, encoder.passes):
        encoded += [encoder.turn(), _rows(encoder, chunk)]
    body = b"".join([*encoded, *encoder.end()])
    headers = {**headers, **ROWS_VARY}
    coding = _coding(request, codec) if len(body) >= _MIN_PACKED_BYTES else IDENTITY
    if coding != IDENTITY:
        compressor = CODINGS[coding].compressor()
        body = compressor.compress(body) + compressor.finish()
        headers["Content-Encoding"] = coding
    return Response(body, media_type=codec.media_type, headers=headers)


def respond_streamed(
    request: Request,
    codec: Codec,
    layout: ResponseTable,
    chunks: Chunks,
    *,
    headers: Mapping[str, str],
    filling: "asyncio.Task[None] | None" = None,
) -> Response:
    """Return a response that is encoded while it is sent.

    Args:
        request: Request to respond to.
        codec: Format of the response.
        layout: Head of the response.
        chunks: Makes a generator of the rows, once for each pass of the format.
        headers: Further headers.
        filling: Task that reads the rest of the request's body, while it is not done.
    """
    coding = _coding(request, codec)
    headers = {**headers, **ROWS_VARY}
    encoder = codec.encoder(layout)
    compressor: Compressor | None = None
    if coding != IDENTITY:
        compressor = CODINGS[coding].compressor()
        headers["Content-Encoding"] = coding
    elif encoder.size is not None:
        headers["Content-Length"] = str(encoder.size)
    memory = body_memory_of(request) if encoder.kept_bytes > 0 else None
    encoded = _encoded(encoder, chunks, compressor, memory)
    return StreamedResponse(encoded, media_type=codec.media_type, headers=headers, filling=filling)


def _coding(request: Request, codec: Codec) -> str:
    offered = _TEXT_CODINGS if codec.text else _BINARY_CODINGS
    return best_coding(listed(request.headers, "accept-encoding"), offered)


def _rows(encoder: Encoder, chunk: Chunk) -> Encoded:
    return encoder.rows(chunk) if len(chunk.values) else b""


def _pieces(chunk: Chunk, encoder: Encoder) -> Iterator[Chunk]:
    """Yield the rows of a chunk, as many at a time as become a bounded text."""
    rows = len(chunk.values)
    kept_bytes = 0 if chunk.cells is None or not rows else chunk.cells.nbytes // rows
    step = max(1, _PIECE_BYTES // max(1, encoder.row_bytes + kept_bytes))
    if rows <= step:
        yield chunk
        return
    for start in range(0, rows, step):
        yield chunk.part(start, start + step)


async def _encoded(
    encoder: Encoder,
    chunks: Chunks,
    compressor: Compressor | None,
    memory: ProjectMemory | None,
) -> AsyncGenerator[Encoded, None]:
    def pack(make: Callable[[], Encoded]) -> Encoded:
        made = make()
        return compressor.compress(made) if compressor is not None and made else made

    kept = None if memory is None else await memory.room(encoder.kept_bytes)
    yield await in_thread(pack, encoder.start)
    for number in range(encoder.passes):
        if number > 0:
            yield pack(encoder.turn)
        async with aclosing(chunks()) as rows:
            async for chunk in rows:
                for piece in _pieces(chunk, encoder):
                    # Also where nothing is made yet: the response then checks for a disconnect.
                    yield await in_thread(pack, partial(_rows, encoder, piece))
    rest = encoder.end()
    while made := await in_thread(pack, partial(next, rest, b"")):
        yield made
    del kept  # it was held as long as rows were gathered
    if compressor is not None:
        yield compressor.finish()
