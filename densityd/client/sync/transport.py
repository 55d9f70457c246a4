"""Sending requests and waiting for the answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from densityd.client.call import Answer, Call
from densityd.client.errors import ClientError
from densityd.client.settings import Settings
from densityd.client.wire.problems import error_of

_Result = TypeVar("_Result")
_MULTIPLE_CHOICES = 300


@dataclass(frozen=True)
class Incoming:
    """An answer whose bytes are still coming."""

    status: int
    pieces: Iterator[bytes]


class Transport:
    """Sends requests, again where that is safe.

    Args:
        settings: of the client.
        transport: of httpx, in place of the network's.
    """

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings = settings
        self._http = httpx.Client(**settings.http_options(), transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def send(self, call: Call[_Result]) -> _Result:
        """The result of a request.

        Raises:
            ApiError: the service refuses it.
            TransportError: there is no answer.
            UnexpectedAnswerError: the answer makes no sense.
        """

        def whole(response: httpx.Response) -> Answer:
            try:
                return Answer(response.status_code, response.headers, response.read())
            except httpx.RequestError as error:
                raise self._settings.error_of(error) from error
            finally:
                response.close()

        return call.parse(self._persist(call, whole))

    @contextmanager
    def stream(self, call: Call[Any]) -> Iterator[Incoming]:
        """The answer to a request while it comes; raises as `send`."""
        response = self._persist(call, lambda begun: begun)
        try:
            yield Incoming(response.status_code, self._pieces(response))
        finally:
            response.close()

    def _persist(self, call: Call[Any], take: Callable[[httpx.Response], _Result]) -> _Result:
        """Send, and send again as long as there is hope; what `take` makes of the response."""
        request_id = self._settings.request_ids()
        sent = 0
        while True:
            try:
                return take(self._begin(call, request_id))
            except ClientError as error:
                sent += 1
                pause_s = self._settings.retries.pause_s(error, sent=sent, retry=call.retry)
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _begin(self, call: Call[Any], request_id: str) -> httpx.Response:
        """A response that is no error, of which only the headers have been read."""
        options = self._settings.request_options(call, request_id)
        content = None if call.body is None else call.body.pieces()
        try:
            request = self._http.build_request(**options, content=content)
            response = self._http.send(request, stream=True)
            if response.status_code < _MULTIPLE_CHOICES:
                return response
            try:
                answer = Answer(response.status_code, response.headers, response.read())
            finally:
                response.close()
        except httpx.RequestError as error:
            raise self._settings.error_of(error) from error
        raise error_of(answer)

    def _pieces(self, response: httpx.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except httpx.RequestError as error:
            raise self._settings.error_of(error) from error
