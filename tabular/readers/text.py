"""Text files in their encodings: found, checked, and given on as UTF-8."""

import codecs
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tabular.encodings import CODECS, find_encoding
from tabular.errors import TableError
from tabular.formats import Encoding, TableWarning

_BLOCK_BYTES = 1 << 20
_WORDS_BYTES = 1 << 16  # looked through in one go, which keeps the interpreter's lock
_LOOKED_AT_BYTES = 4096
_WIDE_SHARE = 0.7
_UTF8_BOM = codecs.BOM_UTF8
_UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_QUOTE = b'"'
_NOISE = (b"\x00", _UTF8_BOM)
_ESCAPE = "surrogateescape"  # a byte that is not UTF-8 is a character of its own
_ESCAPED = re.compile("[\udc80-\udcff]")
_UNESCAPED = re.compile("[^\x00-\x7f\udc80-\udcff]")


class _Copy:
    """File without a name, which is gone when this is."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = os.dup(file.fileno())

    def __del__(self) -> None:
        os.close(self._descriptor)

    def open(self) -> BinaryIO:
        """Return the file at its start."""
        file = os.fdopen(os.dup(self._descriptor), "rb")
        file.seek(0)
        return file


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """Text file that is UTF-8, or was made so.

    Attributes:
        path: File, if it is UTF-8 itself.
        copy: Copy in UTF-8, which is deleted when it is closed, if the file is not.
        quotes: Number of quotation marks.
        noise: Number of NUL bytes, and of byte order marks that are not at the start.
        warnings: Warning about the encoding, if it had to be guessed.
    """

    path: Path
    copy: _Copy | None
    quotes: int
    warnings: list[TableWarning]
    noise: int = 0

    @property
    def mark(self) -> int:
        """Size of the byte order mark at the start."""
        with self.open() as file:
            return len(_UTF8_BOM) if file.read(len(_UTF8_BOM)) == _UTF8_BOM else 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        with self.open() as file:
            return file.seek(0, os.SEEK_END)

    def start(self, size: int) -> tuple[bytes, bool]:
        """Return the first bytes, without a byte order mark, and whether they are all."""
        with self.open() as file:
            start = file.read(size)
            return start.removeprefix(_UTF8_BOM), not file.read(1)

    def end(self, size: int) -> bytes:
        """Return the last bytes."""
        with self.open() as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            return file.read()

    def holds(self, line: bytes, *, after: int) -> bool:
        """Return whether some bytes come after a position."""
        before = b""
        with self.open() as file:
            file.seek(after)
            while block := file.read(_BLOCK_BYTES):
                if line in block or line in before + block[: len(line)]:
                    return True
                before = block[-len(line) :]
        return False

    def open(self) -> BinaryIO:
        """Return the file at its start."""
        return self.path.open("rb") if self.copy is None else self.copy.open()


def marks_of(path: Path) -> tuple[int, int]:
    """Return the numbers of quotation marks and of odd characters of a file, which is looked through.

    Raises:
        TableError: ``dataset-encoding``: the file is not in UTF-8.
    """
    text = open_text(path, "utf-8")
    return text.quotes, text.noise


def open_text(
    path: Path, encoding: Encoding | None, marks: tuple[int, int] | None = None
) -> TextFile:
    """Return a file as UTF-8.

    Args:
        path: Text file.
        encoding: Encoding of the file; None to find it: a byte order mark tells it, else it is UTF-8,
            or else the one in which the words look most like those of a language.
        marks: Numbers from `marks_of`, so that the file is not looked through again; None: it is.

    Raises:
        TableError: ``dataset-encoding``: the file is not in the encoding.
    """
    if marks is not None:
        return TextFile(path=path, copy=None, quotes=marks[0], noise=marks[1], warnings=[])
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT_BYTES)
    if start.startswith(_UTF16_BOMS):
        return _transcoded(path, "utf-16", warnings=[])
    if encoding is None and (wide := _without_mark(start)):
        return _transcoded(path, wide, warnings=[])
    if encoding not in {None, "utf-8"} and not start.startswith(_UTF8_BOM):
        return _transcoded(path, str(encoding), warnings=[])
    quotes, noise = 0, -start.startswith(_UTF8_BOM)
    try:
        for block in _checked(path):
            # To look is faster than to count.
            quotes += block.count(_QUOTE) if _QUOTE in block else 0
            noise += sum(block.count(mark) for mark in _NOISE if mark in block)
    except UnicodeDecodeError:
        if encoding is not None or start.startswith(_UTF8_BOM):
            raise _not_in("utf-8") from None
        return _guessed(path)
    return TextFile(path=path, copy=None, quotes=quotes, warnings=[], noise=noise)


def _without_mark(start: bytes) -> str | None:
    """Return the encoding of UTF-16 text without a mark: every other byte of Latin text is zero."""
    half = len(start) // 2
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if half and zeros.count(0) >= _WIDE_SHARE * half and start.count(0) <= half:
            return encoding
    return None


def _guessed(path: Path) -> TextFile:
    """Return a file that is not UTF-8 as such, in the encoding that is most likely.

    Programs that append to a file in another encoding leave lines of both: those in UTF-8 stay so beside
    cp1252, of which hardly a line is UTF-8 by chance.
    """
    found = find_encoding(_other_lines(path))
    for encoding, language in (*([found] if found else []), ("cp1252", "")):
        mixed = encoding == "cp1252" and any(map(_holds_utf8, _escaped(path)))
        with suppress(TableError):
            warning = _guess_warning(encoding, language, mixed=mixed)
            return _transcoded(path, encoding, warnings=[warning], mixed=mixed)
    return _transcoded(path, "latin-1", warnings=[_guess_warning("latin-1")])


def _escaped(path: Path) -> Iterator[str]:
    """Yield the lines of a file, many at a time; bytes that are not UTF-8 are escaped."""
    with path.open("rb") as file:
        while block := file.read(_WORDS_BYTES):
            yield (block + file.readline(_BLOCK_BYTES)).decode("utf-8", _ESCAPE)


def _is_utf8(line: str) -> bool:
    return line.isascii() or not _ESCAPED.search(line)


def _holds_utf8(lines: str) -> bool:
    """Return whether one of some lines is UTF-8 beyond ASCII."""
    return _UNESCAPED.search(lines) is not None and any(
        not line.isascii() and _is_utf8(line) for line in lines.split("\n")
    )


def _other_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are not UTF-8."""
    for lines in _escaped(path):
        if lines.isascii():
            continue
        others = lines
        if _UNESCAPED.search(lines):
            found = (line for line in lines.split("\n") if not _is_utf8(line))
            others = "\n".join([*found, ""])
        yield others.encode("utf-8", _ESCAPE)


