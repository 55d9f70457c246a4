"""Parsing of what a connection sends, by the rules of RFC 9112, some of it at a time."""

import logging
from collections.abc import Callable
from typing import NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.connections.receiving.framing import CHUNKS_A_TURN, Framing
from app.connections.receiving.request_heads import grammar_error, without_upgrade

log = logging.getLogger(__name__)


class ParsingEndedError(Exception):
    """End of the parsing: raised in the parser's callbacks."""


class Parsing:
    """Parsing of the requests of one connection.

    `Upgrade` has no effect, as RFC 9110, 7.8 says of one that a server does not support.

    Args:
        protocol: Protocol of the connection, which has the parser and its callbacks.
        refuse: Function that refuses the newest request, with the slug and the detail of a problem, and
            ends the parsing.

    Attributes:
        ended: True once nothing more is parsed.
        more_came: True once something came after the last request.
        in_body: True while the head of a request has come, and the rest has not.
        upgrade_ignored: True while the head that came is to be parsed again, without its Upgrade.
        framing: Count of what surrounds bodies.
    """

    def __init__(self, protocol: HttpToolsProtocol, refuse: Callable[[str, str], None]) -> None:
        self.ended = self.more_came = self.in_body = self.upgrade_ignored = False
        self.framing = Framing()
        self._protocol = protocol
        self._refuse = refuse

    def parse_some(self, data: memoryview) -> memoryview:
        """Parse what takes no longer than a turn may, and return the rest.

        A read of a body in the smallest chunks calls `on_body` thousands of times.
        """
        framing = self.framing
        framing.chunks = 0
        while data and not self.ended and framing.chunks < CHUNKS_A_TURN:
            size = framing.next_slice(len(data))
            part, data = data[:size], data[size:]
            self._parse(part)
            if framing.has_too_much and not self.ended:
                if self.in_body:
                    self._refuse("bad-request", "The chunks of the body hold too little.")
                else:
                    self._refuse("limit-headers", "")  # one without end, which the parser keeps
        return data

    def begin(self) -> None:
        """Begin a request.

        Raises:
            ParsingEndedError: The one before was the last one.
        """
        if self.ended:
            self.more_came = True
            raise ParsingEndedError
        self.framing.begin()

    def add_target(self, part: bytes) -> None:
        """Count a part of the target as header bytes.

        Raises:
            ParsingEndedError: There are too many, as of `add_field`.
        """
        self.framing.add_target(part)
        if self.framing.has_too_many_headers:
            self._refuse_headers()

    def add_field(self, name: bytes, value: bytes) -> None:
        """Count a header, or one behind the body."""
        self.framing.add_field(name, value)
        if self.framing.has_too_many_headers:
            self._refuse_headers()

    def ignores_upgrade(self) -> bool:
        """Return whether the head that came is parsed again, since it asks for an upgrade."""
        self.upgrade_ignored = bool(self._protocol.parser.should_upgrade())
        return self.upgrade_ignored

    def forget(self) -> None:
        """Refer to nothing that refers to the connection."""
        del self._protocol, self._refuse

    def _refuse_headers(self) -> NoReturn:
        self._refuse("limit-headers", "")
        raise ParsingEndedError

    def _parse(self, data: memoryview) -> None:
        try:
            self._protocol.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._parse_without_upgrade()
            rest = data[stopped.args[0] :]
            if self.ended:
                self.more_came |= bool(rest)
            elif rest:
                self._parse(rest)
        except httptools.HttpParserError as error:
            self._on_error(error)

    def _parse_without_upgrade(self) -> None:
        """Parse the head once more: the parser then knows that a body follows it."""
        self.upgrade_ignored = False
        protocol = self._protocol
        method, version = protocol.parser.get_method(), protocol.parser.get_http_version()
        head = without_upgrade(method, version, protocol.url, protocol.headers)
        protocol.parser = httptools.HttpRequestParser(protocol)
        try:
            protocol.parser.feed_data(head)
        except httptools.HttpParserError as error:
            self._on_error(error)

    def _on_error(self, error: httptools.HttpParserError) -> None:
        if self.ended:
            return  # our own way to end the parsing
        if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(
            error.__context__, httptools.HttpParserInvalidURLError
        ):
            log.error("a request broke the protocol's own code", exc_info=error)
        refusal = grammar_error(str(error))
        self._refuse(refusal.slug, refusal.detail)
