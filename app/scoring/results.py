"""Results of many rows, kept until the caller takes them: in memory, or on the disk when many."""

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from app.fairness.turns import in_thread
from app.http.body_memory import Share
from app.problems.problem import Problem
from app.rows.response_table import Chunk, Codes
from app.rows.shape import Floats
from models_store.files.blobs import STAGING, Blobs
from models_store.files.disks import disk_errors
from models_store.files.large_files import close_apart

FEW_BYTES = 256 * 1024
"""Results that a response has in memory as a whole, and while its caller reads them."""

_WIDE_ROWS, _WIDE_BYTES = (
    128,
    1024 * 1024,
)  # fewer wide rows take a columnar format several times as long
_MEMORY_BYTES = 16 * 1024 * 1024
_MEMORY_PART = 0.5  # what can go to the disk leaves room for bodies, which cannot
_VALUE_BYTES = np.dtype(np.float64).itemsize


def check_size(rows: int, width: int, *, max_bytes: int) -> None:
    """Refuse results of too many bytes.

    Args:
        rows: Number of rows.
        width: Numbers of each row.
        max_bytes: Bytes that all of them may have.

    Raises:
        Problem: `limit-rows`.
    """
    if rows * width * _VALUE_BYTES > max_bytes:
        raise Problem(
            "limit-rows", f"The response would have more than {max_bytes} bytes of numbers."
        )


@dataclass(eq=False)
class Results:
    """Chunks of float64 rows, appended once and read any number of times.

    They are read while more are appended, but appending never waits for a reader: most callers do
    not read before they have sent everything.

    Args:
        width: Numbers of a row.
        blobs: Store in which a temporary file is made, which has no name and goes with the object.
        max_bytes: Bytes that all rows may have.
        memory: Memory that they take; what does not fit goes to the disk.
        files: Disk space that they take.

    Attributes:
        rows: Number of rows so far.
    """

    width: int
    blobs: Blobs
    max_bytes: int
    memory: Share
    files: Share
    rows: int = 0
    _lengths: list[int] = field(default_factory=list)
    _codes: dict[int, Codes] = field(default_factory=dict)
    _code_bytes: int = 0
    _in_memory: list[Floats] = field(default_factory=list)  # the first ones; others are in the file
    _file: IO[bytes] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _filling: "asyncio.Task[None] | None" = None

    async def add(self, chunk: Chunk) -> None:
        """Append rows.

        Raises:
            Problem: `limit-rows`, when the results get too large; `overloaded`, when those of the
                project do.
            StorageFullError: There is no room for them.
            BlobError: The disk failed.
        """
        rows = self.rows + len(chunk.values)
        self.check_size(rows)
        if chunk.codes is not None:
            self._code_bytes += chunk.codes.nbytes
            self.memory.hold(self.memory.size + chunk.codes.nbytes)
        in_memory = self._fits(rows)
        if not in_memory:
            self.files.hold(self.files.size + chunk.values.nbytes)
        row_bytes = self.width * _VALUE_BYTES
        step = max(1, FEW_BYTES // row_bytes, min(_WIDE_ROWS, _WIDE_BYTES // row_bytes))
        for start in range(0, len(chunk.values), step):
            await self._append(chunk.part(start, start + step), in_memory=in_memory)

    async def _append(self, chunk: Chunk, *, in_memory: bool) -> None:
        if chunk.codes is not None:
            self._codes[len(self._lengths)] = chunk.codes
        if in_memory:
            self._in_memory.append(chunk.values)
        else:
            await in_thread(self._write, chunk.values)
        self.rows += len(chunk.values)
        self._lengths.append(len(chunk.values))
        self._changed.set()

    def _fits(self, rows: int) -> bool:
        """Return whether so many rows may be in memory; it is then taken."""
        size = rows * self.width * _VALUE_BYTES
        may = self._file is None and size <= _MEMORY_BYTES
        return may and self.memory.may_hold(size + self._code_bytes, part=_MEMORY_PART)

    def check_size(self, rows: int) -> None:
        """Refuse more rows than there may be.

        Raises:
            Problem: `limit-rows`.
        """
        check_size(rows, self.width, max_bytes=self.max_bytes)

    def fill(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Start the task that appends the rows; readers wait for it."""
        self._filling = asyncio.create_task(work)
        self._filling.add_done_callback(lambda _: self._changed.set())
        return self._filling

    def forget_task(self) -> None:
        """Refer to the task no longer, after its end: its error may hold all that it read."""
        self._filling = None

    async def changed(self) -> None:
        """Wait until there are more rows, or all."""
        await self._changed.wait()
        self._changed.clear()

    @property
    def whole(self) -> Chunk | None:
        """All rows, if they are one chunk in memory."""
        if len(self._lengths) != 1 or self._file is not None:
            return None
        return Chunk(self._in_memory[0], self._codes.get(0))

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield all rows from the first one on, the last ones once they are there.

        Raises:
            Exception: The error of the task that appends them.
        """
        index = position = 0
        while True:
            while index < len(self._lengths):
                if index < len(self._in_memory):
                    values = self._in_memory[index]
                else:
                    values = await in_thread(self._read, index, position)
                    position += values.nbytes
                yield Chunk(values, self._codes.get(index))
                index += 1
            if self._filling is None:
                return
            if self._filling.done():
                self._filling.result()
                if index == len(self._lengths):
                    return
            else:
                await self.changed()

    def __del__(self) -> None:
        if self._file is not None:
            close_apart(self._file)

    def _write(self, values: Floats) -> None:
        if self._file is None:
            with self.blobs.staged(".results") as path:  # open, it outlives its name
                self._file = path.open("w+b")
        with disk_errors(STAGING):
            self._file.write(np.ascontiguousarray(values).data)
            self._file.flush()

    def _read(self, index: int, position: int) -> Floats:
        assert self._file is not None  # noqa: S101  only called with one
        rows = self._lengths[index]
        # Elsewhere than the file is written at the same time.
        data = os.pread(self._file.fileno(), rows * self.width * _VALUE_BYTES, position)
        return np.frombuffer(data, np.float64).reshape(rows, self.width)
