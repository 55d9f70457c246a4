"""Sending requests from an event loop."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import httpx
from anyio import to_thread

from densityd.client.call import Answer, Call
from densityd.client.errors import ClientError
from densityd.client.settings import Settings
from densityd.client.wire.problems import error_of

_Result = TypeVar("_Result")
_MULTIPLE_CHOICES = 300


@dataclass(frozen=True)
class AsyncIncoming:
    """An answer whose bytes are still coming."""

    status: int
    pieces: AsyncIterator[bytes]


class AsyncTransport:
    """As `Transport`; files are read off the event loop.

    Args:
        settings: of the client.
        transport: of httpx, in place of the network's.
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
        """The result of a request; raises as `Transport.send`."""

        async def whole(response: httpx.Response) -> Answer:
            try:
                return Answer(response.status_code, response.headers, await response.aread())
            except httpx.RequestError as error:
                raise self._settings.error_of(error) from error
            finally:
                await response.aclose()

        return call.parse(await self._persist(call, whole))

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[AsyncIncoming]:
        """The answer to a request while it comes; raises as `send`."""

        async def begun(response: httpx.Response) -> httpx.Response:
            return response

        response = await self._persist(call, begun)
        try:
            yield AsyncIncoming(response.status_code, self._pieces(response))
        finally:
            await response.aclose()

    async def _persist(
        self, call: Call[Any], take: Callable[[httpx.Response], Awaitable[_Result]]
    ) -> _Result:
        """Send, and send again as long as there is hope; what `take` makes of the response."""
        request_id = self._settings.request_ids()
        sent = 0
        while True:
            try:
                return await take(await self._begin(call, request_id))
            except ClientError as error:
                sent += 1
                pause_s = self._settings.retries.pause_s(error, sent=sent, retry=call.retry)
                if pause_s is None:
                    raise
            await anyio.sleep(pause_s)

    async def _begin(self, call: Call[Any], request_id: str) -> httpx.Response:
        """A response that is no error, of which only the headers have been read."""
        options = self._settings.request_options(call, request_id)
        content = None if call.body is None else _off_the_loop(call.body.pieces())
        try:
            request = self._http.build_request(**options, content=content)
            response = await self._http.send(request, stream=True)
            if response.status_code < _MULTIPLE_CHOICES:
                return response
            try:
                answer = Answer(response.status_code, response.headers, await response.aread())
            finally:
                await response.aclose()
        except httpx.RequestError as error:
            raise self._settings.error_of(error) from error
        raise error_of(answer)

    async def _pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_bytes():
                yield piece
        except httpx.RequestError as error:
            raise self._settings.error_of(error) from error


async def _off_the_loop(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
