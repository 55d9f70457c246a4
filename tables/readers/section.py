"""Part of a text file as a stream, without what is no row."""

import re
from typing import BinaryIO

from tables.readers.delimiters import joined_blanks
from tables.readers.layout import Layout

_READ_BYTES = 512 << 10


class Section:
    """Stream of the rows of a file, as Arrow reads it: without NUL bytes, repeated headers and footers.

    Args:
        file: File in UTF-8, which is closed with the section.
        layout: Place of the rows in it, and how they are written.

    Attributes:
        repeated: Number of lines left out so far that were the header again.
    """

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._left = -1 if layout.stop is None else layout.stop - layout.start
        self._waiting = bytearray()
        self._rest = b""
        self.repeated = 0
        file.seek(layout.start)

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return at most so many bytes; none at the end."""
        while not self._waiting and (block := self._block()):
            self._waiting += block
        taken = bytes(self._waiting[:size] if size >= 0 else self._waiting)
        del self._waiting[: len(taken)]
        return taken

    def _block(self) -> bytes:
        """Return some whole lines as rows have them; nothing at the end."""
        while True:
            block = self._file.read(_READ_BYTES if self._left < 0 else min(_READ_BYTES, self._left))
            self._left -= len(block) if self._left > 0 else 0
            lines = self._rest + block
            if not block:
                self._rest = b""
                return self._rows(lines)
            # A line end at the very end may be the first half of one.
            ends = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1
            lines, self._rest = lines[:ends], lines[ends:]
            if rows := self._rows(lines):
                return rows

    def _rows(self, lines: bytes) -> bytes:
        layout = self._layout
        if b"\x00" in lines:
            lines = lines.replace(b"\x00", b"")
        if layout.repeated and layout.repeated in lines:
            pattern = rb"(?m)(^|(?<=\r))" + re.escape(layout.repeated) + rb"[ \t]*(\r\n|\r|\n|\Z)"
            lines, found = re.subn(pattern, b"", lines)
            self.repeated += found
        if layout.blanks is not None:
            lines = joined_blanks(lines, layout.blanks, layout.delimiter)
        return lines
