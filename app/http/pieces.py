"""Pieces of a body, kept until they are used."""

_SMALL_BYTES = 1024


class Pieces:
    """Pieces of bytes in their order, of which the small ones lie together.

    Each object takes some eighty bytes more than it holds, which for pieces of one byte nothing would count.

    Args:
        first: First piece.
    """

    def __init__(self, first: bytes = b"") -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0
        self.add(first)

    def add(self, piece: bytes) -> None:
        """Keep a piece behind the others."""
        self.size += len(piece)
        if len(piece) >= _SMALL_BYTES:
            self._pieces.append(piece)
        elif piece and self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        elif piece:
            self._pieces.append(bytearray(piece))

    def take(self) -> bytes:
        """Return all bytes, and keep nothing."""
        pieces, self._pieces, self.size = self._pieces, [], 0
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        return b"".join(pieces)
