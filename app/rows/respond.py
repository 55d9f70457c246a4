"""Responses of rows in the format and the content coding that the client prefers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread, in_thread_alone, in_thread_of_cells
from app.http.accept import IDENTITY, best_coding, listed
from app.http.body_memory import STREAMS_PART, ProjectMemory, body_memory_of
from app.http.content_codings import CODINGS, Compressor
from app.http.streaming import StreamedResponse
from app.rows.codecs import Codec
from app.rows.encode import Encoder
from app.rows.response_table import Chunk, ResponseTable
from tabular.writers import Encoded

Chunks = Callable[[], AsyncGenerator[Chunk, None]]

ROWS_VARY = {"Vary": "Accept, Accept-Encoding"}
"""Headers that a response of rows depends on, for caches."""

_SMALL_VALUES = 32_768
_SMALL_CELLS = 2_048  # take longer than numbers
_SMALL_TEXT_BYTES = 131_072  # of names and levels, which are repeated in each row
_SMALL_COLUMNS = 64  # of a columnar format, whatever they hold
_PIECE_BYTES = 2**18  # of text that is made while the interpreter's lock is held
_WIDE_PIECE_BYTES = 2**20  # the same of many columns: one row of thousands takes as long as ten
_PIECE_VALUES = 32_768  # become less than 1 MiB of text
_PIECE_ROWS = 32  # fewer of thousands of columns take as long
_HELD_BYTES = 2**21  # of rows, their text and what is read ahead, while a caller reads slowly
_VALUE_BYTES = 32  # of a number, as it is and as text
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


def respond_streamed(  # noqa: PLR0913 - all of a response
    request: Request,
    codec: Codec,
    layout: ResponseTable,
    chunks: Chunks,
    *,
    headers: Mapping[str, str],
    filling: "asyncio.Task[None] | None" = None,
    held_bytes: int = 0,
    counted_bytes: int = 0,
) -> Response:
    """Return a response that is encoded while it is sent.

    Args:
        request: Request to respond to.
        codec: Format of the response.
        layout: Head of the response.
        chunks: Makes a generator of the rows, once for each pass of the format.
        headers: Further headers.
        filling: Task that reads the rest of the request's body, while it is not done.
        held_bytes: Bytes that the chunks hold beside the present one and the next, if they may be many.
        counted_bytes: Bytes that it has in the memory of bodies already, and so need not wait for.
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
        rows = Rows(layout, chunks, held_bytes)
        encoded = _encoded_aside(lambda: rows, codec, compressor, memory, counted_bytes)
    else:
        work = [_Work(codec, encoder, chunks, held_bytes)]
        encoded = _encoded(work, compressor, memory, counted_bytes)
    return StreamedResponse(encoded, media_type=codec.media_type, headers=headers, filling=filling)


@dataclass(frozen=True)
class Rows:
    """Rows of a response.

    Args:
        layout: Head of the response.
        chunks: Makes a generator of the rows, once for each pass of the format.
        held_bytes: Bytes that both hold while the response is sent, if they may be many.
    """

    layout: ResponseTable
    chunks: Chunks
    held_bytes: int = 0


