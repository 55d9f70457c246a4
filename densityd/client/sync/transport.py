# Generated from densityd/client/aio/transport.py by tools/sync_client.py; do not edit.
"""Requests over HTTP for `Client`, sent again where that is safe."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx

from densityd.client.call import Call, Response, build_path
from densityd.client.errors import ClientError, TransportError
from densityd.client.record import Page, Record
from densityd.client.settings import Settings
from densityd.client.wire.files import DownloadProgress, open_target
from densityd.client.wire.problems import read_error, tell_warnings

_Result = TypeVar("_Result")
_Record = TypeVar("_Record", bound=Record)
_MULTIPLE_CHOICES = 300


@dataclass(frozen=True)
class Stream:
    """A response whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class Transport:
    """A connection pool that sends requests, again where that is safe.

    Args:
        transport: Transport of httpx in place of the network.
    """

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings = settings
        self._http = httpx.Client(**settings.http_options(), transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def send(self, call: Call[_Result]) -> _Result:
        """Send a request and return its result.

        Raises:
            ApiError: The service refuses the request.
            UnexpectedAnswerError: The response cannot be read.
        """
        return call.parse(self._retry(call, self._read))

    def fetch(self, kind: type[_Record], base: str, *names: str | int) -> _Record:
        """Return the record below a path; raises as `send`."""
        return self.send(Call("GET", build_path(base, *names), kind.of))

    @contextmanager
    def stream(self, call: Call[Any]) -> Iterator[Stream]:
        """Send a request and yield its response while it arrives; raises as `send`."""
        response = self._retry(call, _leave_unread)
        try:
            yield Stream(response.status_code, response.headers, self._chunks(response))
        finally:
            response.close()

    def save(self, call: Call[Any], target: Path | BinaryIO) -> None:
        """Write the body of a response to a file; a path has all of it or is not written.

        A download that breaks off continues where it ended, if the service sends ranges of that file.

        Raises:
            OSError: The file cannot be written. Further errors are those of `send`.
        """
        with open_target(target) as file:
            progress = DownloadProgress(self._settings.retries)
            while True:
                try:
                    self._save_rest(call, file, progress)
                except TransportError as error:
                    pause_s = progress.pause_s(error)
                    if pause_s is None:
                        raise
                    time.sleep(pause_s)
                else:
                    return

    def _save_rest(self, call: Call[Any], file: BinaryIO, progress: DownloadProgress) -> None:
        rest = replace(call, headers={**call.headers, **progress.headers()})
        with self.stream(rest) as response:
            progress.begin(response.status, response.headers)
            for chunk in response.chunks:
                file.write(chunk)
                progress.add(len(chunk))

    def iter_items(
        self,
        path: str,
        parse: Callable[[Response], Page[_Result]],
        params: Mapping[str, Any] | None = None,
    ) -> Iterator[_Result]:
        """Yield the items of all pages of a list, which are fetched as needed; raises as `send`."""
        cursor = None
        while True:
            query = {**(params or {}), "cursor": cursor}
            page = self.send(Call("GET", path, parse, params=query))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def _retry(self, call: Call[Any], take: Callable[[httpx.Response], _Result]) -> _Result:
        """Send a request until it succeeds or there is no hope; return what `take` returns."""
        request_id = self._settings.request_ids()
        attempts = self._settings.attempts(call)
        while True:
            try:
                return take(self._begin(call, request_id))
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _begin(self, call: Call[Any], request_id: str) -> httpx.Response:
        """Return a successful response of which only the headers have been read."""
        options = self._settings.request_options(call, request_id)
        content = None if call.body is None else _iter_body(call.body.chunks())
        try:
            request = self._http.build_request(**options, content=content)
            response = self._http.send(request, stream=True)
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error
        if response.status_code < _MULTIPLE_CHOICES:
            tell_warnings(response.headers)
            return response
        raise read_error(self._read(response))

    def _read(self, response: httpx.Response) -> Response:
        try:
            return Response(response.status_code, response.headers, response.read())
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error
        finally:
            response.close()

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error


def _leave_unread(response: httpx.Response) -> httpx.Response:
    return response


def _iter_body(chunks: Iterator[bytes]) -> Iterator[bytes]:
    while (chunk := next(chunks, None)) is not None:
        yield chunk
