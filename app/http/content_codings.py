"""The content codings of bodies, both ways."""

import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backports import zstd

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1  # four times as fast as the usual level, for a tenth more bytes
_ZSTD_LEVEL = 1
_MAX_WINDOW_LOG = 23  # 8 MiB: RFC 9659 bids senders use no larger window
_STEP_IN_BYTES = 64 * 1024
_STEP_OUT_BYTES = 256 * 1024


class Decompressor(ABC):
    """Unpacks what it is fed, in steps of bounded work; members may follow each other.

    Attributes:
        members: begun so far: the members of gzip and the frames of Zstandard, empty ones too.
        bytes_in: packed bytes that have been used.
        max_window_bytes: what it may keep of the bytes that it has unpacked.
    """

    max_window_bytes: int

    def __init__(self) -> None:
        """Begin with nothing."""
        self.members = 0
        self.bytes_in = 0
        self._fed: deque[memoryview] = deque()
        self._more = False  # there may be more without further input

    def feed(self, data: bytes) -> None:
        """Add packed data."""
        if data:
            self._fed.append(memoryview(data))

    @property
    def waiting_bytes(self) -> int:
        """Packed bytes that wait to be unpacked."""
        return sum(len(data) for data in self._fed)

    @property
    def hungry(self) -> bool:
        """True if nothing more comes unless it is fed."""
        return not self._fed and not self._more

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether a member ends with what has been fed and taken."""

    def step(self) -> bytes:
        """Unpack a little, of one member alone; nothing: that gave no bytes.

        Raises:
            ValueError: the data are corrupt.
        """
        if self.members == 0 or (self.complete and self._fed):
            self._begin()
            self.members += 1
        data = self._fed.popleft() if self._fed else memoryview(b"")
        if len(data) > _STEP_IN_BYTES:
            self._fed.appendleft(data[_STEP_IN_BYTES:])
            data = data[:_STEP_IN_BYTES]
        piece, unused, self._more = self._unpack(data)
        self.bytes_in += len(data) - unused
        if unused:
            self._fed.appendleft(data[-unused:])
        return piece

    @abstractmethod
    def _begin(self) -> None:
        """Begin a member."""

    @abstractmethod
    def _unpack(self, data: memoryview) -> tuple[bytes, int, bool]:
        """A piece, how many of the bytes were not used, and whether there may be more already."""


class _Gunzip(Decompressor):
    max_window_bytes = 1 << zlib.MAX_WBITS

    def _begin(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP)

    @property
    def complete(self) -> bool:
        return self.members > 0 and self._inflater.eof

    def _unpack(self, data: memoryview) -> tuple[bytes, int, bool]:
        try:
            piece = self._inflater.decompress(data, _STEP_OUT_BYTES)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if self._inflater.eof:
            return piece, len(self._inflater.unused_data), False
        return piece, len(self._inflater.unconsumed_tail), len(piece) == _STEP_OUT_BYTES


class _Unzstd(Decompressor):
    max_window_bytes = 1 << _MAX_WINDOW_LOG

    def _begin(self) -> None:
        self._frame = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        )

    @property
    def complete(self) -> bool:
        return self.members > 0 and self._frame.eof

    def _unpack(self, data: memoryview) -> tuple[bytes, int, bool]:
        try:
            piece = self._frame.decompress(data, max_length=_STEP_OUT_BYTES)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if self._frame.eof:
            return piece, len(self._frame.unused_data), False
        return piece, 0, not self._frame.needs_input


class Compressor(Protocol):
    """Packs a body piece by piece; each piece can be unpacked as soon as it has come."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Pack a piece."""
        ...

    def finish(self) -> bytes:
        """What ends the body."""
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
    """One coding.

    Args:
        decompressor: makes what unpacks a body.
        compressor: makes what packs one.
    """

    decompressor: Callable[[], Decompressor]
    compressor: Callable[[], Compressor]


CODINGS = {"zstd": ContentCoding(_Unzstd, _Zstd), "gzip": ContentCoding(_Gunzip, _Gzip)}
"""The codings by their names, the better first."""
