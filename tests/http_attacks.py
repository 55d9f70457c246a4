"""Requests whose framing is right, wrong or doubtful, made from a seed.

Each is one request by RFC 9112, or none at all. A second one is hidden in its body, in a value or
behind an end that is none: whoever serves that reads the bytes in another way than the RFC does.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SCORE = b"/v1/models/people/log_prob"
_TYPE = b"Content-Type: application/json"


@dataclass(frozen=True)
class Attack:
    """What one connection sends.

    Args:
        name: of the kind.
        pieces: the bytes, in the pieces in which they are sent.
        hidden: the request id of the request that must not be served; none, if it may be.
    """

    name: str
    pieces: Sequence[bytes]
    hidden: str | None


def attack(seed: int) -> Attack:
    """Make the attack of a seed."""
    rng = random.Random(seed)  # noqa: S311  nothing rests on it
    name, make = rng.choice(_KINDS)
    marker = f"hidden-{seed}"
    raw = make(rng, _hidden(rng, marker))
    if make in (_split_value, _tunnel):
        # A proxy may take a bare LF for an end (RFC 9112, 2.2), and continues after a refused CONNECT.
        marker = ""
    if rng.random() < 0.2:
        name, marker, raw = "damaged", "", _damaged(rng, raw)
    return Attack(f"{name} ({seed})", _cut(rng, raw), marker or None)


def _hidden(rng: random.Random, marker: str) -> bytes:
    id_ = b"X-Request-ID: " + marker.encode()
    body = b'{"rows": [[1.0, 2.0, 3.0]]}'
    return rng.choice(
        [
            b"GET /livez HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % id_,
            b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n\r\n" % id_,
            b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b\r\nContent-Length: %d\r\n\r\n%b"
            % (SCORE, _TYPE, id_, len(body), body),
        ]
    )


def _request(
    rng: random.Random, *headers: bytes, body: bytes = b"", method: bytes = b"", target: bytes = b""
) -> bytes:
    """A request with its headers in any order."""
    fields = [b"Host: x", _TYPE, *headers]
    if rng.random() < 0.3:
        rng.shuffle(fields)
    line = (method or b"POST") + b" " + (target or SCORE) + b" HTTP/1.1"
    return b"\r\n".join([line, *fields, b"", body])


def _chunked(rng: random.Random, data: bytes) -> bytes:
    pieces = b""
    while data:
        size = rng.randint(1, len(data))
        line = rng.choice([b"%x", b"%X", b"00%x", b"%x;a=b", b'%x;a="b c"']) % size
        pieces, data = pieces + line + b"\r\n" + data[:size] + b"\r\n", data[size:]
    return pieces + b"0\r\n" + rng.choice([b"", b"", b"A: b\r\n"]) + b"\r\n"


def _length(data: bytes) -> bytes:
    return b"Content-Length: %d" % len(data)


_UPGRADES: Sequence[Sequence[bytes]] = (
    (b"Connection: Upgrade", b"Upgrade: anything"),
    (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"),
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    (b"Upgrade: h2c",),
    (b"Connection: Upgrade",),
)
_CODINGS = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: chunked;a=b",
    b"X: y\rTransfer-Encoding: chunked",
    b"\x00Transfer-Encoding: chunked",
)
_LENGTHS = (
    b"Content-Length: +%d",
    b"Content-Length: -%d",
    b"Content-Length: %d, 0",
    b"Content-Length: 0, %d",
    b"Content-Length: 0x%d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length : %d\r\nContent-Length: 0",
    b"Content-Length: %d 0",
    b"Content-Length:\r\n %d",
    b"Content-Length: 1844674407370955161600%d",
    b"Content-Length: \x0b%d",
)
_SIZES = (
    b"+%x",
    b"-%x",
    b"0x%x",
    b" %x",
    b"%x ",
    b"10000000000000000%x",
    b"%x\n",
    b"%x;a\n",
    b'%x;a="\r\n"',
    b"%x\r",
    b"\r\n%x",
)


def _plain(rng: random.Random, hidden: bytes) -> bytes:
    return _request(rng, _length(hidden), body=hidden)


def _in_chunks(rng: random.Random, hidden: bytes) -> bytes:
    return _request(rng, b"Transfer-Encoding: chunked", body=_chunked(rng, hidden))


def _upgrade(rng: random.Random, hidden: bytes) -> bytes:
    upgrade = rng.choice(_UPGRADES)
    if rng.random() < 0.5:
        return _request(rng, *upgrade, _length(hidden), body=hidden)
    return _request(rng, *upgrade, b"Transfer-Encoding: chunked", body=_chunked(rng, hidden))


def _both(rng: random.Random, hidden: bytes) -> bytes:
    """A chunked body, and a length that ends before what is hidden in a chunk."""
    first = b"%x\r\n" % (len(hidden) + 1)
    body = first + b"x" + hidden + b"\r\n0\r\n\r\n"
    return _request(rng, rng.choice(_CODINGS[:1]), _length(first + b"x"), body=body)


def _doubtful_coding(rng: random.Random, hidden: bytes) -> bytes:
    """What ends the body by its length, or is refused; as chunks it would end before the rest."""
    body = b"0\r\n\r\n" + hidden
    return _request(rng, rng.choice(_CODINGS[1:]), _length(body), body=body)


def _doubtful_length(rng: random.Random, hidden: bytes) -> bytes:
    return _request(rng, rng.choice(_LENGTHS) % len(hidden), body=hidden)


def _doubtful_size(rng: random.Random, hidden: bytes) -> bytes:
    line = rng.choice(_SIZES) % len(hidden)
    body = line + b"\r\n" + hidden + b"\r\n0\r\n\r\n"
    return _request(rng, b"Transfer-Encoding: chunked", body=body)


def _expecting(rng: random.Random, hidden: bytes) -> bytes:
    refused = rng.choice([(), (b"Content-Encoding: br",)])
    return _request(rng, b"Expect: 100-continue", *refused, _length(hidden), body=hidden)


def _refused_early(rng: random.Random, hidden: bytes) -> bytes:
    """An answer comes before the body, which then still is one."""
    method, target = rng.choice(
        [(b"POST", b"/v1/nothing"), (b"DELETE", b"/livez"), (b"GET", b"/livez")]
    )
    return _request(rng, _length(hidden), body=hidden, method=method, target=target)


def _without_body(rng: random.Random, hidden: bytes) -> bytes:
    method = rng.choice([b"HEAD", b"GET", b"OPTIONS", b"TRACE"])
    return _request(rng, _length(hidden), body=hidden, method=method, target=b"/livez")


def _tunnel(rng: random.Random, hidden: bytes) -> bytes:
    return _request(rng, body=hidden, method=b"CONNECT", target=b"x:80")


def _split_value(rng: random.Random, hidden: bytes) -> bytes:
    end = rng.choice([b"\n\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\x00\r\n\r\n"])
    return _request(rng, b"Content-Length: 0\r\nA: b" + end + hidden)


def _other_version(rng: random.Random, hidden: bytes) -> bytes:
    version = rng.choice([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2"])
    return _plain(rng, hidden).replace(b"HTTP/1.1", version, 1)


_Make = Callable[[random.Random, bytes], bytes]
_KINDS: Sequence[tuple[str, _Make]] = (
    ("a length", _plain),
    ("chunks", _in_chunks),
    ("an upgrade", _upgrade),
    ("an upgrade", _upgrade),
    ("chunks and a length", _both),
    ("a doubtful coding", _doubtful_coding),
    ("a doubtful length", _doubtful_length),
    ("a doubtful size", _doubtful_size),
    ("an expectation", _expecting),
    ("an early refusal", _refused_early),
    ("a method without a body", _without_body),
    ("a tunnel", _tunnel),
    ("a split value", _split_value),
    ("another version", _other_version),
)


def _damaged(rng: random.Random, raw: bytes) -> bytes:
    """Bytes changed, left out and added anywhere."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data))
        new = rng.choice(b"\r\n\t \0:;,0\x0b\xff/")
        match rng.randrange(3):
            case 0:
                data[place] = new
            case 1:
                data.insert(place, new)
            case _:
                del data[place]
    return bytes(data)


def _cut(rng: random.Random, raw: bytes) -> Sequence[bytes]:
    """One piece, or two: at the end of the head, or anywhere."""
    if rng.random() < 0.3:
        return [raw]
    head_end = raw.find(b"\r\n\r\n") + 4
    place = head_end if rng.random() < 0.7 and head_end < len(raw) else rng.randrange(1, len(raw))
    return [raw[:place], raw[place:]]
