"""Protocol of a connection: the rules of RFC 9112, and bounds on what a connection may do."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.connections.early_answers import early_answer
from app.connections.groups import BODY_CAME, CONNECTION, ConnectionGroups, group_of_address
from app.connections.receiving.fast_bodies import FastBodies
from app.connections.receiving.framing import Framing
from app.connections.receiving.parsing import Parsing, ParsingEndedError
from app.connections.receiving.reading import (
    IDLE_ENDS,
    LATE_HEADS,
    READS,
    READS_EACH,
    Reading,
)
from app.connections.receiving.request_heads import HeadError, checked_target
from app.connections.unread import (
    BoundedReads,
    LingeringTransport,
    Unread,
    Unsent,
    bound_unsent,
)
from app.fairness.pace import Pace

LINGERING_PART = 16
"""One of so many connections may be closed slowly, since its caller may still be sending."""
_LOOKS = frozenset({b"/livez", b"/readyz"})
_NOTHING = memoryview(b"")


class BoundedProtocol(HttpToolsProtocol):
    """Protocol of uvicorn, with bounds and with the rules that its parser does not check.

    A request that breaks them is answered in its turn, and the connection is closed.
    """

    header_timeout_s = 10.0
    write_timeout_s = 30.0
    path_prefix = ""  # `root_path` is uvicorn's own
    draining: ClassVar[bool] = False
    """True if connections close with their responses, since the server is about to stop."""
    open_connections: ClassVar[ConnectionGroups] = ConnectionGroups(1_000)
    pace: ClassVar[Pace] = Pace(each=READS_EACH, most=READS)
    idle_ends: ClassVar[Pace] = Pace(each=IDLE_ENDS, most=IDLE_ENDS)
    late_heads: ClassVar[Pace] = Pace(each=LATE_HEADS, most=LATE_HEADS)
    lingering: ClassVar[ConnectionGroups] = ConnectionGroups(1_000 // LINGERING_PART)
    """Connections whose last response arrives first, while what their callers still send is dropped."""

    _header_timer: asyncio.TimerHandle | None = None
    _made = False
    _persistent = True  # what the newest request says about the connection
    _refused = False
    _looks_only = False  # it is one more than there may be, and may ask how things stand
    _refusal = b""  # waits for the answers before it
    _served: RequestResponseCycle | None = None  # the newest request that has begun
    _ignored: RequestResponseCycle | None = None  # a request of whose body nothing is kept
    _cut_off = False  # the connection was lost before its response was complete
    _stopping = False  # it closes as soon as what came is answered
    _transport: LingeringTransport
    _reading: Reading
    _unread: Unread
    _unsent: Unsent
    _bodies: FastBodies
    _parsing: Parsing
    _framing: Framing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Make room for the connection or refuse it, and wait for its first request."""
        bound_unsent(transport)
        transport.set_protocol(BoundedReads(self))
        self._transport = LingeringTransport(transport, self._close)
        self._unread = Unread(self.loop, self.header_timeout_s, self._close_at_once)
        self._unsent = Unsent(self.loop, self._transport, self.write_timeout_s)
        self._bodies = FastBodies(self.loop)
        self._parsing = Parsing(self, self._refuse)
        self._framing = self._parsing.framing
        self._reading = Reading(self._transport, self.pace, self._take)
        super().connection_made(self._transport)
        known = self.open_connections
        is_full = len(known) >= known.most and not known.make_room()
        self._looks_only = is_full
        if is_full and len(known) >= known.most_reserved:
            self._refuse("overloaded")
            return
        self._reading.caller = group_of_address(self.client)
        known.put(self, self._reading.caller)
        self._await_headers()
        self._made = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Parse nothing more; what waits for the connection is told when it is the caller's turn.

        What is about to be sent is dropped from now on: the transport raises.
        """
        self._parsing.ended = True
        served = self._served  # uvicorn tells the newest request alone
        if served is not None and not served.response_complete:
            served.disconnected = self._cut_off = True
        self.open_connections.remove(self)
        nobody_waits = served is None or served.response_complete
        pace = self.idle_ends if nobody_waits else self.pace
        self._reading.end(pace, partial(self._leave, exc))

    def _leave(self, exc: Exception | None) -> None:
        """Stop the timers, and tell the request that is being served."""
        self._stop_timer()
        self._unsent.end()
        self._unread.stop()
        self.lingering.remove(self)
        self._bodies.drop()
        self._bodies.end()
        if self._served is not None:
            self._served.message_event.set()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._forget()

    def _forget(self) -> None:
        """Refer to nothing that refers to this connection: only a full collection would free it."""
        self._transport.forget()
        self._unread.forget()
        self._reading.forget()
        self._parsing.forget()
        self.cycle = self._served = self._ignored = self.scope = None  # type: ignore[assignment]  # as uvicorn's parser
        self.pipeline.clear()

    @staticmethod
    def known_key(authorization: bytes) -> str | None:  # noqa: ARG004 - of the server that knows keys
        """Return the id of the key in an `Authorization` header, if it was valid lately."""
        return None

    def data_received(self, data: bytes) -> None:
        """Parse the data when it is the caller's turn, unless the connection is being closed."""
        self._unsent.add_received(len(data))
        if self._unread.active:
            self._unread.add(len(data))
        if not self._parsing.ended:
            self._unset_keepalive_if_required()
            self._reading.receive(data, self.known_key)
            return
        self._parsing.more_came = True
        self._transport.hold_reading()
        if self._unread.active:
            self._reading.read_on()

    def _take(self, data: memoryview) -> memoryview:
        """Parse what takes no longer than a turn may, and return the rest.

        Uvicorn ends a silent connection between two requests. One that is not silent, but sends
        line ends, has as much time as headers have.
        """
        if not self._parsing.ended:
            if not self._parsing.in_body and self._is_idle() and self._header_timer is None:
                self._await_headers()
            data = self._parsing.parse_some(data)
            if self._parsing.in_body:
                self._bodies.end_read(self.cycle)
        if self._parsing.ended:
            self._parsing.more_came |= bool(data)
        elif self._unread.active and data:
            self.transport.close()  # to find its end takes too long
        elif self._stopping and not data and self._is_idle():
            self.transport.close()
        else:
            return data
        return _NOTHING

    def _is_idle(self) -> bool:
        """Return whether all requests that came are answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def on_message_begin(self) -> None:
        """Begin a request: its headers must come soon."""
        self._parsing.begin()
        super().on_message_begin()
        self.scope["state"][CONNECTION] = self
        if self._header_timer is None:
            self._await_headers()

    def on_url(self, url: bytes) -> None:
        """Count the path as header bytes."""
        self.url += url
        self._parsing.add_target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header and keep it, unless it follows the body."""
        self._parsing.add_field(name, value)
        if not self._parsing.in_body:
            name = name.lower()
            self.headers.append((name, value))
            if name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif name == b"content-length":
                self._framing.declare(int(value))

    def on_headers_complete(self) -> None:
        """Check the head of a request, and have it served."""
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        try:
            self.url = checked_target(method, version, self.url, self.headers)
        except HeadError as error:
            self._refuse(error.slug, error.detail, is_head=method == b"HEAD")
            raise
        if self._looks_only and self.url.partition(b"?")[0] not in _LOOKS:
            self._refuse("overloaded", is_head=method == b"HEAD")
            raise ParsingEndedError
        if self._parsing.ignores_upgrade():
            return
        self._stop_timer()
        if version == "1.0":
            self.expect_100_continue = False
        super().on_headers_complete()
        self._parsing.in_body = True
        cycle = self.cycle
        persistent = cycle.keep_alive and not (self.draining or self._stopping)
        self._persistent = persistent and len(self.pipeline) < self.open_connections.most_pipelined
        # Who waits to be asked for the body may send the next request instead, once there is an
        # answer: what is body then nobody knows.
        cycle.keep_alive = self._persistent and not self.expect_100_continue

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on; more at a time of a fast one."""
        self._framing.add_body(len(body))
        if self.expect_100_continue:
            self._expect_nothing()
        if self.cycle is not self._ignored:
            self._bodies.add(body)

    def on_message_complete(self) -> None:
        """End the body of a request."""
        if self._parsing.upgrade_ignored:
            return
        if self.expect_100_continue:
            self._expect_nothing()
        self._parsing.in_body = False
        self._unread.stop()
        self._parsing.ended = not self._persistent
        self.scope["state"][BODY_CAME] = True
        self._bodies.pass_on(self.cycle)
        self._bodies.end()
        super().on_message_complete()
        if self.cycle.response_complete:
            self._await_next()

    def pause_writing(self) -> None:
        """Wait for a caller who reads more slowly than is sent, but not for ever."""
        super().pause_writing()
        self._unsent.watch()

    def resume_writing(self) -> None:
        """Go on once the caller has read the buffered bytes; what is left when it closes is watched to the end."""
        if not self.transport.is_closing():
            self._unsent.stop()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Go on with the next request; the last bytes must be read before the connection can close."""
        self.open_connections.touch(self)
        if self._served is not None:
            self._served.body = bytearray()  # nobody asks for it any more
        was_last = not self.pipeline
        if was_last:
            self._bodies.end()  # of the rest nothing is kept
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if was_last and self._refusal:
            self._send_refusal()
        elif was_last and self._parsing.in_body:
            self._unread.begin()

    @property
    def is_unheard(self) -> bool:
        """True while its first bytes have not come, or wait for their turn."""
        return self._made and not (self._parsing.ended or self._reading.began)

    @property
    def lost(self) -> bool:
        """True if the connection was lost before the response being sent was complete."""
        return self._cut_off or (self._served is not None and self._served.disconnected)

    def assign(self, caller: str) -> None:
        """Move the connection to the group of a caller, who waits for a response from now on."""
        if self not in self.open_connections:
            return  # it was lost meanwhile, or made room: nothing would take it out again
        self._reading.caller = caller
        served = self._served
        if served is None or served.response_complete:
            self.open_connections.put(self, caller)
        else:
            self.open_connections.admit(self, caller)

    def ignore_body(self) -> None:
        """Keep nothing of the body of the request being served, and read no more before its response."""
        served = self._served
        if served is None or served.response_complete:
            return
        self._ignored = served
        served.body = bytearray()
        if self.cycle is served and self._parsing.in_body:
            self._bodies.drop()
            self.flow.pause_reading()

    def await_whole_body(self, size: int, has_room: Callable[[int], bool]) -> None:
        """Pass the body of the request being served on as a whole, if it comes fast and has room."""
        if self._served is not None:
            self._bodies.await_whole(self._served, size, has_room)

    def drop(self) -> None:
        """Close it now, since others need the room: of a response, what the kernel takes at once is sent."""
        self._parsing.ended = True
        self._stop_timer()
        if self._served is None or self._served.response_complete:
            self._transport.close_at_once()
            self.loop.call_soon(self._transport.abort)  # once what waits in this iteration is sent
        else:
            self._transport.abort()

    def break_off(self) -> None:
        """Reset the connection: neither what waits here nor what waits in the kernel is sent."""
        served = self._served
        if served is not None and not served.response_complete:
            served.disconnected = self._cut_off = True
            self._transport.reset()

    def shutdown(self) -> None:
        """Close after the request that is being served, or waits for its turn: the server stops."""
        self._persistent = False
        self._stopping = True
        if self._parsing.ended or not self._reading.waits:
            super().shutdown()

    def _await_next(self) -> None:
        """Wait for the next request, now that the rest of one has come that was answered before."""
        self._unset_keepalive_if_required()
        wait_s, give_up = self.timeout_keep_alive, self.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, give_up)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless a further request has come, of which a part may wait for its turn."""
        if self._is_idle() and self._header_timer is None and not self._reading.waits:
            super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def _expect_nothing(self) -> None:
        """Note that the body comes, asked for or not."""
        self.expect_100_continue = False
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._persistent

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_timeout(self) -> None:
        """Refuse a head that is late when it is the caller's turn: thousands may be late at once."""
        self.late_heads.begin(self._reading.caller, partial(self._give_up, self._header_timer))

    def _give_up(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not self._header_timer:
            return  # the head has come meanwhile
        self._header_timer = None
        if self.flow.read_paused:
            self._await_headers()  # they may have come: nothing is read before the requests that wait
        elif not self.transport.is_closing():
            # What is held has come, and waits for its turn behind the work of others.
            self._refuse("overloaded" if self._transport.held else "header-timeout")

    def _refuse(self, slug: str, detail: str = "", *, is_head: bool = False) -> None:
        """Parse nothing more, and answer the newest request with a problem in its turn."""
        if self._refused:
            return
        self._refused = self._parsing.ended = True
        self._stop_timer()
        headers, prefix = self.server_state.default_headers, self.path_prefix
        self._refusal = early_answer(slug, detail, headers, is_head=is_head, root_path=prefix)
        cycle = self.cycle
        if self._parsing.in_body:
            self._parsing.in_body = False
            if self.pipeline:
                self.pipeline.popleft()  # the newest one is this
            else:
                # Whoever serves it finds the caller gone.
                cycle.disconnected = True
                cycle.message_event.set()
                if cycle.response_started:
                    self._refusal = b""
                self._send_refusal()
        elif self._is_idle():
            self._send_refusal()

    def _send_refusal(self) -> None:
        if self._refusal:
            self.transport.write(self._refusal)
            self._refusal = b""
        self.transport.close()

    def _close(self) -> None:
        """Close the connection; where the caller may still be sending, let the response arrive first."""
        paused = self.flow.read_paused or self._transport.held
        busy = self._parsing.in_body or self._refused or self._parsing.more_came or paused
        if self.transport.is_closing() or not busy:
            self._close_at_once()
            return
        if len(self.lingering) >= self.lingering.most:
            self.lingering.make_room()  # of the caller with most
        self._parsing.ended = True
        self.lingering.put(self, self._reading.caller)
        self._transport.half_close()
        self._unsent.watch()
        self.flow.resume_reading()
        self._transport.release_reading()
        self._unread.begin()

    def _close_at_once(self) -> None:
        """Close both directions once everything has been sent, for which the caller must read on."""
        self._transport.close_at_once()
        self._unsent.watch()
