"""Files as responses, whole or in ranges."""

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from app.problems.problem import Problem
from models_store.errors import BlobCorruptError, BlobError
from models_store.files.blobs import Blobs
from models_store.job_states import JobResult

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*")


@contextmanager
def unless_deleted(look: Callable[[], object]) -> Iterator[None]:
    """Look again at what owns a file that is missing: it may have been deleted meanwhile.

    Args:
        look: Function that raises the error of what is not there any more. Blocks.
    """
    try:
        yield
    except (BlobError, OSError):
        look()
        raise


def verified_headers(sha256: str) -> dict[str, str]:
    """Return the headers by which a caller can check a file, whose SHA-256 is its entity tag."""
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"ETag": f'"{sha256}"', "Repr-Digest": f"sha-256=:{digest}:"}


def file_download(
    request: Request,
    path: Path,
    *,
    media_type: str,
    filename: str,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> FileResponse:
    """Return a file, or what the request wants of it; call it in a thread.

    Raises:
        Problem: `bad-request` or `range`, which Starlette would answer as plain text.
        OSError: The file is missing.
    """
    found = path.stat()
    response = FileResponse(
        path, headers=headers, media_type=media_type, filename=filename, stat_result=found
    )
    _asked_range(request, response.headers["etag"], found.st_size)
    return response


def result_download(request: Request, result: JobResult, blobs: Blobs, *, name: str) -> Response:
    """Return a download of the result of a bulk job, after a check of its size; call it in a thread.

    A file in a bucket is not copied to this machine: its bytes are passed on as they are read.

    Args:
        request: Request to respond to.
        name: Name of the file for callers, without the suffix.

    Raises:
        Problem: `bad-request` or `range`.
        BlobMissingError: The file is missing.
        BlobCorruptError: The file has another size.
        BlobError: The store cannot be used.
    """
    key, size, media_type = result["key"], result["bytes"], result["media_type"]
    headers = {**verified_headers(result["sha256"]), "Vary": "Accept"}
    filename = name + PurePosixPath(key).suffix
    if not blobs.is_remote:
        path = result_path(result, blobs)
        return file_download(
            request, path, media_type=media_type, filename=filename, headers=headers
        )
    if blobs.size(key) != size:
        raise BlobCorruptError(key)
    start, stop = _asked_range(request, headers["ETag"], size)
    pieces = blobs.stream(key, start, stop)
    first = next(pieces, b"")  # what cannot be read is a problem still
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Length": str(stop - start),
    }
    status = 200
    if (start, stop) != (0, size):
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return StreamingResponse(chain([first], pieces), status, headers, media_type)


def _asked_range(request: Request, etag: str, size: int) -> tuple[int, int]:
    """Return the first byte to send and the one after the last; several ranges are the whole file.

    Raises:
        Problem: `bad-request` or `range`.
    """
    asked = request.headers.get("range")
    if asked is None or "," in asked or request.headers.get("if-range", etag) != etag:
        return 0, size
    found = _RANGE.fullmatch(asked)
    first, last = found.groups() if found else ("", "")
    if not (first or last) or (first and last and int(first) > int(last)):
        raise Problem("bad-request", "The `Range` header is not one of ranges of bytes.")
    if first:
        start, stop = int(first), min(int(last or size) + 1, size)
    else:
        start, stop = max(size - int(last), 0), size
    if start >= stop:
        raise Problem("range", headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def result_path(result: JobResult, blobs: Blobs) -> Path:
    """Return the path of the result of a bulk job.

    Raises:
        BlobMissingError: The file is missing.
        BlobCorruptError: The file has another size.
    """
    path = blobs.open(result["key"], result["sha256"])
    if path.stat().st_size != result["bytes"]:
        raise BlobCorruptError(result["key"])
    return path
