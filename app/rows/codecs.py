"""Formats of rows: how bodies are read and responses written, and which format the headers of a request name.

A new format is a member of `TableFormat` with its media type, a reader in `tabular/readers`, and one
entry here.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from functools import partial

from starlette.responses import Response, StreamingResponse

from app.http.accept import best_media_type
from app.http.exchange import Answer, Headers
from app.http.json_body import MAX_CONTENT_TYPE
from app.limits import Threads, in_thread, owner_here
from app.problems.problem import Problem
from app.rows.decode import Decoded, RowsBody
from app.rows.encode import (
    Chunk,
    Encoder,
    JsonEncoder,
    NdjsonEncoder,
    ResponseTable,
    TableEncoder,
)
from app.settings import ApiSettings
from tabular.formats import MEDIA_TYPES, TableFormat
from tabular.writers import ArrowTable, CsvTable, Encoded, NpyTable, ParquetTable

ROWS_VARY = ((b"vary", b"Accept"),)
"""Headers that a response of rows depends on, for caches."""

Chunks = AsyncGenerator[Chunk, None]

QUICK_COLUMNS = 64  # of types, or of a format of columns: each takes time of its own
_QUICK_TYPED = 4  # times that a cell with a type takes longer than a number
_PIECE_VALUES = 32_768  # become less than 1 MiB of text


@dataclass(frozen=True)
class Codec:
    """A format.

    Args:
        encoder: Constructor of the encoder of a response.
        text: True for text, which compresses well; floats do not.
        quick_bytes: Most bytes of a body that is decoded on the event loop.
        quick_values: Most values of a response that is encoded there.
    """

    format: TableFormat
    encoder: Callable[[ResponseTable], Encoder]
    text: bool = False
    quick_bytes: int = 0
    quick_values: int = 32_768

    @property
    def media_type(self) -> str:
        """Media type in `Content-Type` and `Accept`."""
        return _MEDIA_TYPES[self.format]

    def max_bytes(self, settings: ApiSettings) -> int:
        """Return the largest size of a body of rows; documents of JSON become many objects at once."""
        if self.format is TableFormat.JSON:
            return min(settings.max_json_bytes, settings.max_body_bytes)
        return settings.max_body_bytes

    async def read(self, body: RowsBody, parsers: Threads) -> Decoded:
        """Return the rows of a body.

        Args:
            parsers: Threads that wait for processes that read files.

        Raises:
            Problem: Saying what is wrong, and where.
        """
        if len(body.content) <= self.quick_bytes and body.shape.types_width <= QUICK_COLUMNS:
            return body.read()
        if self.format in (TableFormat.ARROW, TableFormat.PARQUET):
            return await parsers.run(owner_here(), body.read)
        return await in_thread(body.read)

    async def respond(self, layout: ResponseTable, chunk: Chunk, *, headers: Headers) -> Answer:
        """Return the response of a single chunk of rows, which is encoded in a thread if that takes time.

        Args:
            layout: Head of the response.
        """
        values = chunk.values.size * (1 if layout.typed is None else _QUICK_TYPED)
        if values <= self.quick_values and len(layout.columns) <= QUICK_COLUMNS:
            return self.answer(layout, chunk, headers=headers)
        return await in_thread(self.answer, layout, chunk, headers=headers)

    def answer(self, layout: ResponseTable, chunk: Chunk, *, headers: Headers) -> Answer:
        """Return the response of a single chunk of rows."""
        return Answer(self.encode(layout, chunk), media_type=self.media_type, headers=headers)

    def encode(self, layout: ResponseTable, chunk: Chunk) -> bytes:
        """Return the body of a response of a single chunk of rows."""
        encoder = self.encoder(layout)
        # A JSON document of several parts has all rows in one piece.
        whole = len(layout.parts) > 1 or chunk.values.size <= _PIECE_VALUES
        pieces = [chunk] if whole else chunk.pieces(max(1, _PIECE_VALUES // len(layout.columns)))
        return b"".join([encoder.start(), *map(encoder.rows, pieces), encoder.end()])

    async def stream(self, layout: ResponseTable, chunks: Chunks, *, headers: Headers) -> Response:
        """Return a response of one part that is encoded while it is sent, unless the first chunk has all rows.

        Args:
            layout: Head of the response.
            chunks: Generator of the rows, whose first error is raised here.
        """
        first = await anext(chunks, None)
        if first is not None and len(first.values) == layout.rows:
            await chunks.aclose()
            return await self.respond(layout, first, headers=headers)
        encoded = self._streamed(layout, first, chunks)
        response = StreamingResponse(encoded, media_type=self.media_type)
        response.raw_headers += headers
        return response

    async def _streamed(
        self, layout: ResponseTable, chunk: Chunk | None, chunks: Chunks
    ) -> AsyncGenerator[Encoded, None]:
        encoder = self.encoder(layout)
        yield encoder.start()
        async with aclosing(chunks):
            while chunk is not None:
                if made := await in_thread(encoder.rows, chunk):
                    yield made
                chunk = await anext(chunks, None)
        yield await in_thread(encoder.end)


_MEDIA_TYPES = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}

CODECS = (
    Codec(TableFormat.JSON, JsonEncoder, text=True, quick_bytes=32 * 1024),
    Codec(TableFormat.NDJSON, NdjsonEncoder, text=True, quick_bytes=32 * 1024),
    Codec(TableFormat.CSV, partial(TableEncoder, CsvTable), text=True),
    Codec(TableFormat.NPY, partial(TableEncoder, NpyTable), quick_bytes=2**21, quick_values=2**18),
    Codec(TableFormat.ARROW, partial(TableEncoder, ArrowTable)),
    Codec(TableFormat.PARQUET, partial(TableEncoder, ParquetTable)),
)
"""Formats; the first is the default."""

BY_MEDIA_TYPE = {codec.media_type: codec for codec in CODECS}
_OFFERED = tuple(BY_MEDIA_TYPE)
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})
TEXT_AND_CURL = "with text in UTF-8; with curl: -H 'Content-Type: text/csv'"
"""End of the advice to a caller whose body has no Content-Type, or another one."""


def request_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]]:
    """Return the format of a body, and the parameters of its media type.

    Raises:
        Problem: `media-type` when there is none or it is not supported.
    """
    found = known_codec(content_type)
    if found is None:
        raise Problem(
            "media-type",
            f"The body's Content-Type must be one of {', '.join(_OFFERED)}, {TEXT_AND_CURL}.",
            members={"supported": list(_OFFERED)},
        )
    return found


def known_codec(content_type: str | None) -> tuple[Codec, Mapping[str, str]] | None:
    """Return what `request_codec` does; None for other types, too long ones, and text that is not in UTF-8."""
    codec = BY_MEDIA_TYPE.get(content_type or "")
    if codec is not None:  # most requests cost no parsing
        return codec, {}
    if len(content_type or "") > MAX_CONTENT_TYPE:
        return None
    message = Message()
    message["content-type"] = content_type or ""
    codec = BY_MEDIA_TYPE.get(message.get_content_type())
    if codec is None or message.get_content_charset("utf-8") not in _CHARSETS:
        return None
    parameters = message.get_params(failobj=[])[1:]
    # `name*=utf-8''value` (RFC 2231) comes in three parts.
    return codec, {
        name.lower(): collapse_rfc2231_value(value).lower() for name, value in parameters
    }


def response_codec(accept: str | None, *, default: str = _OFFERED[0]) -> Codec:
    """Return the format that an `Accept` header prefers.

    Args:
        accept: Header `Accept`; None accepts anything.
        default: Media type for clients that accept all alike.

    Raises:
        Problem: `not-acceptable` when it accepts no supported format.
    """
    if accept is None:
        return BY_MEDIA_TYPE[default]
    known = BY_MEDIA_TYPE.get(accept)
    if known is not None:  # costs no parsing
        return known
    offered = sorted(_OFFERED, key=lambda media_type: media_type != default)  # the default first
    return BY_MEDIA_TYPE[best_media_type(accept, offered)]
