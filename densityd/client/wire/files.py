"""Files as bodies of requests and responses, never whole in memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from densityd.client.call import Body
from densityd.client.errors import FileFormatError

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


def choose_media_type(target: Path | BinaryIO, wanted: str | None) -> str:
    """Return the media type of rows that are written to a target.

    Args:
        target: File to write.
        wanted: Media type that the caller chose; None for that of the suffix of a path, and CSV for
            an open file.

    Raises:
        FileFormatError: The suffix is unknown.
    """
    if wanted is not None:
        return wanted
    return guess_media_type(target) if isinstance(target, Path) else MEDIA_TYPES[".csv"]


def read_file(path: Path, media_type: str | None = None) -> Body:
    """Return a body that reads a file.

    Args:
        path: File to read.
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
