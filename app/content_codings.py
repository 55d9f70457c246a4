"""The content codings of bodies, both ways."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backports import zstd

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1  # four times as fast as the usual level, for a tenth more bytes
_ZSTD_LEVEL = 1
_MAX_WINDOW_LOG = 23  # 8 MiB: RFC 9659 bids senders use no larger window


class Decompressor(ABC):
    """Unpacks what it is fed, in pieces of bounded size; members may follow each other."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pending = b""

    def feed(self, data: bytes) -> None:
        """Add packed data."""
        self._pending += data

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether a member ends with what has been fed and taken."""

    @abstractmethod
    def take(self, size: int) -> bytes:
        """At most `size` bytes; none: it needs to be fed.

        Raises:
            ValueError: the data are corrupt.
        """


class _Gunzip(Decompressor):
    def __init__(self) -> None:
        super().__init__()
        self._inflater = zlib.decompressobj(_GZIP)
        self._full = False  # the last piece was cut at its limit: there may be more

    @property
    def complete(self) -> bool:
        return self._inflater.eof

    def take(self, size: int) -> bytes:
        while self._pending or self._full:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_GZIP)
            try:
                piece = self._inflater.decompress(self._pending, size)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            self._pending = (
                self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            )
            self._full = len(piece) == size
            if piece:
                return piece
        return b""


class _Unzstd(Decompressor):
    def __init__(self) -> None:
        super().__init__()
        self._frame = _frame()

    @property
    def complete(self) -> bool:
        return self._frame.eof

    def take(self, size: int) -> bytes:
        while self._pending or not (self._frame.eof or self._frame.needs_input):
            if self._frame.eof:
                self._frame = _frame()
            data, self._pending = self._pending, b""
            try:
                piece = self._frame.decompress(data, max_length=size)
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from error
            if self._frame.eof:
                self._pending = self._frame.unused_data
            if piece:
                return piece
        return b""


def _frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
    )


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
