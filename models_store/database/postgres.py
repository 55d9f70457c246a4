"""Connections to PostgreSQL that wait for an answer for a while, and no longer.

A server that is stopped, whose disk is frozen, or that no packet reaches, closes nothing: whoever waits for
its answer would wait for as long as that lasts. What it was asked to do may be done all the same: a transaction whose COMMIT
had no answer is committed or not, and holds its locks until the server knows.
"""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.abc import PQGen

T = TypeVar("T")

# Between two looks at the time.
_LOOK_S = 0.1
# Seconds of a long statement from one question whether its server answers others to the next, and questions
# without an answer after which it does not.
_ASK_S = 10.0
_IN_VAIN = 2


_asking = threading.Lock()
_answers: "dict[str, Future[None]]" = {}


class SilentServerError(psycopg.OperationalError):
    """Server that gave no answer for too long; its connection is closed."""


class LostCommitError(psycopg.OperationalError):
    """Connection that was lost while its transaction was to be committed: it is, or it is not.

    Attributes:
        may_be_committed: Marks the error for those who do not know the driver.
    """

    may_be_committed = True


class Judge(Protocol):
    """Judge of the time for which a statement's server may say nothing."""

    def is_over(self, waited_s: float, most_s: float) -> bool:
        """Return whether the server is waited for no longer."""


class Patience(Judge, Protocol):
    """Judge of the time for which a server may say nothing."""

    def is_silent(self) -> bool:
        """Return whether the server was silent a moment ago."""

    def note_silence(self) -> None:
        """Note that the server was silent."""

    def connect_s(self, usual_s: int) -> int:
        """Return the seconds that a connect may take."""


class LongPatience:
    """Judge that takes a server for silent once it answers nobody else either.

    Args:
        reach: Function that connects to the server anew.
    """

    def __init__(self, reach: Callable[[], None]) -> None:
        self._reach = reach
        self._asked_s = 0.0
        self._in_vain = 0

    def is_over(self, waited_s: float, most_s: float) -> bool:
        """Return whether the server is waited for no longer; now and then it is asked by another connection."""
        if waited_s < self._asked_s:  # it said something meanwhile
            self._asked_s, self._in_vain = 0.0, 0
        if waited_s >= most_s:
            return True
        if waited_s - self._asked_s < _ASK_S:
            return False
        self._asked_s = waited_s
        self._in_vain = self._in_vain + 1 if self._is_deaf() else 0
        return self._in_vain >= _IN_VAIN

    def _is_deaf(self) -> bool:
        try:
            self._reach()
        except psycopg.errors.ConnectionTimeout:
            return True
        except psycopg.Error:  # such as of one that has no room for more connections
            return False
        return False


class BoundedConnection(psycopg.Connection[Any]):
    """Connection to a server that is not waited for without an end.

    Attributes:
        patience: Judge of the time for which the server says nothing.
    """

    patience: Judge
    _most_s = math.inf

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Wait for answers for this time at most, as long as the context lasts."""
        self._most_s = seconds
        try:
            yield
        finally:
            self._most_s = math.inf

    def wait(self, gen: PQGen[T], interval: float = _LOOK_S, timeout: float | None = None) -> T:
        """Wait for the server as its driver does, and close the connection once that takes too long.

        Raises:
            SilentServerError: There was no answer.
        """
        limit = {} if timeout is None else {"timeout": timeout}  # which older drivers do not know
        try:
            return super().wait(self._bounded(gen), interval, **limit)
        except SilentServerError:
            self.close()
            raise

    def commit(self) -> None:
        """Commit the transaction.

        Raises:
            LostCommitError: The connection was lost before there was an answer.
        """
        try:
            super().commit()
        except psycopg.OperationalError as error:
            if self.closed and not self.read_only:
                raise LostCommitError(str(error)) from error
            raise

    def _bounded(self, gen: PQGen[T]) -> PQGen[T]:
        """Pass on what the driver waits for, as long as the server is not silent for too long."""
        heard_at = time.monotonic()
        try:
            waits_for = next(gen)
            while True:
                ready = yield waits_for
                now = time.monotonic()
                if ready:
                    heard_at = now
                elif self.patience.is_over(now - heard_at, self._most_s):
                    raise SilentServerError("the server gave no answer in time")
                waits_for = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


def connect(patience: Patience, *args: Any, **parameters: Any) -> BoundedConnection:  # noqa: ANN401 - the driver's
    """Connect, unless the server was silent a moment ago: whoever was queued behind the others is told so, too.

    Args:
        patience: Judge of the time for which the server may say nothing.
        *args: Arguments of the driver.
        **parameters: Parameters of the driver.

    Raises:
        psycopg.OperationalError: There is no connection.
    """
    if patience.is_silent():
        raise SilentServerError("the server gave no answer a moment ago")
    longest_s = patience.connect_s(int(parameters.pop("connect_timeout")))
    try:
        _await_names(str(parameters.get("host", "")), longest_s)
        connection = BoundedConnection.connect(*args, connect_timeout=longest_s, **parameters)
    except (psycopg.errors.ConnectionTimeout, SilentServerError):
        patience.note_silence()
        raise
    connection.patience = patience
    return connection


def _await_names(hosts: str, longest_s: float) -> None:
    """Wait until the system's resolver has said something of each host.

    The driver resolves them within its connect, for as long as that takes.

    Raises:
        SilentServerError: The resolver said nothing in time.
    """
    for host in hosts.split(","):
        if host and not host.startswith("/"):
            try:
                _answer_of(host).result(longest_s)
            except TimeoutError:
                raise SilentServerError("no name server answered in time") from None


def _answer_of(host: str) -> "Future[None]":
    """Return the answer of the resolver, whatever it is; one thread waits for it, however many ask."""
    with _asking:
        answer = _answers.get(host)
        if answer is None or answer.done():
            answer = Future()
            threading.Thread(target=_ask, args=(host, answer), daemon=True).start()
            _answers[host] = answer
        return answer


def _ask(host: str, answer: "Future[None]") -> None:
    with suppress(OSError, UnicodeError):  # which the driver is told, too
        socket.getaddrinfo(host, None)
    answer.set_result(None)


def connect_long(*args: Any, **parameters: Any) -> BoundedConnection:  # noqa: ANN401 - the driver's
    """Connect for statements that take as long as they need, while their server answers others.

    Args:
        *args: Arguments of the driver.
        **parameters: Parameters of the driver.

    Raises:
        psycopg.OperationalError: There is no connection.
    """

    def reach() -> None:
        psycopg.connect(*args, **parameters).close()

    connection = BoundedConnection.connect(*args, **parameters)
    connection.patience = LongPatience(reach)
    return connection


def pinging(ping: Callable[[Any], bool], most_s: float) -> Callable[[Any], bool]:
    """Return a function that asks a connection for a sign of life, which takes less time than a statement may.

    Args:
        ping: Function that does so however long it takes.
        most_s: Seconds that it may take.
    """

    def bounded(connection: Any) -> bool:  # noqa: ANN401 - the pool's
        with connection.answering_within(most_s):
            return ping(connection)

    return bounded
