"""Uploaded files on their way from the socket to the disk, never whole in memory."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastapi import Request

from app.http.json_body import media_type_of
from app.http.multipart import FilePart, file_part
from app.http.upload_room import check_room, declared_bytes, within_room
from app.problems.problem import Problem
from app.rows.body import is_headerless, write_to_disk
from app.rows.codecs import TEXT_AND_CURL, known_codec
from tabular.formats import MEDIA_TYPES, SUFFIXES, TableFormat

MULTIPART_MEDIA_TYPE = "multipart/form-data"
MULTIPART_OVERHEAD_BYTES = 64 * 1024
"""Bytes that a form may have besides its file."""
_MAX_NAME = 128
_FORMAT_NAMES = ", ".join(MEDIA_TYPES)


@contextmanager
def deleted(file: Path) -> Iterator[Path]:
    """Delete a staged file in the end, if it is still there."""
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Upload:
    """File that was received.

    Args:
        format: Format that the client declared; the parser checks the content.
        headerless: True where the Content-Type says that a CSV file has no header.
        file_name: Last part of the name of the client's file, if it has one.
        fields: Names and texts of the options in a form.
    """

    format: TableFormat
    headerless: bool
    file_name: str | None
    fields: list[tuple[str, str]]


async def receive_upload(
    request: Request, destination: Path, *, max_bytes: int, room: int
) -> Upload:
    """Write the uploaded file to `destination`.

    Args:
        request: Request with a raw body, or a multipart form whose last part is named `file`.
        destination: Existing file to write to.
        max_bytes: Largest size of a file.
        room: Bytes that the project may store beyond what it has.

    Raises:
        LimitError: The project has no room for it.
        Problem: The type is unknown, the file is empty or too large, or the form is malformed.
        ClientDisconnect: The client disconnected before the end.
    """
    is_form = media_type_of(request) == MULTIPART_MEDIA_TYPE
    check_room(min(declared_bytes(request), max_bytes), room)
    if is_form:
        part = await file_part(request)
        upload = Upload(*_part_format(part), _label(part.file_name), part.fields)
        chunks = part.chunks
    else:
        upload = Upload(*_raw_format(request.headers.get("content-type")), None, [])
        chunks = request.stream()
    limited = _limited(chunks, max_bytes=max_bytes)
    size = await write_to_disk(within_room(limited, room), destination)
    if size == 0:
        raise Problem("dataset-empty", "The file has no bytes.", status=400)
    return upload


async def _limited(chunks: AsyncIterator[bytes], *, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise Problem("limit-body", f"A dataset file is limited to {max_bytes} bytes.")
        yield chunk


def _raw_format(content_type: str | None) -> tuple[TableFormat, bool]:
    found = _known_format(content_type)
    if found is None:
        raise Problem(
            "media-type",
            f"The Content-Type of a dataset is one of {_FORMAT_NAMES}, or {MULTIPART_MEDIA_TYPE},"
            f" {TEXT_AND_CURL}.",
            members={"supported": [*MEDIA_TYPES, MULTIPART_MEDIA_TYPE]},
        )
    return found


def _part_format(part: FilePart) -> tuple[TableFormat, bool]:
    found = _known_format(part.content_type)
    if found is not None:
        return found
    suffix = PurePosixPath(part.file_name or "").suffix.lower()
    media_type = part.content_type.partition(";")[0].strip().lower()
    # What browsers do not know they call anything; one of our types is in a charset we do not read.
    if suffix in SUFFIXES and media_type not in MEDIA_TYPES:
        return SUFFIXES[suffix], False
    raise Problem(
        "media-type",
        f"The part `file` needs a Content-Type of {_FORMAT_NAMES} with text in UTF-8,"
        f" or a file name that ends in {', '.join(SUFFIXES)}.",
        members={"supported": list(MEDIA_TYPES)},
    )


def _known_format(content_type: str | None) -> tuple[TableFormat, bool] | None:
    if MEDIA_TYPES.get(content_type or "") is TableFormat.EXCEL:  # in which no rows are scored
        return TableFormat.EXCEL, False
    found = known_codec(content_type)
    if found is None:
        return None
    codec, parameters = found
    return codec.format, is_headerless(parameters)


def _label(file_name: str | None) -> str | None:
    """Return a file name as a label, without folders, suffix and characters that do not print."""
    last = (file_name or "").replace("\\", "/").rpartition("/")[2]
    printable = "".join(character for character in last if character.isprintable())
    return PurePosixPath(printable).stem[:_MAX_NAME].strip(". ") or None
