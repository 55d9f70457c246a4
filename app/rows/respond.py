"""Responses of rows in the format and the content coding that the client prefers."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing

from starlette.responses import Response, StreamingResponse

from app.limits import in_thread
from app.rows.codecs import Codec
from app.rows.encode import Encoder
from app.rows.response_table import Chunk, ResponseTable
from tabular.writers import Encoded

Chunks = AsyncGenerator[Chunk, None]

ROWS_VARY = {"Vary": "Accept"}
"""Headers that a response of rows depends on, for caches."""

# What is encoded on the event loop; more takes milliseconds.
_QUICK_VALUES = 8_192
_QUICK_CELLS = 2_048
_QUICK_TEXT_BYTES = 131_072  # of names and levels, which are repeated in each row
_QUICK_COLUMNS = 64  # of a columnar format, whatever they hold
_PIECE_VALUES = 32_768  # become less than 1 MiB of text
_PIECE_BYTES = 2**20  # of texts of cells


async def respond_whole(
    codec: Codec,
    layout: ResponseTable,
    chunk: Chunk,
    *,
    headers: Mapping[str, str],
) -> Response:
    """Return the response of a single chunk of rows.

    Args:
        codec: Format of the response.
        layout: Head of the response.
        chunk: Chunk of all rows.
        headers: Further headers.
    """
    if _is_quick(codec, layout, chunk):
        body = _encoded(codec, layout, [chunk])
    else:
        # A response of several parts has all rows in one piece.
        pieces = [chunk] if len(layout.parts) > 1 else _pieces(chunk, layout)
        body = await in_thread(_encoded, codec, layout, pieces)
    return Response(body, media_type=codec.media_type, headers={**headers, **ROWS_VARY})


async def respond_streamed(
    codec: Codec,
    layout: ResponseTable,
    chunks: Chunks,
    *,
    headers: Mapping[str, str],
) -> Response:
    """Return a response that is encoded while it is sent; an error of the first rows is raised here.

    Args:
        codec: Format of the response.
        layout: Head of the response, of one part.
        chunks: Generator of the rows.
        headers: Further headers.
    """
    headers = {**headers, **ROWS_VARY}
    encoder = await in_thread(codec.encoder, layout)
    first = await anext(chunks, None)
    pieces = _streamed(encoder, first, chunks)
    return StreamingResponse(pieces, media_type=codec.media_type, headers=headers)


async def _streamed(
    encoder: Encoder, first: Chunk | None, chunks: Chunks
) -> AsyncGenerator[Encoded, None]:
    yield encoder.start()
    async with aclosing(chunks):
        chunk = first
        while chunk is not None:
            for piece in _pieces(chunk, encoder.layout):
                if made := await in_thread(encoder.rows, piece):
                    yield made
            chunk = await anext(chunks, None)
    yield await in_thread(encoder.end)


def _is_quick(codec: Codec, layout: ResponseTable, chunk: Chunk) -> bool:
    by_column = codec.columnar or layout.typed is not None
    if by_column and len(layout.columns) > _QUICK_COLUMNS:
        return False
    if not codec.text and not codec.columnar:
        return True  # of npy, nothing is made but the header
    most = _QUICK_VALUES if layout.typed is None else _QUICK_CELLS
    text_bytes = len(chunk.values) * layout.text_bytes
    return chunk.values.size <= most and text_bytes <= _QUICK_TEXT_BYTES


def _encoded(codec: Codec, layout: ResponseTable, pieces: Iterable[Chunk]) -> bytes:
    encoder = codec.encoder(layout)
    rows = [encoder.rows(piece) for piece in pieces]
    return b"".join([encoder.start(), *rows, encoder.end()])


def _pieces(chunk: Chunk, layout: ResponseTable) -> Iterator[Chunk]:
    """Yield the rows of a chunk, as many at a time as become a bounded text."""
    rows, width = chunk.values.shape
    step = max(1, min(_PIECE_VALUES // max(1, width), _PIECE_BYTES // max(1, layout.text_bytes)))
    for start in range(0, rows, step):
        yield chunk if rows <= step else chunk.part(start, start + step)
