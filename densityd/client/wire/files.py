"""Files on their way to the service and back, never whole in memory."""

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
}
"""What the end of a file's name says about its format."""

_PIECE_BYTES = 1 << 20


def media_type_of(path: Path) -> str:
    """The format that a file's name tells.

    Raises:
        FileFormatError: it tells none.
    """
    try:
        return MEDIA_TYPES[path.suffix.lower()]
    except KeyError:
        known = ", ".join(MEDIA_TYPES)
        raise FileFormatError(
            f"{path}: the name of a table's file must end in one of {known}"
        ) from None


def file_body(path: Path, media_type: str | None = None) -> Body:
    """A file as a body.

    Args:
        path: of the file.
        media_type: its format; None: its name tells it.

    Raises:
        FileFormatError: its name does not.
        OSError: there is no such file.
    """
    return Body(partial(_pieces, path), path.stat().st_size, media_type or media_type_of(path))


@contextmanager
def destination(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    """Something to write to; the file at a path has all of it, or stays as it was.

    Raises:
        OSError: it cannot be written.
    """
    if not isinstance(target, Path):
        yield target
        return
    path = target.resolve()
    if path.exists() and not path.is_file():  # such as a pipe: what is written is gone
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


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
