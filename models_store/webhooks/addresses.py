"""Addresses that a webhook may have: nothing that only this machine or its network can reach."""

import ipaddress
import re
from urllib.parse import urlsplit

from models_store.errors import RequestError

MAX_URL = 2000
_PLAIN = re.compile(r"[\x21-\x7e]+")
# Of IPv6, all that is assigned to the public internet lies here; the rest is translated, tunnelled or local.
_ASSIGNED = ipaddress.ip_network("2000::/3")
# Not all versions of Python know that these are no hosts of the internet.
_RESERVED = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "2001::/23"))
)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str, *, private: bool) -> None:
    """Refuse an address of a webhook that is never called.

    A name is looked up when the webhook is called, and its addresses are checked then.

    Args:
        url: Address of the caller.
        private: True if http and addresses of private networks are allowed.

    Raises:
        RequestError: `validation`.
    """
    fault = _fault(url, schemes=("https", "http") if private else ("https",))
    if fault is None and not private:
        address = as_address(urlsplit(url).hostname or "")
        if address is not None and not is_public(address):
            fault = "The URL names an address that is not public."
    if fault is not None:
        raise RequestError("validation", fault, pointer="/url")


def _fault(url: str, *, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "The URL cannot be read."
    if not _PLAIN.fullmatch(url) or len(url) > MAX_URL:
        return f"The URL must have at most {MAX_URL} characters, all of them ASCII without spaces."
    if parts.scheme not in schemes:
        return f"The URL must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}."
    if not parts.hostname or port == 0 or "@" in parts.netloc or parts.fragment:
        return "The URL must have a host, and neither a user name nor a fragment."
    return None


def as_address(host: str) -> IPAddress | None:
    """Return the address that a host is written as; None: it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_public(address: IPAddress) -> bool:
    """Return whether an address is one of the public internet.

    Addresses of IPv6 that stand for one of IPv4 are judged by that, or refused.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None or address not in _ASSIGNED:
            return False
    if any(address in network for network in _RESERVED):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)
