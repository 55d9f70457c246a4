"""Rules of HTTP/1.1 for the head of a request that the parser does not check."""

import re
from collections.abc import Callable, Hashable, Sequence

METHODS = frozenset(
    {b"GET", b"HEAD", b"QUERY", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"}
)
"""Methods that a route could have; others, such as CONNECT, are not implemented."""

Headers = Sequence[tuple[bytes, bytes]]

_HOST = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_AUTHORIZATION = re.compile(rb"\r\nauthorization:([^\r\n]*)", re.IGNORECASE)
_LOOKS = frozenset({b"livez", b"readyz"})
LIKELY_BYTES = 4096
"""Most of the first bytes of a connection in which a key is searched for."""
_VERSION_ERRORS = frozenset({"Invalid HTTP version", "Pause on PRI/Upgrade"})  # of the parser
_VERSION_RULE = "The version of HTTP must be 1.1 or 1.0."
_STRANGERS = 8  # parts of all who show neither a known key nor the line of a health check
# Marks of parameters and of list members, which count twice, and of escaped characters: to read one takes
# the event loop about a microsecond, and a head has room for sixty thousand.
_MOST_MARKS = 8192
_ABSOLUTE = re.compile(rb"https?://([^/?#]*+)([^#]*+)", re.IGNORECASE)


class HeadError(Exception):
    """Head of a request that is refused.

    Args:
        slug: Slug of the problem.
        detail: Rule that the head breaks.
    """

    def __init__(self, slug: str, detail: str) -> None:
        self.slug = slug
        self.detail = detail
        super().__init__(f"{slug}: {detail}")


def likely_caller(data: bytes, known_key: Callable[[bytes], str | None]) -> Hashable:
    """Return what the first bytes of connections of one caller are likely to share.

    Nothing but an order may rest on it. A key that was valid lately and each health check have a
    value of their own. All others, of which anybody can make as many as he likes, share a few.

    Args:
        data: First bytes of a connection.
        known_key: Function that returns the id of the key in an `Authorization` header, if it was
            valid lately.
    """
    key = _AUTHORIZATION.search(data, 0, LIKELY_BYTES)
    if key is not None:
        text = key[1].strip()
        return known_key(text) or hash(text) % _STRANGERS
    line = data[:LIKELY_BYTES].partition(b"\r\n")[0]
    path = line.partition(b" ")[2].partition(b" ")[0]
    name = path.rpartition(b"/")[2]
    return name if name in _LOOKS and b"?" not in path else hash(line) % _STRANGERS


def checked_target(method: bytes, version: str, target: bytes, headers: Headers) -> bytes:
    """Check a head by the rules of RFC 9112, and return its target in origin form.

    Args:
        method: Method of the request line.
        version: Version of the request line, such as `1.1`.
        target: Path and query, `*`, or an absolute URL.
        headers: Lower-case names, and values.

    Raises:
        HeadError: The head breaks a rule, or asks for something that is not implemented.
    """
    if version not in ("1.1", "1.0"):
        raise HeadError("http-version", _VERSION_RULE)
    if method not in METHODS:
        raise HeadError("not-implemented", "The method is none that this server knows.")
    _check_marks(target, headers)
    hosts, codings = _hosts_and_codings(headers)
    if codings:
        _check_codings(codings, version)
    host = _checked_host(hosts, version)
    if target.startswith(b"/") and b"#" not in target:
        return target
    if target == b"*" and method == b"OPTIONS":
        return target
    return _origin_form(target, host)


def without_upgrade(method: bytes, version: str, target: bytes, headers: Headers) -> bytes:
    """Write a head without its `Upgrade`; the arguments are those of `checked_target`."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    lines += [b"%b: %b" % field for field in headers if field[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def grammar_error(reason: str) -> HeadError:
    """Return the error for what the parser does not read, by the reason that it gives."""
    if reason in _VERSION_ERRORS:
        return HeadError("http-version", _VERSION_RULE)
    return HeadError("bad-request", "The request breaks the grammar of HTTP.")


def _check_marks(target: bytes, headers: Headers) -> None:
    if 2 * target.count(b"&") + target.count(b"%") > _MOST_MARKS:
        raise HeadError("limit-headers", "The query has too many parameters and escapes.")
    if 2 * sum([value.count(b",") for _, value in headers]) > _MOST_MARKS:
        raise HeadError("limit-headers", "The headers have too many members of lists.")


def _hosts_and_codings(headers: Headers) -> tuple[list[bytes], list[bytes]]:
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    return hosts, codings


def _check_codings(codings: Sequence[bytes], version: str) -> None:
    names = [name.strip(b" \t").lower() for value in codings for name in value.split(b",")]
    if version == "1.0":
        raise HeadError("bad-request", "HTTP/1.0 has no Transfer-Encoding.")
    if names.count(b"chunked") != 1 or names[-1] != b"chunked":
        raise HeadError("bad-request", "Transfer-Encoding must end with the only `chunked` in it.")
    if len(names) > 1:
        raise HeadError("not-implemented", "Transfer-Encoding may only be `chunked`.")


def _checked_host(hosts: Sequence[bytes], version: str) -> bytes | None:
    if len(hosts) > 1:
        raise HeadError("bad-request", "The request has more than one Host.")
    if not hosts:
        if version == "1.1":
            raise HeadError("bad-request", "The request has no Host.")
        return None
    host = hosts[0].rstrip(b" \t")
    if not _HOST.fullmatch(host):
        raise HeadError("bad-request", "Host is no name or address with an optional port.")
    return host


def _origin_form(target: bytes, host: bytes | None) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HeadError("bad-request", "The target is no path and no http or https URL.")
    authority, rest = absolute.groups()
    if not authority or not _HOST.fullmatch(authority):
        raise HeadError("bad-request", "The URL of the target has no valid host.")
    if host is not None and authority.lower() != host.lower():
        raise HeadError("bad-request", "The host of the target is another one than Host.")
    return bytes(rest if rest.startswith(b"/") else b"/" + rest)
