"""Connections without sockets, on an event loop whose time passes at once."""

import asyncio
import selectors

import uvicorn

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import IDLE_ENDS, LATE_HEADS
from app.fairness.pace import Pace

_HIGH_BYTES, _LOW_BYTES = 64 * 1024, 16 * 1024  # of transports, between which nothing is told


class _Selector(selectors.SelectSelector):
    """Selector that does not wait: the time of its next timer has come."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class Loop(asyncio.SelectorEventLoop):
    """Event loop whose timers end as soon as there is nothing else to do."""

    def __init__(self):
        self._time = _Selector()
        super().__init__(self._time)

    def time(self):
        return self._time.now


class Line(asyncio.Transport):
    """Transport of a connection whose caller sends parts, with pauses in seconds between them."""

    def __init__(self, parts):
        super().__init__()
        self.sent = bytearray()
        self.reads = True
        self.closed = self.half_closed = False
        self.received = 0
        self._loop = asyncio.get_running_loop()
        self._parts = list(parts)
        self._scheduled = False

    @property
    def left(self):
        return len(self._parts)

    def feed(self, *parts):
        self._parts += parts
        self._read_soon()

    def set_protocol(self, protocol):
        self._protocol = protocol

    def get_extra_info(self, name, default=None):
        addresses = {"peername": ("192.0.2.1", 5), "sockname": ("192.0.2.2", 80)}
        return addresses.get(name, default)

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True
        self._read_soon()

    def write(self, data):
        if not self.closed:
            self.sent += data

    def write_eof(self):
        self.half_closed = True

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return self.closed

    def close(self):
        if not self.closed:
            self.closed = True
            self._end()

    abort = close

    def _end(self):
        self._loop.call_soon(self._protocol.connection_lost, None)

    def _read_soon(self, after_s=0.0):
        if self._parts and self.reads and not (self._scheduled or self.closed):
            self._scheduled = True
            self._loop.call_later(after_s, self._read) if after_s else self._loop.call_soon(
                self._read
            )

    def _read(self):
        self._scheduled = False
        if not self.reads or self.closed or not self._parts:
            return
        part = self._parts.pop(0)
        if isinstance(part, float):
            self._read_soon(part)
            return
        buffer = self._protocol.get_buffer(-1)
        size = min(len(part), len(buffer))
        buffer[:size] = part[:size]
        if size < len(part):
            self._parts.insert(0, part[size:])
        self.received += size
        self._protocol.buffer_updated(size)
        self._read_soon()


class SlowLine(Line):
    """The same, of a caller who reads when the test says so; the kernel takes nothing.

    As with a real one, what waits when it is closed is sent before it ends.
    """

    def __init__(self, parts):
        super().__init__(parts)
        self.unread = 0
        self.lost = self._paused = False

    def write(self, data):
        super().write(data)
        self.unread += len(data)
        if self.unread > _HIGH_BYTES and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def read(self, size):
        self.unread -= size
        if self.unread <= _LOW_BYTES and self._paused:
            self._paused = False
            self._protocol.resume_writing()
        if self.closed:
            self._end()

    def get_write_buffer_size(self):
        return self.unread

    def abort(self):
        self.closed = True
        self.unread = 0
        self._end()

    def _end(self):
        if self.unread == 0 and not self.lost:
            self.lost = True
            super()._end()


def connecting(application, pace=None, line_of=Line):
    """Return a function that makes a connection to an application: its protocol and its line."""
    config = uvicorn.Config(
        application, interface="asgi3", lifespan="off", ws="none", log_config=None
    )
    config.load()
    state = uvicorn.Server(config).server_state

    class Protocol(BoundedProtocol):
        pass

    Protocol.lingering = ConnectionGroups(6)
    Protocol.pace = pace or Pace(each=2, most=64)
    Protocol.open_connections = ConnectionGroups(100)
    Protocol.idle_ends = Pace(each=IDLE_ENDS, most=IDLE_ENDS)
    Protocol.late_heads = Pace(each=LATE_HEADS, most=LATE_HEADS)

    def connect(*parts):
        line = line_of(parts)
        protocol = Protocol(config, state, {})
        line.set_protocol(protocol)
        protocol.connection_made(line)
        line.feed()
        return protocol, line

    return connect


def run(main):
    """Run a coroutine on a loop whose time passes at once."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)


async def answer(send, body=b"", *, status=200):
    """Send a response of known length."""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    """Return what came of a body before its end, or that of the connection."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message["body"]
        more = message["more_body"]
    return body


def answers(sent):
    """Return the status and the body of each response, without those that ask for a body."""
    found, at = [], 0
    while at < len(sent):
        head, _, _ = bytes(sent[at:]).partition(b"\r\n\r\n")
        at += len(head) + 4
        status = int(head[9:12])
        if status != 100:
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            found.append((status, bytes(sent[at : at + size])))
            at += size
    return found
