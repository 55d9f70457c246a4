"""A crowd of connections with one key, as a process of its own: ``python -m bench.crowd.callers``.

Each sends its next request after any response, and reconnects when the connection is closed.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
from collections.abc import Callable

import numpy as np
from backports import zstd

_SLOW_S = 1.0
_READ_BYTES = 2**16
_PIPELINED = 500


def main() -> None:
    """Keep the connections busy until this process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("token")
    parser.add_argument("job", help="a job to follow")
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--connections", type=int, default=2_000)
    options = parser.parse_args()
    os.nice(10)  # clients are usually on other machines
    asyncio.run(_crowd(options))


async def _crowd(options: argparse.Namespace) -> None:
    def head(method: str, path: str, *lines: str) -> bytes:
        always = (f"Host: localhost:{options.port}", f"Authorization: Bearer {options.token}")
        return "\r\n".join([f"{method} {path} HTTP/1.1", *always, *lines, "", ""]).encode()

    made = {kind: KINDS[kind](head, options.job) for kind in options.kinds}
    callers = []
    for number in range(options.connections):
        first, later = made[options.kinds[number % len(options.kinds)]]
        callers.append(asyncio.create_task(_call(options.port, first, later)))
        if number % 50 == 49:
            await asyncio.sleep(0.05)  # or the queue of the socket that listens runs over
    await asyncio.gather(*callers)


async def _call(port: int, first: bytes, later: bytes) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await _talk(reader, writer, first, later)
            finally:
                writer.close()
        await asyncio.sleep(0.1)


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, later: bytes
) -> None:
    """Send requests repeatedly; send the rest of one, if there is any, chunk by chunk."""
    while True:
        writer.write(first)
        if not later:
            await writer.drain()
            if not await _answer(reader):
                return
            continue
        while not reader.at_eof():
            writer.write(later)
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SLOW_S):
                    if b"HTTP/1.1 4" in await reader.read(_READ_BYTES):
                        return


async def _answer(reader: asyncio.StreamReader) -> bool:
    """Read one response; return False if the connection is closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    if b"content-length" in lines:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readexactly(int(lines[b"content-length"]))
            return True
        return False
    while await reader.read(_READ_BYTES):  # a stream, to its end
        pass
    return False


Head = Callable[..., bytes]


def _streams(head: Head, job: str) -> tuple[bytes, bytes]:
    return head("GET", f"/v1/jobs/{job}/events"), b""


def _idle(_head: Head, _job: str) -> tuple[bytes, bytes]:
    return b"", b""


def _half_heads(head: Head, _job: str) -> tuple[bytes, bytes]:
    return head("GET", "/v1/jobs").removesuffix(b"\r\n") + b"X-Half: ", b"a"


def _pipelined(head: Head, _job: str) -> tuple[bytes, bytes]:
    return head("HEAD", "/v1/jobs") * _PIPELINED, b""


def _bodies(head: Head, _job: str) -> tuple[bytes, bytes]:
    lines = ("Content-Type: text/csv", "Content-Length: 1000000000")
    return head("POST", "/v1/datasets", *lines) + b"a,b\r\n", b"1.5,2.25\r\n" * 200


def _lists(head: Head, _job: str) -> tuple[bytes, bytes]:
    return head("GET", "/v1/jobs?limit=200"), b""


def _packed(head: Head, _job: str) -> tuple[bytes, bytes]:
    buffer = io.BytesIO()
    rows = np.random.default_rng(0).normal(size=(400, 21)).astype(np.float32)
    np.save(buffer, np.tile(rows, (50, 1)))  # zeros expand more than the service allows
    body = zstd.compress(buffer.getvalue())
    npy = "application/x-npy"
    lines = (f"Content-Type: {npy}", f"Accept: {npy}", "Content-Encoding: zstd")
    length = f"Content-Length: {len(body)}"
    return head("POST", "/v1/models/bench/log_prob", *lines, length) + body, b""


def _scores(head: Head, _job: str) -> tuple[bytes, bytes]:
    body = json.dumps({"rows": [[0.0] * 21]}).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return head("POST", "/v1/models/bench/log_prob", *lines) + body, b""


KINDS = {
    "idle": _idle,
    "half heads": _half_heads,
    "pipelined": _pipelined,
    "streams": _streams,
    "bodies": _bodies,
    "lists": _lists,
    "zstd": _packed,
    "scores": _scores,
}
"""Behaviour of a connection: its first bytes, and those that it sends chunk by chunk."""


if __name__ == "__main__":
    main()
