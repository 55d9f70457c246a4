"""Arrow streams as bodies: scored while they come, if they are large and their batches are not."""

from collections.abc import AsyncGenerator, Iterator

from app.body_memory import Share
from app.incoming import Incoming, in_thread_if_large
from app.row_shape import Floats
from app.table_rows import as_problem, parse_options, read_table, table_rows
from app.turns import in_thread
from models_store.table_contract import TableError
from models_store.table_ipc import END_BYTES, ArrowPieces, message_size
from models_store.table_open import open_arrow_bytes
from models_store.table_source import Columns

WHOLE_BYTES = 2 * 1024 * 1024
"""Smaller bodies are read in memory, and checked to the end before any row is computed."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""No row of a batch is whole before its last column: what comes in larger ones waits on the disk."""


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
            body = bytes(waiting)
            with as_problem():
                table = await in_thread_if_large(open_arrow_bytes, body, parse_options(incoming))
            async for rows in table_rows(table, incoming):
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

    @property
    def fits(self) -> bool:
        """Whether it may go on as it came; what is no stream is refused by who reads files."""
        try:
            size = message_size(self._waiting)
        except TableError:
            return False
        return size is None or size <= MAX_MESSAGE_BYTES

    def take_rest(self) -> bytes:
        """What is left of the bytes that came, as the start of a stream of its own."""
        rest = self._pieces.schema + self._waiting
        self._waiting.clear()
        return rest

    async def rows(self) -> AsyncGenerator[Floats, None]:
        """The rows up to the end, or to a message that is too large."""
        while True:
            with as_problem():
                messages, self.ended = self._take()
            async for rows in self._decoded(messages):
                yield rows
            if self.ended:
                self._incoming.shape.check_count(self.count)
                await self._check_end()
                return
            with as_problem():
                if (message_size(self._waiting) or 0) > MAX_MESSAGE_BYTES:
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
            if size is None or size > min(len(self._waiting), MAX_MESSAGE_BYTES):
                return messages, False
            message = bytes(memoryview(self._waiting)[:size])
            del self._waiting[:size]
            if size == END_BYTES:
                return messages, True
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
