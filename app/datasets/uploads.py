"""Uploaded files on their way from the socket to the disk, never whole in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from app.http.exchange import exchange_of
from app.http.json_body import body_chunks, declared_bytes, media_type_of, write_to_disk
from app.http.upload_room import check_room, within_room
from app.problems.problem import Problem
from app.rows.codecs import TEXT_AND_CURL, known_codec
from app.rows.decode import is_headerless
from tabular.formats import MEDIA_TYPES, SUFFIXES, TableFormat

MULTIPART_MEDIA_TYPE = "multipart/form-data"
FILE_PART = "file"
MULTIPART_OVERHEAD_BYTES = 64 * 1024
"""Bytes that a form may have besides its file."""
_MAX_FIELDS = 4096
_MAX_FIELD_BYTES = 48 * 1024
_PIECE_BYTES = 256 * 1024
_MAX_NAME = 128
_FORMAT_NAMES = ", ".join(MEDIA_TYPES)


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
        request: Request with a raw body, or a multipart form with a file named `file`.
        destination: Existing file to write to.
        max_bytes: Largest size of a file.
        room: Bytes that the project may store beyond what it has.

    Raises:
        LimitError: The project has no room for it.
        Problem: The type is unknown, the file is empty or too large, or the form is malformed.
        ClientDisconnect: The client disconnected before the end.
    """
    exchange = exchange_of(request)
    check_room(min(declared_bytes(exchange), max_bytes), room)
    if media_type_of(exchange) == MULTIPART_MEDIA_TYPE:
        most = max_bytes + MULTIPART_OVERHEAD_BYTES
        body = within_room(body_chunks(exchange, limit=most), room + MULTIPART_OVERHEAD_BYTES)
        async with _form(request, body) as (file, fields):
            upload = Upload(*_part_format(file), _label(file.filename), fields)
            size = await write_to_disk(_pieces(file), destination)
    else:
        upload = Upload(*_raw_format(request.headers.get("content-type")), None, [])
        body = within_room(body_chunks(exchange, limit=max_bytes), room)
        size = await write_to_disk(body, destination)
    if size == 0:
        raise Problem("dataset-empty", "The file has no bytes.", status=400)
    return upload


@asynccontextmanager
async def _form(
    request: Request, body: AsyncIterator[bytes]
) -> AsyncIterator[tuple[UploadFile, list[tuple[str, str]]]]:
    """Give the file of a form, which is on the disk if it is large, and the other parts.

    Raises:
        Problem: `multipart`, or what reading the body raises.
    """

    async def receive() -> Message:
        chunk = await anext(body, b"")
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    bounded = Request(request.scope, receive)
    limits = {"max_files": 1, "max_fields": _MAX_FIELDS, "max_part_size": _MAX_FIELD_BYTES}
    try:
        async with bounded.form(**limits) as form:
            file = form.get(FILE_PART)
            if not isinstance(file, UploadFile):
                raise Problem("multipart", f"The form has no file named `{FILE_PART}`.")
            parts = form.multi_items()
            yield file, [(name, text) for name, text in parts if isinstance(text, str)]
    except HTTPException as error:
        raise Problem("multipart", error.detail) from error


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE_BYTES):
        yield piece


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


def _part_format(file: UploadFile) -> tuple[TableFormat, bool]:
    content_type = file.content_type or ""
    found = _known_format(content_type)
    if found is not None:
        return found
    suffix = PurePosixPath(file.filename or "").suffix.lower()
    media_type = content_type.partition(";")[0].strip().lower()
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