def _checked(path: Path) -> Iterator[bytes]:
    """Yield the blocks of a file, which must be UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    plain = True
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if not (plain and block.isascii()):
                decoder.decode(block)
                plain = not decoder.getstate()[0]
            yield block
    decoder.decode(b"", final=True)


def _transcoded(
    path: Path, encoding: str, *, warnings: list[TableWarning], mixed: bool = False
) -> TextFile:
    """Return a copy in UTF-8; of a mixed file lines in UTF-8 stay as they are."""
    with tempfile.TemporaryFile(dir=path.parent) as copy, suppress(UnicodeError):
        quotes = noise = 0
        for text in _decoded_lines(path, encoding) if mixed else _decoded(path, encoding):
            quotes += text.count(_QUOTE)
            noise += sum(map(text.count, _NOISE))
            copy.write(text)
        copy.flush()
        return TextFile(path=path, copy=_Copy(copy), quotes=quotes, noise=noise, warnings=warnings)
    raise _not_in(encoding)


def _decoded(path: Path, encoding: str) -> Iterator[bytes]:
    """Yield the blocks of a file in an encoding as UTF-8."""
    decoder = codecs.getincrementaldecoder(CODECS.get(encoding, encoding))()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()


def _decoded_lines(path: Path, encoding: str) -> Iterator[bytes]:
    """Yield the lines of a file as UTF-8, those that are none decoded."""
    for lines in _escaped(path):
        yield "\n".join(
            line if _is_utf8(line) else line.encode("utf-8", _ESCAPE).decode(encoding)
            for line in lines.split("\n")
        ).encode()


def _not_in(encoding: str) -> TableError:
    return TableError("dataset-encoding", f"The file is not text in {encoding}.")


def _guess_warning(encoding: str, language: str = "", *, mixed: bool = False) -> TableWarning:
    like = f" ({language} by its letters)" if language else ""
    what = (
        "Some lines of the file are UTF-8, the others were"
        if mixed
        else "The file is not UTF-8 and was"
    )
    return {
        "code": "encoding",
        "column": None,
        "detail": f"{what} read as {encoding}{like}. If names or values look"
        " wrong, upload it again with the encoding named by encoding=, or as UTF-8.",
    }
