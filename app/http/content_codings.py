"""Content codings of bodies: gzip and Zstandard, in both directions."""

import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backports import zstd

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1  # four times as fast as the default level, for a tenth more bytes
_ZSTD_LEVEL = 1
_MAX_WINDOW_LOG = 23  # 8 MiB: RFC 9659 bids senders use no larger window
_STEP_IN_BYTES = 64 * 1024


class Decompressor(ABC):
    """Decompressor that works in bounded steps; members may follow each other.

    Attributes:
        members: Number of gzip members or Zstandard frames so far, empty ones too.
        bytes_in: Compressed bytes that have been used.
        max_window_bytes: Most decompressed bytes that it keeps.
        own_bytes: Bytes that it takes beside them.
        keeps_input: True if it keeps the bytes that a step did not use.
    """

    max_window_bytes: int
    own_bytes: int
    keeps_input = False

    def __init__(self) -> None:
        """Begin without data."""
        self.members = 0
        self.bytes_in = 0
        self._fed: deque[memoryview] = deque()
        self._more = False  # there may be more without further input

    def feed(self, data: bytes) -> None:
        """Add compressed data."""
        if data:
            self._fed.append(memoryview(data))

    def held_bytes(self, made: int) -> int:
        """Return how much memory it takes once it has made so many bytes."""
        return self.own_bytes + min(made, self.max_window_bytes)

    @property
    def waiting_bytes(self) -> int:
        """Return the number of compressed bytes that wait."""
        return sum(len(data) for data in self._fed)

    @property
    def hungry(self) -> bool:
        """True if the next step needs more data."""
        return not self._fed and not self._more

    @property
    @abstractmethod
    def complete(self) -> bool:
        """True if a member ends with the data so far."""

    def step(self, most: int) -> bytes:
        """Decompress a little, of one member alone; the result may be empty.

        Args:
            most: Largest number of bytes of the result.

        Raises:
            ValueError: The data are corrupt.
        """
        if self.members == 0 or (self.complete and self._fed):
            self._begin()
            self.members += 1
        waits = self._more and self.keeps_input  # all of a body would be kept in small steps
        data = self._fed.popleft() if self._fed and not waits else memoryview(b"")
        if len(data) > _STEP_IN_BYTES:
            self._fed.appendleft(data[_STEP_IN_BYTES:])
            data = data[:_STEP_IN_BYTES]
        piece, unused, self._more = self._unpack(data, most)
        self.bytes_in += len(data) - len(unused)
        if unused:
            self._fed.appendleft(unused)
        return piece

    @abstractmethod
    def _begin(self) -> None:
        """Begin a member."""

    @abstractmethod
    def _unpack(self, data: memoryview, most: int) -> tuple[bytes, memoryview, bool]:
        """Return a chunk, the unused bytes, and True if there may be more already."""


class _Gunzip(Decompressor):
    max_window_bytes = 1 << zlib.MAX_WBITS
    own_bytes = 8 * 1024

    def _begin(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        return self.members > 0 and self._inflater.eof

    def _unpack(self, data: memoryview, most: int) -> tuple[bytes, memoryview, bool]:
        try:
            piece = self._inflater.decompress(data, most)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if self._inflater.eof:
            return piece, data[len(data) - len(self._inflater.unused_data) :], False
        return piece, data[len(data) - len(self._inflater.unconsumed_tail) :], len(piece) == most


class _Unzstd(Decompressor):
    max_window_bytes = 1 << _MAX_WINDOW_LOG
    own_bytes = 256 * 1024  # of its tables, and of a block before and behind them
    keeps_input = True

    def _begin(self) -> None:
        self._frame = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        )

    @property
    def complete(self) -> bool:
        return self.members > 0 and self._frame.eof

    def _unpack(self, data: memoryview, most: int) -> tuple[bytes, memoryview, bool]:
        try:
            piece = self._frame.decompress(data, max_length=most)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if self._frame.eof:
            return piece, memoryview(self._frame.unused_data), False
        return piece, data[len(data) :], not self._frame.needs_input


class Compressor(Protocol):
    """Compressor of a body; each chunk can be decompressed as soon as it has arrived."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Compress a chunk."""
        ...

    def finish(self) -> bytes:
        """Return the end of the body."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._deflater = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)

    def compress(self, data: bytes | memoryview) -> bytes:
        return self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._deflater.flush()


class _Zstd:
    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(level=_ZSTD_LEVEL)

    def compress(self, data: bytes | memoryview) -> bytes:
        return self._compressor.compress(data, mode=zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush()


@dataclass(frozen=True)
class ContentCoding:
    """Content coding.

    Args:
        decompressor: Factory of decompressors.
        compressor: Factory of compressors.
    """

    decompressor: Callable[[], Decompressor]
    compressor: Callable[[], Compressor]


CODINGS = {"zstd": ContentCoding(_Unzstd, _Zstd), "gzip": ContentCoding(_Gunzip, _Gzip)}
"""Content codings by name, the best one first."""
