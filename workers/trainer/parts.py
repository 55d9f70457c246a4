"""Parts of a bulk job's result, each a file, of which a killed attempt loses the last one only."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from models_store.errors import BlobDiskError, BlobError
from models_store.files.blobs import Blobs, part_key, parts_key
from models_store.files.job_files import ResultPart, load_list, save_list
from models_store.requests.bulk import Piece
from workers.protocol import BulkTask, CheckpointRef
from workers.trainer.data import needed
from workers.trainer.progress import Teller

Doubles = npt.NDArray[np.float64]

_DTYPE = np.dtype("<f8")
_SHARE = 0.02


class Parts:
    """Parts of the result of one job, rows of `width` numbers, those of earlier attempts first."""

    def __init__(self, task: BulkTask, blobs: Blobs, teller: Teller, *, width: int) -> None:
        self._task = task
        self._blobs = blobs
        self._width = width
        self._teller = teller
        self._parts: list[ResultPart] = []
        self._began_at = time.monotonic()

    @property
    def count(self) -> int:
        """Return the number of parts."""
        return len(self._parts)

    @property
    def rows(self) -> int:
        """Return the number of rows in all parts."""
        return sum(part.rows for part in self._parts)

    def resume(self) -> None:
        """Take over the parts of earlier attempts, as far as they are whole, with signs of life."""
        for part in self._newest_list():
            try:
                self._blobs.verify(part.key, part.sha256)
            except BlobDiskError:
                raise
            except BlobError as error:
                text = f"Part {self.count + 1} is unusable, work continues from there: {error}"
                self._teller.note(text)
                return
            self._parts.append(part)
            self._teller.tick()

    def write(
        self,
        chunks: Iterator[Doubles],
        done: Callable[[], None],
    ) -> CheckpointRef:
        """Write the next part, of one chunk at least and of all chunks until it is due.

        Args:
            chunks: Chunks of rows; not empty.
            done: Function that is called after each chunk.

        Returns:
            The list of the parts up to this one.

        Raises:
            StorageFullError: The part is not stored.
        """
        number = self.count + 1
        due_at = self._due_at()
        with self._blobs.staged(".part") as path:
            with path.open("wb") as file:
                for chunk in chunks:
                    file.write(np.ascontiguousarray(chunk, dtype=_DTYPE).data)
                    self._blobs.check_room()
                    done()
                    if time.monotonic() >= due_at or self._teller.interrupted():
                        break
                rows = file.tell() // (self._width * _DTYPE.itemsize)
            key = part_key(self._task.job_id, self._task.attempt, number=number)
            stored = self._blobs.commit(path, key)
        self._parts.append(ResultPart(key=stored.key, sha256=stored.sha256, rows=rows))
        key = parts_key(self._task.job_id, self._task.attempt, number=number)
        stored = save_list(self._blobs, key, self._parts)
        size = stored.bytes + self.rows * self._width * _DTYPE.itemsize
        return CheckpointRef(
            key=stored.key, sha256=stored.sha256, epoch=number, step=self.rows, bytes=size
        )

    def blocks(self, rows: int) -> Iterator[Doubles]:
        """Yield all rows from the first one on, `rows` at a time; the last block may have fewer."""
        files = ((self._blobs.open(part.key, part.sha256), part.rows) for part in self._parts)
        tables = (np.memmap(path, _DTYPE, "r", shape=(n, self._width)) for path, n in files)
        return _blocks(tables, rows)

    def _due_at(self) -> float:
        """Return the time at which a part is due; parts get longer, so that they never get many.

        None takes longer than an epoch may last without a checkpoint.
        """
        now, pause_s = time.monotonic(), self._task.checkpoint_interval_s
        if pause_s == 0:
            return now
        long_s = max(pause_s, self._task.long_epoch_s)
        return now + min(max(pause_s, _SHARE * (now - self._began_at)), long_s)

    def _newest_list(self) -> list[ResultPart]:
        for at in self._task.checkpoints:
            try:
                return load_list(self._blobs, at.key, at.sha256)
            except BlobDiskError:
                raise
            except BlobError as error:
                self._teller.note(f"The list of {at.epoch} parts is unusable: {error}")
        if self._task.checkpoints:
            self._teller.note("No list of parts is usable; work starts from the beginning.")
        return []


class ChildParts:
    """Parts that children of the job have computed, in order, each an npy file."""

    def __init__(
        self, pieces: Sequence[Piece], blobs: Blobs, teller: Teller, *, width: int
    ) -> None:
        self._pieces, self._blobs, self._teller, self._width = pieces, blobs, teller, width

    def resume(self) -> None:
        """Verify the files, with signs of life.

        Raises:
            TrainingError: A file is gone or was changed.
        """
        for number, piece in enumerate(self._pieces, start=1):
            with needed("part_unusable", f"Part {number} cannot be read."):
                self._blobs.verify(piece.key, piece.sha256)
            self._teller.tick()

    def blocks(self, rows: int) -> Iterator[Doubles]:
        """Yield all rows, `rows` at a time; the last block may have fewer."""
        files = (self._blobs.open(piece.key, piece.sha256) for piece in self._pieces)
        tables = (np.load(path, mmap_mode="r", allow_pickle=False) for path in files)
        return _blocks((table.reshape(-1, self._width) for table in tables), rows)


def _blocks(tables: Iterable[Doubles], rows: int) -> Iterator[Doubles]:
    """Yield the rows of all tables, `rows` at a time; the last block may have fewer."""
    waiting: list[Doubles] = []
    count = 0
    for table in tables:
        left = table
        while len(left) > 0:
            taken, left = left[: rows - count], left[rows - count :]
            waiting.append(np.array(taken))
            count += len(taken)
            if count == rows:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
