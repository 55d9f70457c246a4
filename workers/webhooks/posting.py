"""POST to an address of a stranger: to public addresses alone, without redirects, for a bounded time."""

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from models_store.webhooks.addresses import as_address, is_public

_TIMEOUT_S = 10.0
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
        timeout_s: Seconds for the connection, the request and the head of the response together.

    Raises:
        RefusedAddressError: The host has an address that may not be called.
        OSError, http.client.HTTPException: There is no response.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = _connect(_lookup(host, port, private=private), timeout_s)
    # No response that comes byte by byte takes longer.
    watch = threading.Timer(timeout_s, _end, [sock])
    watch.daemon = True
    watch.start()
    try:
        if parts.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        connection.sock = sock
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {**headers, "Host": parts.netloc})
        return connection.getresponse().status
    finally:
        watch.cancel()
        sock.close()


def _lookup(host: str, port: int, *, private: bool) -> list[tuple[int, _Place]]:
    """Return the family and the address of each place that a host stands for."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        address = as_address(str(place[0]))
        if not private and (address is None or not is_public(address)):
            raise RefusedAddressError
    return [(int(family), place) for family, _, _, _, place in found]


def _connect(places: list[tuple[int, _Place]], timeout_s: float) -> socket.socket:
    """Connect to the first place that answers."""
    failure: OSError = OSError("the host has no address")
    for family, place in places[:4]:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout_s / 2)
        try:
            sock.connect(place)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _end(sock: socket.socket) -> None:
    """End a connection that takes too long; whoever waits for it gets an error."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        sock.close()
