"""Downloads: files as responses, whole or in ranges."""

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.http.head import is_head
from app.limits import in_thread
from app.problems.problem import Problem
from models_store.errors import BlobCorruptError, BlobError
from models_store.files.blobs import Blobs
from models_store.job_states import JobResult
from tabular.slugs import Slug

_RANGE = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*")
_REFUSALS: dict[int, Slug] = {400: "bad-request", 416: "range"}


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


class Download(FileResponse):
    """File response of Starlette, with problem details for a wrong `Range`.

    Args:
        path: File to send.
        look: Function as of `unless_deleted`.
        media_type: Media type of the file.
        filename: Name of the file for callers.
        headers: Further headers.
        status_code: Status of the response, which FastAPI looks for.
    """

    def __init__(
        self,
        path: Path,
        *,
        look: Callable[[], object],
        media_type: str,
        filename: str,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
    ) -> None:
        super().__init__(path, status_code, headers, media_type=media_type, filename=filename)
        self._look = look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file.

        Raises:
            Problem: `bad-request` or `range`, before anything is sent.
            StoreError: The file was deleted meanwhile, before anything is sent.
        """

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                raise _refusal(message)
            await send(message)

        try:
            self.stat_result = await in_thread(os.stat, self.path)
        except FileNotFoundError:
            await in_thread(self._look)
            raise
        self.set_stat_headers(self.stat_result)
        await super().__call__(scope, receive, send_unless_refused)


def result_download(
    request: Request,
    result: JobResult,
    blobs: Blobs,
    *,
    name: str,
    link_s: int | None,
    look: Callable[[], object],
) -> Response:
    """Return a download of the result of a bulk job, after a check of its size.

    A file in a bucket is not copied to this machine: its bytes are passed on as they are read, or
    the caller is sent to the bucket itself.

    Args:
        request: Request to respond to.
        result: Result of the job.
        blobs: Store that holds the file.
        name: Name of the file for callers, without the suffix.
        link_s: Seconds for which an address in a bucket is valid; None: there are none.
        look: Function as of `unless_deleted`.

    Raises:
        Problem: `bad-request` or `range`.
        BlobMissingError: The file is missing.
        BlobCorruptError: The file has another size.
        BlobError: The store cannot be used.
    """
    key = PurePosixPath(result["key"])
    digest = base64.b64encode(bytes.fromhex(result["sha256"])).decode()
    headers = {
        "ETag": f'"{result["sha256"]}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Vary": "Accept",
    }
    media_type, filename = result["media_type"], name + key.suffix
    if not blobs.is_remote:
        path = result_path(result, blobs)
        return Download(path, look=look, media_type=media_type, filename=filename, headers=headers)
    if blobs.size(result["key"]) != result["bytes"]:
        raise BlobCorruptError(result["key"])
    if link_s is not None and not is_head(request):
        link = blobs.link(result["key"], valid_s=link_s)
        if link is not None:
            return RedirectResponse(link, headers={"Vary": "Accept", "Cache-Control": "no-store"})
    headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return _passed_on(request, result, blobs, headers, look)


def _passed_on(
    request: Request,
    result: JobResult,
    blobs: Blobs,
    headers: dict[str, str],
    look: Callable[[], object],
) -> StreamingResponse:
    start, stop = _asked_range(request.headers, headers["ETag"], result["bytes"])
    is_part = (start, stop) != (0, result["bytes"])

    pieces = blobs.stream(result["key"], start, stop)
    with unless_deleted(look):
        first = next(pieces, b"")

    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{result['bytes']}"
    return StreamingResponse(
        chain([first], pieces),
        media_type=result["media_type"],
        headers=headers,
        status_code=206 if is_part else 200,
    )


def _asked_range(headers: Headers, etag: str, size: int) -> tuple[int, int]:
    """Return the first byte to send and the one after the last; several ranges are the whole file.

    Raises:
        Problem: `bad-request` or `range`.
    """
    asked = headers.get("range")
    if asked is None or "," in asked or headers.get("if-range", etag) != etag:
        return 0, size
    found = _RANGE.fullmatch(asked)
    if found is None or found[1] == found[2] == "":
        raise Problem("bad-request", "The `Range` header is not one of ranges of bytes.")
    if found[1] == "":
        start, stop = max(size - int(found[2]), 0), size
    else:
        start, stop = int(found[1]), min(int(found[2] or size) + 1, size)
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


def _refusal(message: Message) -> Problem:
    slug = _REFUSALS[message["status"]]
    if slug == "bad-request":
        return Problem(slug, "The `Range` header is not one of ranges of bytes.")
    headers = Headers(raw=message["headers"])
    return Problem(slug, headers={"Content-Range": headers["content-range"]})
