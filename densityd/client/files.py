"""Files on their way to the service and back, never whole in memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from densityd.client.calls import Body
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
    """Something to write to; a path has the whole file or none."""
    if not isinstance(target, Path):
        yield target
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
