"""Responses of rows in the format and the content coding that the client prefers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
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
_PIECE_BYTES = 2**18  # of text that is made while the interpreter's lock is held
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

    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield chunk

    if _is_wide(codec, layout):
        return respond_streamed(request, codec, layout, chunks, headers=headers)
    encoder = codec.encoder(layout)
    text_bytes = layout.name_length + len(chunk.values) * encoder.row_bytes
    most_values = _SMALL_VALUES if layout.typed is None else _SMALL_CELLS
    if chunk.values.size > most_values or text_bytes > _SMALL_TEXT_BYTES:
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
    compressor: Compressor | None = None
    # The size of a wide response is not known before it is encoded.
    encoder = None if _is_wide(codec, layout) else codec.encoder(layout)
    if coding != IDENTITY:
        compressor = CODINGS[coding].compressor()
        headers["Content-Encoding"] = coding
    elif encoder is not None and encoder.size is not None:
        headers["Content-Length"] = str(encoder.size)
    memory = body_memory_of(request)
    if encoder is None:
        make = partial(_wide_work, codec, layout, chunks)
        encoded = _encoded_aside(make, compressor, memory)
    else:
        encoded = _encoded([_Work(encoder, chunks)], compressor, memory)
    return StreamedResponse(encoded, media_type=codec.media_type, headers=headers, filling=filling)


@dataclass
class _Work:
    """Encoder of a response, the rows that it encodes, and the texts of the present chunk."""

    encoder: Encoder
    chunks: Chunks
    texts: Iterator[Encoded] = field(default_factory=lambda: iter(()))


def _wide_work(codec: Codec, layout: ResponseTable, chunks: Chunks) -> _Work:
    return _Work(codec.encoder(layout), chunks)


def _is_wide(codec: Codec, layout: ResponseTable) -> bool:
    """Return whether to make, to use and to free an encoder takes too long for the event loop."""
    by_column = codec.columnar or layout.typed is not None
    return by_column and len(layout.columns) > _SMALL_COLUMNS


def _coding(request: Request, codec: Codec) -> str:
    offered = _TEXT_CODINGS if codec.text else _BINARY_CODINGS
    return best_coding(listed(request.headers, "accept-encoding"), offered)


def _rows(encoder: Encoder, chunk: Chunk) -> Encoded:
    return encoder.rows(chunk) if len(chunk.values) else b""


def _pieces(chunk: Chunk, row_bytes: int) -> Iterator[Chunk]:
    """Yield the rows of a chunk, as many at a time as become a bounded text."""
    rows = len(chunk.values)
    kept_bytes = 0 if chunk.cells is None or not rows else chunk.cells.nbytes // rows
    step = max(1, _PIECE_BYTES // max(1, row_bytes + kept_bytes))
    if rows <= step:
        yield chunk
        return
    for start in range(0, rows, step):
        yield chunk.part(start, start + step)


def _texts(
    encoder: Encoder, chunk: Chunk, pack: Callable[[Callable[[], Encoded]], Encoded]
) -> Iterator[Encoded]:
    """Yield the text of a chunk, which is freed where the end is reached."""
    for piece in _pieces(chunk, encoder.row_bytes):
        yield pack(partial(_rows, encoder, piece))


async def _encoded_aside(
    make: Callable[[], _Work], compressor: Compressor | None, memory: ProjectMemory
) -> AsyncGenerator[Encoded, None]:
    """Encode with what is made, and freed with all that it refers to, in a thread."""
    held = [make]
    del make
    work = await in_thread(lambda: [held.pop()()])
    try:
        async with aclosing(_encoded(work, compressor, memory)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        await in_thread(work.clear)


async def _encoded(
    held: list[_Work], compressor: Compressor | None, memory: ProjectMemory
) -> AsyncGenerator[Encoded, None]:
    """Encode what a list holds, and nothing here: it is freed where the list is."""

    def pack(make: Callable[[], Encoded]) -> Encoded:
        made = make()
        return compressor.compress(made) if compressor is not None and made else made

    kept_bytes = held[0].encoder.kept_bytes
    kept = await memory.room(kept_bytes) if kept_bytes > 0 else None
    yield await in_thread(pack, held[0].encoder.start)
    for number in range(held[0].encoder.passes):
        if number > 0:
            yield pack(held[0].encoder.turn)
        async with aclosing(held[0].chunks()) as rows:
            async for chunk in rows:
                held[0].texts = _texts(held[0].encoder, chunk, pack)
                del chunk  # thousands of columns take long to free
                # Also where nothing is made yet: the response then checks for a disconnect.
                while (made := await in_thread(next, held[0].texts, None)) is not None:
                    yield made
    rest = held[0].encoder.end()
    while made := await in_thread(pack, partial(next, rest, b"")):
        yield made
    del kept  # it was held as long as rows were gathered
    if compressor is not None:
        yield compressor.finish()
