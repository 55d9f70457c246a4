"""Files as bodies of requests and responses, never whole in memory."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from densityd.client.call import Body, Retry
from densityd.client.errors import FileFormatError, TransportError, UnexpectedAnswerError
from densityd.client.retrying import Retries

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".npy": "application/x-npy",
    ".arrows": "application/vnd.apache.arrow.stream",
    ".parquet": "application/vnd.apache.parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
"""Media type of each suffix of a file's name."""

_CHUNK_BYTES = 1 << 20


def guess_media_type(path: Path) -> str:
    """Return the media type of a file, by the suffix of its name.

    Raises:
        FileFormatError: The suffix is unknown.
    """
    try:
        return MEDIA_TYPES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(MEDIA_TYPES)
        raise FileFormatError(
            f"{path}: the name of a table's file must end in one of {known}"
        ) from None


def media_type_of(target: Path | BinaryIO) -> str:
    """Return the media type of rows that are written to a target: that of the suffix of a path, or else CSV.

    Raises:
        FileFormatError: The suffix is unknown.
    """
    return guess_media_type(target) if isinstance(target, Path) else MEDIA_TYPES[".csv"]


def read_file(path: Path, media_type: str | None = None) -> Body:
    """Return a body that reads a file.

    Args:
        media_type: Format of the file; None for the one of its suffix.

    Raises:
        FileFormatError: The suffix is unknown.
        OSError: There is no such file.
    """
    return Body(
        partial(_iter_chunks, path), path.stat().st_size, media_type or guess_media_type(path)
    )


@contextmanager
def open_target(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Open a file to write to; at the end, the file at a path has all of it or stays as it was.

    Raises:
        OSError: The file cannot be written.
    """
    if not isinstance(target, Path):
        yield target
        return
    path = target.resolve()
    if path.exists() and not path.is_file():  # such as a pipe, which cannot be replaced
        with path.open("wb") as file:
            yield file
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        file = part.open("xb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        with file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _iter_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


_PARTIAL_CONTENT = 206
_ENOUGH_BYTES = 2**20


class DownloadProgress:
    """Position in a file that is downloaded.

    Args:
        retries: Policy by which a broken download continues.
    """

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._etag: str | None = None
        self._written = self._new = 0
        self._broken = 0

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; none for the whole."""
        if self._written == 0 or self._etag is None:
            return {}
        return {"Range": f"bytes={self._written}-", "If-Range": self._etag}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take notice of a response, before its body.

        Raises:
            UnexpectedAnswerError: It is not the rest of the file.
        """
        if self._written > 0:
            begins = headers.get("Content-Range", "").startswith(f"bytes {self._written}-")
            if status != _PARTIAL_CONTENT or not begins:
                raise UnexpectedAnswerError("the file was changed during the download")
        elif "bytes" in headers.get("Accept-Ranges", ""):
            self._etag = headers.get("ETag")
        self._new = 0

    def add(self, count: int) -> None:
        """Take notice of bytes that are written."""
        self._written += count
        self._new += count

    def pause_s(self, error: TransportError) -> float | None:
        """Return the seconds after which to ask for the rest; None if that is of no use."""
        if self._written == 0 or self._etag is None:
            return None  # a request without an answer was sent again already
        self._broken = 1 if self._new >= _ENOUGH_BYTES else self._broken + 1
        return self._retries.pause_s(error, sent=self._broken, retry=Retry.ALWAYS)
