"""Results of many rows, kept until the answer can begin: in memory, or on the disk when large."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from app.answer_table import Chunk, bad_rows
from app.problems import Problem
from app.row_shape import Floats
from models_store.blobs import STAGING, BlobStore
from models_store.disk_errors import disk_errors

_MEMORY_BYTES = 16 * 1024 * 1024


@dataclass(eq=False)
class Results:
    """Rows of float64, appended once and read any number of times, in chunks as they came.

    An answer begins only when all is computed: most callers do not read before they have sent
    everything, and what is wrong with the last row can still be said.

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
    _in_memory: list[Floats] = field(default_factory=list)
    _file: IO[bytes] | None = None

    async def add(self, values: NDArray[np.float64], *, inputs: Floats) -> None:
        """Append what was computed from some rows.

        Raises:
            Problem: `limit-rows`, when the answer gets too large.
            StorageFullError: there is no room for it.
            BlobError: the disk failed.
        """
        self.rows += len(values)
        if self.rows * self.width * values.itemsize > self.max_bytes:
            raise Problem(
                "limit-rows", f"The answer would have more than {self.max_bytes} bytes of numbers."
            )
        if not np.isfinite(inputs).all():
            self._bad_inputs[len(self._lengths)] = bad_rows(inputs)
        self._lengths.append(len(values))
        if self._file is None and self.rows * self.width * values.itemsize <= _MEMORY_BYTES:
            self._in_memory.append(values)
        else:
            await asyncio.to_thread(self._write, values)

    @property
    def whole(self) -> Chunk | None:
        """All of it, if it is one chunk in memory."""
        if len(self._lengths) != 1 or self._file is not None:
            return None
        return Chunk.of(self._in_memory[0], self._bad_inputs.get(0))

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The rows, from the first one on."""
        if self._file is not None:
            self._file.seek(0)
        for index, length in enumerate(self._lengths):
            if self._file is None:
                values = self._in_memory[index]
            else:
                values = await asyncio.to_thread(self._read, length)
            yield Chunk.of(values, self._bad_inputs.get(index))

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, values: NDArray[np.float64]) -> None:
        waiting: list[Floats] = [values]
        if self._file is None:
            with self.blobs.staged(".results") as path:  # open, it outlives its name
                self._file = path.open("w+b")
            waiting, self._in_memory = [*self._in_memory, values], []
        with disk_errors(STAGING):
            for part in waiting:
                self._file.write(np.ascontiguousarray(part).data)

    def _read(self, length: int) -> NDArray[np.float64]:
        assert self._file is not None  # noqa: S101  only called with one
        data = self._file.read(length * self.width * 8)
        return np.frombuffer(data, np.float64).reshape(length, self.width)
