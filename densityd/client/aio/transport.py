"""Requests over HTTP for `AsyncClient`, sent again where that is safe."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio
import httpx
from anyio import to_thread

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
class AsyncStream:
    """A response whose body is still arriving."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class AsyncTransport:
    """A connection pool that sends requests, again where that is safe.

    Args:
        transport: Transport of httpx in place of the network.
    """

    def __init__(
        self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(**settings.http_options(), transport=transport)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, call: Call[_Result]) -> _Result:
        """Send a request and return its result.

        Raises:
            ApiError: The service refuses the request.
            UnexpectedAnswerError: The response cannot be read.
        """
        return call.parse(await self._retry(call, self._read))

    async def fetch(self, kind: type[_Record], base: str, *names: str | int) -> _Record:
        """Return the record below a path; raises as `send`."""
        return await self.send(Call("GET", build_path(base, *names), kind.of))

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[AsyncStream]:
        """Send a request and yield its response while it arrives; raises as `send`."""
        response = await self._retry(call, _leave_unread)
        try:
            yield AsyncStream(response.status_code, response.headers, self._chunks(response))
        finally:
            await response.aclose()

    async def save(self, call: Call[Any], target: Path | BinaryIO) -> None:
        """Write the body of a response to a file; a path has all of it or is not written.

        A download that breaks off continues where it ended, if the service sends ranges of that file.

        Raises:
            OSError: The file cannot be written. Further errors are those of `send`.
        """
        with open_target(target) as file:
            progress = DownloadProgress(self._settings.retries)
            while True:
                try:
                    await self._save_rest(call, file, progress)
                except TransportError as error:
                    pause_s = progress.pause_s(error)
                    if pause_s is None:
                        raise
                    await anyio.sleep(pause_s)
                else:
                    return

    async def _save_rest(self, call: Call[Any], file: BinaryIO, progress: DownloadProgress) -> None:
        rest = replace(call, headers={**call.headers, **progress.headers()})
        async with self.stream(rest) as response:
            progress.begin(response.status, response.headers)
            async for chunk in response.chunks:
                await to_thread.run_sync(file.write, chunk)
                progress.add(len(chunk))

    async def iter_items(
        self,
        path: str,
        parse: Callable[[Response], Page[_Result]],
        params: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[_Result]:
        """Yield the items of all pages of a list, which are fetched as needed; raises as `send`."""
        cursor = None
        while True:
            query = {**(params or {}), "cursor": cursor}
            page = await self.send(Call("GET", path, parse, params=query))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _retry(
        self, call: Call[Any], take: Callable[[httpx.Response], Awaitable[_Result]]
    ) -> _Result:
        """Send a request until it succeeds or there is no hope; return what `take` returns."""
        request_id = self._settings.request_ids()
        attempts = self._settings.attempts(call)
        while True:
            try:
                return await take(await self._begin(call, request_id))
            except ClientError as error:
                pause_s = attempts.pause_s(error)
                if pause_s is None:
                    raise
            await anyio.sleep(pause_s)

    async def _begin(self, call: Call[Any], request_id: str) -> httpx.Response:
        """Return a successful response of which only the headers have been read."""
        options = self._settings.request_options(call, request_id)
        content = None if call.body is None else _iter_body(call.body.chunks())
        try:
            request = self._http.build_request(**options, content=content)
            response = await self._http.send(request, stream=True)
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error
        if response.status_code < _MULTIPLE_CHOICES:
            tell_warnings(response.headers)
            return response
        raise read_error(await self._read(response))

    async def _read(self, response: httpx.Response) -> Response:
        try:
            return Response(response.status_code, response.headers, await response.aread())
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error
        finally:
            await response.aclose()

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except httpx.RequestError as error:
            raise self._settings.wrap_error(error) from error


async def _leave_unread(response: httpx.Response) -> httpx.Response:
    return response


async def _iter_body(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await to_thread.run_sync(next, chunks, None)) is not None:
        yield chunk
