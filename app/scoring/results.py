"""Results of many rows, kept until the caller takes them: in memory, or on the disk when many."""

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from app.fairness.turns import in_thread
from app.problems.problem import Problem
from app.rows.answer_table import Chunk, bad_rows
from app.rows.shape import Floats
from models_store.files.blobs import STAGING, BlobStore
from models_store.files.disk_errors import disk_errors

_MEMORY_BYTES = 16 * 1024 * 1024


@dataclass(eq=False)
class Results:
    """Rows of float64, appended once and read any number of times, in chunks as they came.

    They are read while they are still appended, but appending never waits for a reader: most
    callers do not read before they have sent everything.

    Args:
        width: values a row.
        blobs: where a file may be made, which has no name and goes with the object.
        max_bytes: of all rows.
    """

    width: int
    blobs: BlobStore
    max_bytes: int
    rows: int = 0
    _lengths: list[int] = field(default_factory=list)
    _bad_inputs: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    _in_memory: list[Floats] = field(default_factory=list)  # the first ones; others are in the file
    _file: IO[bytes] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _filling: "asyncio.Task[None] | None" = None

    async def add(self, values: NDArray[np.float64], *, inputs: Floats) -> None:
        """Append what was computed from some rows.

        Raises:
            Problem: `limit-rows`, when the answer gets too large.
            StorageFullError: there is no room for it.
            BlobError: the disk failed.
        """
        self.check_size(self.rows + len(values))
        if not np.isfinite(values).all():
            self._bad_inputs[len(self._lengths)] = bad_rows(inputs)
        if self._file is None and self._bytes(self.rows + len(values)) <= _MEMORY_BYTES:
            self._in_memory.append(values)
        else:
            await in_thread(self._write, values)
        self.rows += len(values)
        self._lengths.append(len(values))
        self._changed.set()

    def check_size(self, rows: int) -> None:
        """Refuse an answer of so many rows if it gets too large.

        Raises:
            Problem: `limit-rows`.
        """
        if self._bytes(rows) > self.max_bytes:
            raise Problem(
                "limit-rows", f"The answer would have more than {self.max_bytes} bytes of numbers."
            )

    def fill(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have `work` append the rows, in a task of its own, for which readers wait."""
        self._filling = asyncio.create_task(work)
        self._filling.add_done_callback(lambda _: self._changed.set())
        return self._filling

    async def changed(self) -> None:
        """Wait until there are more rows, or all."""
        await self._changed.wait()
        self._changed.clear()

    @property
    def whole(self) -> Chunk | None:
        """All of it, if it is one chunk in memory."""
        if len(self._lengths) != 1 or self._file is not None:
            return None
        return self._chunk(0, self._in_memory[0])

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The rows, from the first one on, the last ones once they are there.

        Raises:
            Exception: what went wrong with those that are still appended.
        """
        index = position = 0
        while True:
            while index < len(self._lengths):
                if index < len(self._in_memory):
                    values = self._in_memory[index]
                else:
                    values = await in_thread(self._read, index, position)
                    position += values.nbytes
                yield self._chunk(index, values)
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
            self._file.close()

    def _chunk(self, index: int, values: Floats) -> Chunk:
        bad_inputs = self._bad_inputs.get(index)
        return Chunk(values) if bad_inputs is None else Chunk.of(values, bad_inputs)

    def _bytes(self, rows: int) -> int:
        return rows * self.width * np.dtype(np.float64).itemsize

    def _write(self, values: NDArray[np.float64]) -> None:
        if self._file is None:
            with self.blobs.staged(".results") as path:  # open, it outlives its name
                self._file = path.open("w+b")
        with disk_errors(STAGING):
            self._file.write(np.ascontiguousarray(values).data)
            self._file.flush()

    def _read(self, index: int, position: int) -> NDArray[np.float64]:
        assert self._file is not None  # noqa: S101  only called with one
        length = self._lengths[index]
        # Elsewhere than the file is written at the same time.
        data = os.pread(self._file.fileno(), self._bytes(length), position)
        return np.frombuffer(data, np.float64).reshape(length, self.width)
