"""Part of a text file as a stream, without what is no row."""

import re
from collections.abc import Iterator
from dataclasses import replace

from tabular.errors import TableError
from tabular.formats import TableWarning
from tabular.readers.delimiters import joined_blanks, quoted_brackets, without_rules
from tabular.readers.header import skipped_warning
from tabular.readers.layout import Layout
from tabular.readers.text import TextFile

LONGEST_LINE_BYTES = 8 << 20
"""Longest line that is kept for its end; what is longer is passed on as it is, for Arrow to refuse."""

_READ_BYTES = 512 << 10
_MOST_SKIPPED_BYTES = (
    8 << 20
)  # one after the other: Arrow yields nothing of them, and others may wait
_MARK = re.compile(rb"(?m)(^|(?<=\r))\xef\xbb\xbf")  # a byte order mark before a line


class Section:
    """Stream of the rows of a file, as Arrow reads it: without NUL bytes, repeated headers, comments and footers.

    Args:
        text: File in UTF-8.
        layout: Place of the rows in it, and how they are written.

    Attributes:
        repeated: Number of lines left out so far that were the header again.
        comments: Number of lines left out so far that were comments.
        rules: Number of lines left out so far that were rules.
    """

    def __init__(self, text: TextFile, layout: Layout) -> None:
        self._file = text.open()
        self._layout = layout
        removed = layout.repeated or layout.comments or layout.rules
        respelled = layout.brackets or layout.blanks is not None
        self._is_plain = not (text.noise or removed or respelled)
        self._left = -1 if layout.stop is None else layout.stop - layout.start
        self._waiting = bytearray()
        self._rest = b""
        self._skipped = 0
        self.repeated = self.comments = self.rules = 0
        self._file.seek(layout.start)

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return at most this many bytes; none at the end.

        Raises:
            TableError: Megabytes of lines are no rows.
        """
        if self._is_plain:
            block = self._raw(size)
            self._count_skipped(block, rows=block)
            return block
        while not self._waiting and (block := self._block()):
            self._waiting += block
        taken = bytes(self._waiting[:size] if size >= 0 else self._waiting)
        del self._waiting[: len(taken)]
        return taken

    def _raw(self, size: int) -> bytes:
        """Return at most this many bytes of the file; none at the end."""
        if self._left >= 0:
            size = self._left if size < 0 else min(size, self._left)
        block = self._file.read(size)
        self._left -= len(block) if self._left > 0 else 0
        return block

    def _block(self) -> bytes:
        """Return some whole lines as rows have them; nothing at the end."""
        while True:
            block = self._raw(_READ_BYTES)
            lines = self._rest + block
            if not block:
                self._rest = b""
                return self._rows(lines)
            # A line end at the very end may be the first half of one.
            ends = max(lines.rfind(b"\n"), lines.rfind(b"\r", 0, -1)) + 1
            if ends == 0 and len(lines) > LONGEST_LINE_BYTES:
                self._rest = b""
                return lines
            lines, self._rest = lines[:ends], lines[ends:]
            rows = self._rows(lines)
            self._count_skipped(lines, rows=rows)
            if rows:
                return rows

    def _count_skipped(self, lines: bytes, *, rows: bytes) -> None:
        """Refuse lines of which nothing is a row; in a table of one column a blank line is one."""
        is_row = len(self._layout.fields) < 2 or rows.strip(b"\r\n")
        self._skipped = 0 if is_row else self._skipped + len(lines)
        if self._skipped > _MOST_SKIPPED_BYTES:
            raise TableError(
                "dataset-parse",
                f"More than {_MOST_SKIPPED_BYTES >> 20} MiB of lines, one after the other, are no rows.",
            )

    def _rows(self, lines: bytes) -> bytes:
        layout = self._layout
        if b"\x00" in lines:
            lines = lines.replace(b"\x00", b"")
        if b"\xef\xbb\xbf" in lines:
            lines = _MARK.sub(b"", lines)
        if layout.repeated and layout.repeated in lines:
            pattern = rb"(?m)(^|(?<=\r))" + re.escape(layout.repeated) + rb"[ \t]*(\r\n|\r|\n|\Z)"
            lines, found = re.subn(pattern, b"", lines)
            self.repeated += found
        if layout.comments:
            pattern = rb"(?m)(^|(?<=\r))" + re.escape(layout.comments) + rb"[^\r\n]*(\r\n|\r|\n|\Z)"
            lines, found = re.subn(pattern, b"", lines)
            self.comments += found
        if layout.rules:
            lines, found = without_rules(lines)
            self.rules += found
        if layout.brackets:
            lines = quoted_brackets(lines)
        if layout.blanks is not None:
            lines = joined_blanks(lines, layout.blanks, layout.delimiter)
        return lines


def parts(text: TextFile, layout: Layout, size: int) -> Iterator[Layout]:
    """Yield layouts of parts of the rows, each of about `size` bytes and whole lines.

    Args:
        text: File in UTF-8, in which the quotes match.
        layout: Place of all rows.
        size: Bytes of a part that has no longer line.
    """
    start, quote = layout.start, layout.quote.encode()
    stop = text.size if layout.stop is None else layout.stop
    wanted = size
    while stop - start > wanted:
        with text.open() as file:
            file.seek(start)
            lines = file.read(wanted)
        end = len(lines)
        quotes = lines.count(quote)
        while end and (quotes % 2 or not lines.endswith(b"\n", 0, end)):
            before = lines.rfind(b"\n", 0, end - 1) + 1
            quotes -= lines.count(quote, before, end)
            end = before
        del lines  # not kept while the rows are used
        if end:
            yield replace(layout, start=start, stop=start + end)
            start, wanted = start + end, size
        elif wanted > LONGEST_LINE_BYTES:
            break
        else:
            wanted *= 2
    yield replace(layout, start=start)


def comments_warning(lines: int) -> TableWarning:
    """Return the warning about comments between the rows."""
    text = "One line" if lines == 1 else f"{lines} lines"
    verb = "is a comment" if lines == 1 else "are comments"
    text = f"{text} between the rows {verb} and skipped."
    return skipped_warning(text, unless="it is a row" if lines == 1 else "they are rows")


def rules_warning(lines: int) -> TableWarning:
    """Return the warning about lines of dashes between the rows."""
    text = "One line is a rule" if lines == 1 else f"{lines} lines are rules"
    text = f"{text} of dashes and skipped."
    return skipped_warning(text, unless="it is data" if lines == 1 else "they are data")


def repeated_warning(lines: int) -> TableWarning:
    """Return the warning about a header that came again between the rows."""
    text = "once" if lines == 1 else f"{lines} times"
    return skipped_warning(f"The header is repeated {text} between the rows and is skipped there.")
