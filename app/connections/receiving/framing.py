"""Bytes of a request beside its body: its head, the sizes and extensions of chunks, and trailers."""

MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_FRAMING_BYTES = 64 * 1024
"""Bytes that a head has before it is complete, and that the chunks of a body have in sizes and extensions
beyond as much as they hold."""
CHUNKS_A_TURN = 256
_SLICE_BYTES = 8 * 1024  # parsed at once of what may hold many chunks


class Framing:
    """Count of what the requests of one connection have beside their bodies.

    Attributes:
        chunks: Parts of bodies, in this turn.
    """

    def __init__(self) -> None:
        self.chunks = 0
        self._header_bytes = self._fields = self._framing_bytes = self._declared_left = 0

    @property
    def has_too_many_headers(self) -> bool:
        """True once the headers are too many, or too long."""
        return self._header_bytes > MAX_HEADER_BYTES or self._fields > MAX_HEADERS

    @property
    def has_too_much(self) -> bool:
        """True once more than may be came that was neither a header nor a body."""
        return self._framing_bytes > MAX_FRAMING_BYTES

    def begin(self) -> None:
        """Begin a request."""
        self._header_bytes = self._fields = self._framing_bytes = self._declared_left = 0

    def next_slice(self, size: int) -> int:
        """Count the bytes that are parsed next of `size`, and return how many they are."""
        if size > self._declared_left:  # they may hold many chunks
            size = min(size, _SLICE_BYTES)
        self._framing_bytes += size
        return size

    def add_target(self, part: bytes) -> None:
        """Count a part of the target as header bytes."""
        self._header_bytes += len(part)

    def add_field(self, name: bytes, value: bytes) -> None:
        """Count a header, or one behind the body."""
        self._fields += 1
        self._header_bytes += len(name) + len(value)

    def declare(self, size: int) -> None:
        """Note the length of the body."""
        self._declared_left = size

    def add_body(self, size: int) -> None:
        """Count a part of the body, which makes up for as many bytes around it, but for none that come later.

        The parser keeps a header behind the body until it is complete, and copies it each time.
        """
        self.chunks += 1
        self._declared_left -= size
        self._framing_bytes = max(0, self._framing_bytes - 2 * size)
