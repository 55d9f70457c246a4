"""Downloads: files as responses, whole or in ranges."""

import asyncio
import base64
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.http.streaming import disconnected
from app.problems.problem import Problem
from models_store.errors import BlobCorruptError
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import JobResult
from tables.slugs import Slug

_REFUSALS: dict[int, Slug] = {400: "bad-request", 416: "range"}


class Download(FileResponse):
    """File response of Starlette, with problem details for a wrong `Range`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file.

        Raises:
            Problem: `bad-request` or `range`, before anything is sent.
            ClientDisconnect: The caller has left; the rest is not read.
        """
        gone = asyncio.create_task(disconnected(receive))

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                raise _refusal(message)
            if gone.done():
                raise ClientDisconnect
            await send(message)

        try:
            await super().__call__(scope, receive, send_unless_refused)
        finally:
            gone.cancel()


def result_download(result: JobResult, blobs: Blobs, *, name: str) -> Download:
    """Return a download of the result of a bulk job, after a check of its size.

    Args:
        result: Result of the job.
        blobs: Store that holds the file.
        name: Name of the file for callers, without the suffix.

    Raises:
        BlobMissingError: The file is missing.
        BlobCorruptError: The file has another size.
    """
    path = result_path(result, blobs)
    digest = base64.b64encode(bytes.fromhex(result["sha256"])).decode()
    return Download(
        path,
        media_type=result["media_type"],
        filename=name + path.suffix,
        headers={
            "ETag": f'"{result["sha256"]}"',
            "Repr-Digest": f"sha-256=:{digest}:",
            "Vary": "Accept",
        },
    )


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
