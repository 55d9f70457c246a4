"""POST to an address of a stranger: to public addresses alone, without redirects, for a bounded time."""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from models_store.webhooks.addresses import as_address, is_public

_TIMEOUT_S = 10.0
_MOST_PLACES = 4
_MAX_HEAD_BYTES = 64 * 1024
_INTERIM = range(102, 200)
_Place = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class RefusedAddressError(Exception):
    """Name that stands for an address that is not public."""


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    private: bool,
    timeout_s: float = _TIMEOUT_S,
) -> int:
    """Send a request and return the status of its response, whose body is not read.

    The name is looked up once, all its addresses are checked, and the connection is made to one of
    those: a name that has another address a moment later changes nothing.

    Args:
        url: Address that `check_url` accepts.
        body: Body of the request.
        headers: Headers of the request.
        private: True if addresses of private networks are allowed.
        timeout_s: Most seconds for the connection, and for the handshake, the request and the head
            of the response together.

    Raises:
        RefusedAddressError: The host has an address that may not be called.
        OSError, http.client.HTTPException: There is no response.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = _connect(_lookup(host, port, private=private), timeout_s)
    if parts.scheme == "https":
        # The handshake waits for the watch, and a wrapped socket replaces the plain one.
        sock = ssl.create_default_context().wrap_socket(
            sock, server_hostname=host, do_handshake_on_connect=False
        )
    # No handshake and no response that comes byte by byte takes longer.
    late = threading.Event()
    watch = threading.Timer(timeout_s, _end, [sock, late])
    watch.daemon = True
    watch.start()
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        connection.sock = sock
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {**headers, "Host": parts.netloc})
        status = _status(sock)
    except (OSError, http.client.HTTPException):
        if late.is_set():
            raise TimeoutError from None  # the watch ended the connection, not the receiver
        raise
    else:
        if late.is_set():
            raise TimeoutError  # the end of the connection is taken for that of the head
        return status
    finally:
        watch.cancel()
        sock.close()


def _status(sock: socket.socket) -> int:
    """Read the head of a response, and those of interim ones before it, such as `103 Early Hints`."""
    response = http.client.HTTPResponse(sock, method="POST")
    response.fp = io.BufferedReader(_Head(sock))
    response.begin()  # which passes over `100 Continue` itself
    while response.status in _INTERIM:
        response.headers = None  # type: ignore[assignment]  # or it would not read another one
        response.begin()
    return response.status


class _Head(io.RawIOBase):
    """First bytes that a socket receives: reading a head without end would keep a processor busy."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._left = _MAX_HEAD_BYTES

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any that can be written to
        """Receive some bytes.

        Raises:
            http.client.HTTPException: There were too many.
        """
        if self._left <= 0:
            raise http.client.HTTPException("the head of the response is too long")
        count = self._sock.recv_into(buffer)
        self._left -= count
        return count


def _lookup(host: str, port: int, *, private: bool) -> list[tuple[int, _Place]]:
    """Return the family and the address of each place that a host stands for."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a name that no resolver would be asked for
        raise OSError("the host is no name") from None
    for *_, place in found:
        address = as_address(str(place[0]))
        if not private and (address is None or not is_public(address)):
            raise RefusedAddressError
    return [(int(family), place) for family, _, _, _, place in found]


def _connect(places: list[tuple[int, _Place]], timeout_s: float) -> socket.socket:
    """Connect to the first place that answers."""
    failure: OSError = OSError("the host has no address")
    tried = places[:_MOST_PLACES]
    for family, place in tried:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout_s / len(tried))
        try:
            sock.connect(place)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _end(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that takes too long, and note that it did."""
    late.set()
    try:
        # That of TLS would change the state under the thread that waits.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        sock.close()
