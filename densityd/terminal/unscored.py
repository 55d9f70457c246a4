"""Rows that got no score, counted in what ``densityd score`` writes."""

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from densityd.terminal.console import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from densityd.client.wire.npy import Floats

_CHUNK_BYTES = 2**20
_UNSCORED = re.compile(rb"\n-?(?:nan|inf)")  # the score is the first number of a line
_NULL = b'"%b":null'
_HINT = " `-o FILE.json` names the reason of each."
_WHY = (
    "A row that lacks a value of a column without gaps in training, or has an infinite one, has none, nor"
    " has one that is too far from the training data."
)


class CountedCsv:
    """Open file of CSV that begins with scores, which are counted as they are written.

    Args:
        file: File to write to.

    Attributes:
        unscored: Number of rows without a score so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._head = b""
        self._rest: bytes | None = None  # None: the line of the names has not ended
        self.unscored = 0

    def write(self, data: bytes) -> int:
        """Write some bytes, and count the rows that begin in them."""
        self.count(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Write what is held back."""
        self._file.flush()

    def count(self, data: bytes) -> None:
        """Count the rows without a score that begin in the next bytes of a file."""
        if self._rest is None:
            data = self._head + data
            end = _end_of_names(data)
            if end is None:
                self._head = data
                return
            self._rest, data = b"", data[end:]
        data = self._rest + data
        # The last line may continue.
        last = max(0, data.rfind(b"\n"))
        self._rest = data[last:]
        self.unscored += len(_UNSCORED.findall(data[:last]))


def _end_of_names(data: bytes) -> int | None:
    """Return where the first line ends, whose names may hold line breaks in quotation marks."""
    end = data.find(b"\n")
    while end >= 0:
        if data.count(b'"', 0, end) % 2 == 0:
            return end
        end = data.find(b"\n", end + 1)
    return None


def count_unscored(file: Path) -> int:
    """Return the number of rows without a score in a file of any format that scores are written in."""
    match file.suffix.lower():
        case ".csv":
            return _in_csv(file)
        case ".json":
            return len(json.loads(file.read_bytes())["row_errors"])
        case ".ndjson" | ".jsonl":
            with file.open("rb") as lines:
                return sum(_NULL % b"log_prob" in line or _NULL % b"elbo" in line for line in lines)
        case _:
            import numpy as np  # noqa: PLC0415 - slow to import

            return sum(int(np.count_nonzero(~np.isfinite(part))) for part in _first_numbers(file))


@contextmanager
def telling_unscored(target: Path | BinaryIO) -> "Iterator[Path | BinaryIO]":
    """Give the file to write scores to; print at the end how many rows have none, and why."""
    if not isinstance(target, Path):
        counted = CountedCsv(target)
        yield cast("BinaryIO", counted)
        tell_unscored(counted.unscored, hint=_HINT)
        return
    yield target
    if target.is_file():  # a pipe cannot be read again
        named = target.suffix.lower() in (".json", ".ndjson", ".jsonl")
        tell_unscored(count_unscored(target), hint="" if named else _HINT)


def tell_unscored(count: int, *, hint: str = "") -> None:
    """Print how many rows have no score, and why, if there are any."""
    if count:
        rows = "1 row has" if count == 1 else f"{count} rows have"
        note(f"{rows} no score. {_WHY}{hint}")


def _in_csv(file: Path) -> int:
    with file.open("rb") as stream:
        counted = CountedCsv(stream)
        while chunk := stream.read(_CHUNK_BYTES):
            counted.count(chunk)
        counted.count(b"\n")
    return counted.unscored


def _first_numbers(file: Path) -> "Iterator[Floats]":
    """Yield the scores of a file of arrays or columns; null is not-a-number."""
    import numpy as np  # noqa: PLC0415 - slow to import

    if file.suffix.lower() == ".npy":
        values = np.load(file, mmap_mode="r")
        yield values if values.ndim == 1 else values[:, 0]
        return
    import pyarrow as pa  # type: ignore[import-untyped] # noqa: PLC0415 - slow to import; without types
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - as above

    if file.suffix.lower() == ".parquet":
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(columns=[table.schema_arrow.names[0]]):
                yield cast("Floats", batch.column(0).to_numpy(zero_copy_only=False))
        return
    with pa.OSFile(str(file)) as stream, pa.ipc.open_stream(stream) as reader:
        for batch in reader:
            yield cast("Floats", batch.column(0).to_numpy(zero_copy_only=False))
