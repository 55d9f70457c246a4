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


_Stamp = tuple[int, int]


class _Content(NamedTuple):
    """A file as it is sent.

    Attributes:
        stamp: Time and size of the file when it was read.
        bytes: Bytes of the file, compressed or not.
        etag: Its entity tag.
    """

    stamp: _Stamp
    bytes: bytes
    etag: str


class StaticFolder:
    """Files of a folder, which may change while the process runs; new ones are found by the next process.

    A path may begin with `version`: its content then is what the browser keeps, since the path of
    a later release is another one. Files of any other version, which a page of another release asks
    for, are sent as they are now.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[tuple[str, str], _Content] = {}
        self._versions: dict[tuple[_Stamp, ...], str] = {}

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """Files by their paths: no other file can be asked for."""
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path for path in files}

    @property
    def version(self) -> str:
        """Beginning of paths that mean the files as they are now."""
        stamps = tuple(_stamp(path) for path in self._paths.values())
        if stamps not in self._versions:
            digest = hashlib.sha256()
            for name, path in self._paths.items():
                digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
            self._versions = {stamps: _VERSION + digest.hexdigest()[:16]}
        return self._versions[stamps]

    async def respond(self, path: str, request: Request) -> Response:
        """Return the response with a file.

        Args:
            path: Path below the folder, after a version or not.
            request: Request, which says what the browser accepts and has.

        Raises:
            Problem: `not-found`; `validation`, for entity tags that are none.
        """
        first, _, rest = path.partition("/")
        versioned = first.startswith(_VERSION)
        name = rest if versioned else path
        if name not in self._paths:
            raise Problem("not-found", "There is no such file.")
        coding = best_coding(request.headers.get("accept-encoding"), (_GZIP, IDENTITY))
        content = self._kept.get((name, coding))
        if content is None or content.stamp != _stamp(self._paths[name]):
            content = await asyncio.to_thread(_read, self._paths[name], coding)
            self._kept[name, coding] = content
        headers = {
            "ETag": content.etag,
            "Vary": "Accept-Encoding",
            "Cache-Control": _FOR_GOOD if versioned and first == self.version else _ASK_AGAIN,
        }
        lines = request.headers.getlist("if-none-match") or None
        if not Preconditions.of(None, lines).new(content.etag):
            return Response(status_code=304, headers=headers)
        if coding == _GZIP:
            headers["Content-Encoding"] = _GZIP
        return Response(content.bytes, headers=headers, media_type=_media_type(name))


def _read(path: Path, coding: str) -> _Content:
    stamp, content = _stamp(path), path.read_bytes()
    if coding == _GZIP:
        content = gzip.compress(content, mtime=0)
    return _Content(stamp, content, etag_of(content))


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
