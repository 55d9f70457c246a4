"""Data that a connection receives, each of which is taken when it is the caller's turn."""

from collections.abc import Callable, Hashable
from functools import partial

from app.connections.receiving.request_heads import likely_caller
from app.connections.unread import LingeringTransport
from app.fairness.pace import Pace, Waiting

READS_EACH = 2
"""Reads and ends of the connections of one caller in an iteration of the event loop."""
READS = 64
"""The same of all callers."""
IDLE_ENDS = 32
"""Ends of connections without a request in progress in an iteration, more than are accepted in one, so that none pile
up."""
LATE_HEADS = 2
"""Connections whose heads came too slowly, and are refused in an iteration: each costs as much as a request."""

Take = Callable[[memoryview], memoryview]
"""Function that takes as much of some data as one turn may, and returns the rest."""


class Reading:
    """Data of one connection, of which no more are read while some wait for their turn.

    At most one piece of work waits, and reading is held until then: what came first is taken first,
    whoever the caller is meanwhile.

    Args:
        transport: Transport of the connection.
        pace: Order in which the callers of all connections have their turns.
        take: Function that takes data.

    Attributes:
        caller: Group of the caller who shares the event loop's time with others.
        began: True once the first data were taken, or dropped.
    """

    def __init__(self, transport: LingeringTransport, pace: Pace, take: Take) -> None:
        self.caller = ""
        self.began = False
        self._transport = transport
        self._pace = pace
        self._take = take
        self._heard = False  # something was received
        self._waiting: Waiting | None = None

    @property
    def waits(self) -> bool:
        """True while there is something that waits for its turn."""
        return self._waiting is not None

    def receive(self, data: bytes, known_key: Callable[[bytes], str | None]) -> None:
        """Take data now, or when it is the caller's turn.

        What comes first on a connection does not wait for what others at the address, who have shown no
        key, send slowly; and callers at one address, as behind a proxy, take turns by the key that they
        seem to have.

        Args:
            data: Data that came while nothing waited.
            known_key: Function that returns the id of a key that was valid lately; see `likely_caller`.
        """
        work = partial(self._take_some, memoryview(data))
        if self._heard:
            self._begin(work)
            return
        self._heard = True
        self._begin(work, group=f"new {self.caller}", part=likely_caller(data, known_key))

    def read_on(self) -> None:
        """Read what comes next when it is the caller's turn."""
        self._begin(self._transport.release_reading)

    def end(self, pace: Pace, leave: Callable[[], None]) -> None:
        """Drop what waits, since the connection is lost, and leave when it is the caller's turn.

        Args:
            pace: Order of the ends of such connections.
            leave: Function that ends the connection.
        """
        self.began = True
        if self._waiting is not None:
            self._waiting.drop()
        pace.begin(self.caller, leave)

    def forget(self) -> None:
        """Take nothing more, without the function that was given."""
        self._take = _all

    def _begin(self, work: Callable[[], None], *, group: str = "", part: Hashable = None) -> None:
        """Do the work now, or read nothing until it is the caller's turn."""
        waiting = self._pace.begin(group or self.caller, partial(self._do, work), part=part)
        if waiting is not None:
            self._waiting = waiting
            self._transport.hold_reading()

    def _do(self, work: Callable[[], None]) -> None:
        self._waiting = None
        work()

    def _take_some(self, data: memoryview) -> None:
        """Take what one turn may, and the rest in later ones."""
        self.began = True
        self._transport.release_reading()
        rest = self._take(data)
        if rest:
            self._transport.hold_reading()
            self._begin(partial(self._take_some, rest))


def _all(data: memoryview) -> memoryview:
    """Take all data, and do nothing with them."""
    return data[:0]