def respond_opened(
    request: Request,
    codec: Codec,
    open_rows: Callable[[], Rows],
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return a response of rows that are opened in a thread, when it is the turn of the request in its project.

    What is opened counts as memory of streamed responses, and those who wait for room hold nothing.

    Args:
        request: Request to respond to.
        codec: Format of the response.
        open_rows: Function that opens the rows; an error of it is told as a problem.
        headers: Further headers.
    """
    coding = _coding(request, codec)
    headers = {**headers, **ROWS_VARY}
    compressor: Compressor | None = None
    if coding != IDENTITY:
        compressor = CODINGS[coding].compressor()
        headers["Content-Encoding"] = coding
    encoded = _encoded_aside(open_rows, codec, compressor, body_memory_of(request), 0)
    return StreamedResponse(encoded, media_type=codec.media_type, headers=headers)


@dataclass
class _Work:
    """Encoder of a response, the rows that it encodes, and the rest of the present chunk."""

    codec: Codec
    encoder: Encoder
    chunks: Chunks
    rows_bytes: int = 0
    pieces: Iterator[tuple[Chunk, bool]] | None = None

    def __post_init__(self) -> None:
        """Find how much memory it takes while its caller reads."""
        layout, encoder = self.encoder.layout, self.encoder
        row_bytes = _VALUE_BYTES * len(layout.columns) + 2 * encoder.row_bytes
        # The texts of cells that chunks bring are not known before.
        few = layout.rows * row_bytes if layout.schema is None else _HELD_BYTES
        self.held_bytes = self.rows_bytes + encoder.kept_bytes + min(few, _HELD_BYTES)

    def next_text(self) -> Encoded:
        """Return the text of the next piece of the chunk, which is freed with the last one."""
        assert self.pieces is not None  # noqa: S101  only called with some
        piece, is_last = next(self.pieces)
        if is_last:
            self.pieces = None
        return _rows(self.encoder, piece)


def _is_wide(codec: Codec, layout: ResponseTable) -> bool:
    """Return whether to make, to use and to free an encoder takes too long for the event loop."""
    by_column = codec.columnar or layout.typed is not None
    return by_column and len(layout.columns) > _SMALL_COLUMNS


def _coding(request: Request, codec: Codec) -> str:
    offered = _TEXT_CODINGS if codec.text else _BINARY_CODINGS
    return best_coding(listed(request.headers, "accept-encoding"), offered)


def _rows(encoder: Encoder, chunk: Chunk) -> Encoded:
    return encoder.rows(chunk) if len(chunk.values) else b""


def _pieces(chunk: Chunk, encoder: Encoder, *, text: bool) -> Iterator[tuple[Chunk, bool]]:
    """Yield the rows of a chunk, as many at a time as become a bounded text; True with the last ones."""
    rows = len(chunk.values)
    kept_bytes = 0 if chunk.cells is None or not rows else chunk.cells.nbytes // rows
    is_wide = len(encoder.layout.columns) > _SMALL_COLUMNS
    most_bytes = _WIDE_PIECE_BYTES if is_wide else _PIECE_BYTES
    step = max(1, most_bytes // max(1, encoder.row_bytes, kept_bytes))
    if text:
        step = min(step, max(_PIECE_ROWS, _PIECE_VALUES // max(1, chunk.values.shape[1])))
    if rows <= step:
        yield chunk, True
        return
    for start in range(0, rows, step):
        yield chunk.part(start, start + step), start + step >= rows


async def _encoded_aside(
    open_rows: Callable[[], Rows],
    codec: Codec,
    compressor: Compressor | None,
    memory: ProjectMemory,
    counted_bytes: int,
) -> AsyncGenerator[Encoded, None]:
    """Encode with what is made, and freed with all that it refers to, in a thread.

    It is made once the caller is the first one of the project that waits for room, unless the room is
    counted already: who holds much would wait for others who wait, too.
    """
    held = [open_rows]
    del open_rows
    work: list[_Work] = []

    def make() -> None:
        rows = held.pop()()
        work.append(_Work(codec, codec.encoder(rows.layout), rows.chunks, rows.held_bytes))

    async def made() -> int:
        await in_thread_alone(make)
        return work[0].held_bytes

    room = None
    try:
        if counted_bytes:
            await in_thread_alone(make)
        else:
            room = await memory.room(made, part=STREAMS_PART)
            counted_bytes = work[0].held_bytes
        async with aclosing(_encoded(work, compressor, memory, counted_bytes)) as pieces:
            async for piece in pieces:
                yield piece
    finally:
        await in_thread(work.clear)
        del room  # it was held until here


async def _encoded(
    held: list[_Work], compressor: Compressor | None, memory: ProjectMemory, counted_bytes: int
) -> AsyncGenerator[Encoded, None]:
    """Encode what a list holds, and nothing here: it is freed where the list is."""
    more = held[0].held_bytes - counted_bytes
    # Who holds much already would wait for others who wait, too.
    room = await memory.room(more, part=STREAMS_PART) if more > 0 else None
    encode = in_thread_of_cells if held[0].encoder.makes_objects else in_thread
    begun = False
    for number in range(held[0].encoder.passes):
        if number > 0:
            yield _packed(compressor, held[0].encoder.turn())
        async with aclosing(held[0].chunks()) as rows:
            async for chunk in rows:
                held[0].pieces = _pieces(chunk, held[0].encoder, text=held[0].codec.text)
                del chunk  # thousands of columns take long to free
                if not begun:  # an error of the first rows is still told as a problem
                    begun = True
                    yield await encode(lambda: _packed(compressor, held[0].encoder.start()))
                while held[0].pieces is not None:
                    # Also where nothing is made yet: the response then checks for a disconnect.
                    yield await encode(lambda: _packed(compressor, held[0].next_text()))
    if not begun:
        yield _packed(compressor, held[0].encoder.start())
    rest = held[0].encoder.end()
    while made := await encode(lambda: _packed(compressor, next(rest, b""))):
        yield made
    yield b"" if compressor is None else compressor.finish()
    del room  # it was held until here


def _packed(compressor: Compressor | None, made: Encoded) -> Encoded:
    return compressor.compress(made) if compressor is not None and made else made
