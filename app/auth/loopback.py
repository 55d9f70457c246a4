"""Addresses and names of this machine."""

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return True if every address of `host` is a loopback address."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


@lru_cache(maxsize=256)
def is_local_name(host: str) -> bool:
    """Return True if a `Host` header is an address, or a name that no public DNS server resolves.

    A public name could be made to resolve to this machine, and a page of its owner could then read
    from it.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in host or host.partition(":")[0].lower().endswith(".localhost")
    return True
