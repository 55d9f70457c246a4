"""Files of pages: kept in memory and compressed, and never asked for again while they are current."""

import asyncio
import gzip
import hashlib
import mimetypes
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.http.accept import IDENTITY, best_coding
from app.problems.problem import Problem
from app.resources.etags import Preconditions, etag_of

_GZIP = "gzip"
_VERSION = "v-"
_FOR_GOOD = "max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


class _Content(NamedTuple):
    """A file as it is sent.

    Attributes:
        bytes: Bytes of the file, compressed or not.
        etag: Its entity tag.
    """

    bytes: bytes
    etag: str


class StaticFolder:
    """Files of a folder that does not change while the process runs.

    A path may begin with `version`: its content then is what the browser keeps, since the path of
    a later release is another one. Files of any other version, which a page of another release asks
    for, are sent as they are now.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[tuple[str, str], _Content] = {}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """Files by their paths: no other file can be asked for."""
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path for path in files}

    @cached_property
    def version(self) -> str:
        """Beginning of paths that mean the files as they are now."""
        digest = hashlib.sha256()
        for name, path in self._paths.items():
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return _VERSION + digest.hexdigest()[:16]

    async def respond(self, path: str, request: Request) -> Response:
        """Return the response with a file.

        Args:
            path: Path below the folder, after a version or not.
            request: Request, which says what the browser accepts and has.

        Raises:
            Problem: `not-found`; `validation`, for entity tags that are none.
        """
        first, _, rest = path.partition("/")
        name = rest if first.startswith(_VERSION) else path
        if name not in self._paths:
            raise Problem("not-found", "There is no such file.")
        coding = best_coding(request.headers.get("accept-encoding"), (_GZIP, IDENTITY))
        if (name, coding) not in self._kept:
            self._kept[name, coding] = await asyncio.to_thread(self._read, name, coding)
        content = self._kept[name, coding]
        headers = {
            "ETag": content.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": _FOR_GOOD if first == self.version else _ASK_AGAIN,
        }
        lines = request.headers.getlist("if-none-match") or None
        if not Preconditions.of(None, lines).new(content.etag):
            return Response(status_code=304, headers=headers)
        if coding == _GZIP:
            headers["Content-Encoding"] = _GZIP
        return Response(content.bytes, headers=headers, media_type=_media_type(name))

    def _read(self, name: str, coding: str) -> _Content:
        content = self._paths[name].read_bytes()
        if coding == _GZIP:
            content = gzip.compress(content, mtime=0)
        return _Content(content, etag_of(content))


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
