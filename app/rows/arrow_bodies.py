"""Arrow streams as bodies: scored while they come, if they are large and their batches are not."""

from collections.abc import AsyncGenerator, Iterator

from app.fairness.turns import in_thread
from app.http.body_memory import Share
from app.rows.body import Incoming, in_thread_if_large
from app.rows.decode import MAX_BATCH_BYTES, as_problem, parse_options, read_table, table_rows
from app.rows.shape import Floats
from tables.errors import TableError
from tables.open import open_arrow_bytes
from tables.readers.arrow import (
    END_BYTES,
    ArrowPieces,
    largest_unpacked,
    message_size,
    unpacked_bytes,
)
from tables.source import Columns

WHOLE_BYTES = 2 * 1024 * 1024
"""Smaller bodies are read in memory, and checked to the end before any row is computed."""


async def read_arrow(incoming: Incoming) -> AsyncGenerator[Floats, None]:
    """The rows of a body: of a small one from memory, of a large one as they come.

    Raises:
        Problem: saying what is wrong, and where.
    """
    with incoming.memory.share() as share:
        waiting = bytearray()
        async for piece in incoming.body:
            waiting += piece
            share.hold(len(waiting))
            if len(waiting) > WHOLE_BYTES:
                break
        else:
            async for rows in _small(bytes(waiting), incoming, share):
                yield rows
            return
        stream = _Stream(incoming, waiting, share)
        if stream.fits:
            async for rows in stream.rows():
                yield rows
        rest = b"" if stream.ended else stream.take_rest()
    if not stream.ended:
        async for rows in read_table(incoming, start=rest, before=stream.count):
            yield rows


async def _small(body: bytes, incoming: Incoming, share: Share) -> AsyncGenerator[Floats, None]:
    """The rows of a body that is in memory, unless it unpacks to too much for that."""
    unpacked = await in_thread_if_large(largest_unpacked, body)
    if unpacked > MAX_BATCH_BYTES:
        async for rows in read_table(incoming, start=body):
            yield rows
        return
    share.hold(len(body) + unpacked)
    with as_problem():
        table = await in_thread_if_large(open_arrow_bytes, body, parse_options(incoming))
    async for rows in table_rows(table, incoming):
        yield rows


class _Stream:
    """The part of a stream that is read without the disk.

    Attributes:
        count: rows read.
        ended: whether that was all of it.
    """

    def __init__(self, incoming: Incoming, waiting: bytearray, share: Share) -> None:
        self.count = 0
        self.ended = False
        self._incoming = incoming
        self._waiting = waiting
        self._share = share
        self._pieces = ArrowPieces(parse_options(incoming))
        self._order: list[int] | None = None
        self._unpacked = 0  # by the largest of the batches that have come

    @property
    def fits(self) -> bool:
        """Whether it may go on as it came; what is no stream is refused by who reads files."""
        try:
            size = message_size(self._waiting)
        except TableError:
            return False
        return size is None or size <= MAX_BATCH_BYTES

    def take_rest(self) -> bytes:
        """What is left of the bytes that came, as the start of a stream of its own."""
        rest = self._pieces.schema + self._waiting
        self._waiting.clear()
        return rest

    async def rows(self) -> AsyncGenerator[Floats, None]:
        """The rows up to the end, or to a message that is too large."""
        while True:
            with as_problem():
                messages, self.ended = await in_thread(self._take)
            self._share.hold(len(self._waiting) + min(self._unpacked, MAX_BATCH_BYTES))
            async for rows in self._decoded(messages):
                yield rows
            if self.ended:
                self._incoming.shape.check_count(self.count)
                await self._check_end()
                return
            with as_problem():
                if max(message_size(self._waiting) or 0, self._unpacked) > MAX_BATCH_BYTES:
                    return
            piece = await anext(self._incoming.body, None)
            if piece is None:
                with as_problem():
                    raise TableError("dataset-truncated", "The Arrow stream is cut off.")
            self._waiting += piece
            self._share.hold(len(self._waiting))

    def _take(self) -> tuple[list[bytes], bool]:
        """The whole messages that are here, and whether the end marker is."""
        messages: list[bytes] = []
        while True:
            size = message_size(self._waiting)
            if size is None or size > min(len(self._waiting), MAX_BATCH_BYTES):
                return messages, False
            if size == END_BYTES:
                del self._waiting[:size]
                return messages, True
            message = bytes(memoryview(self._waiting)[:size])
            self._unpacked = max(self._unpacked, unpacked_bytes(message))
            if self._unpacked > MAX_BATCH_BYTES:
                return messages, False
            del self._waiting[:size]
            messages.append(message)

    async def _decoded(self, messages: list[bytes]) -> AsyncGenerator[Floats, None]:
        chunks: Iterator[Columns] = self._pieces.decode(messages)
        while True:
            with as_problem():
                chunk = await in_thread(next, chunks, None)
            if self._order is None and self._pieces.names:
                self._order = self._incoming.shape.order_of(self._pieces.names)
            if chunk is None:
                return
            self.count += chunk.shape[1]
            self._incoming.shape.check_count(self.count)
            yield chunk[self._order].T

    async def _check_end(self) -> None:
        more = bool(self._waiting)
        async for piece in self._incoming.body:
            more = more or bool(piece)
        if more:
            with as_problem():
                raise TableError("dataset-parse", "Bytes follow the end of the Arrow stream.")
