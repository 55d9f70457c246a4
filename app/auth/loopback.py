"""Whether an address or a name means this machine and nobody else's."""

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is this machine's own."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


@lru_cache(maxsize=256)
def is_local_name(host: str) -> bool:
    """Whether a `Host` header cannot be a name that somebody else's DNS server answers for.

    Such a name could be made to mean this machine, and a page of theirs could then read from it.
    Addresses and names without a dot cannot.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in host or host.partition(":")[0].lower().endswith(".localhost")
    return True
