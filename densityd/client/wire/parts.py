"""Files of rows, cut into parts that a request may have, and the results of the parts as one file."""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from densityd.client.call import ARROW, JSON, NPY, Body, parse_json
from densityd.client.wire.arrays import Floats, encode_array, encode_table, read_array, read_table
from densityd.client.wire.files import MEDIA_TYPES, guess_media_type, read_file

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

CSV, NDJSON, PARQUET = MEDIA_TYPES[".csv"], MEDIA_TYPES[".ndjson"], MEDIA_TYPES[".parquet"]

# Half of what the service takes by default.
_PART_BYTES = 32 << 20
_PART_ROWS = 500_000
_FEW_BYTES = 1 << 20  # of so many, no plain file has more rows than a part
_ABOUT_ROW = ("row_errors", "row_warnings")
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # UTF-16: a byte of it is no character


def cut_file(path: Path, rows: int | None = None) -> Iterator[Body]:
    """Yield the rows of a file in bodies of bounded size; a small file goes as it is.

    Files of JSON, and CSV in UTF-16, are not cut.

    Args:
        path: File of the rows; the suffix of its name is its format.
        rows: Most rows of a body; None for half a million.

    Raises:
        FileFormatError: The suffix of the file's name is of no known format.
        OSError: There is no such file.
    """
    media_type = guess_media_type(path)
    most = rows or _PART_ROWS
    is_small = rows is None and path.stat().st_size <= _FEW_BYTES
    if media_type == PARQUET:  # of few bytes, it may have any number of rows
        yield from _cut_table(path, media_type, most)
    elif media_type == JSON or is_small or (media_type == CSV and _is_wide(path)):
        yield read_file(path)
    elif media_type == NPY:
        yield from _cut_array(path, most)
    elif media_type == ARROW:
        yield from _cut_table(path, media_type, most)
    else:
        yield from _cut_lines(path, media_type, most)


def _is_wide(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in _WIDE


def _cut_lines(path: Path, media_type: str, most: int) -> Iterator[Body]:
    """Yield parts of whole lines; each of CSV has the names, and lines in quotation marks stay together."""
    with path.open("rb") as file:
        names = _line(file) if media_type == CSV else b""
        part = [names]
        size = 0
        while line := _line(file) if media_type == CSV else file.readline():
            if size + len(line) > _PART_BYTES or len(part) > most:
                yield Body.of(b"".join(part), media_type)
                part, size = [names], 0
            part.append(line)
            size += len(line)
        yield Body.of(b"".join(part), media_type)


def _line(file: BinaryIO) -> bytes:
    """Return the next record of CSV, which may have line breaks in quotation marks."""
    line = file.readline()
    if line.count(b'"') % 2 == 0:
        return line
    record = [line]
    open_quote = True
    while open_quote and sum(map(len, record)) < _PART_BYTES and (line := file.readline()):
        record.append(line)
        open_quote ^= line.count(b'"') % 2 == 1
    return b"".join(record)


def _cut_array(path: Path, most: int) -> Iterator[Body]:
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        array = None
    if array is None or array.ndim != 2 or not array.size:
        yield read_file(path)  # the service says what is wrong with it
        return
    step = _step(array.nbytes, len(array), most)
    for start in range(0, len(array), step):
        yield encode_array(array[start : start + step])


def _cut_table(path: Path, media_type: str, most: int) -> Iterator[Body]:
    import pyarrow as pa  # noqa: PLC0415 - it is large, and only those who have tables need it
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - as above

    with ExitStack() as stack:
        try:
            if media_type == PARQUET:
                table = stack.enter_context(pq.ParquetFile(path))
                is_small = path.stat().st_size <= _PART_BYTES
                rows = table.metadata.num_rows
                batches = None if is_small and rows <= most else table.iter_batches()
            else:
                source = stack.enter_context(pa.memory_map(str(path)))
                batches = stack.enter_context(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:
            batches = None
        parts = iter(()) if batches is None else _cut_batches(batches, most)
        # Of what is no such file, or has no rows, the service says what is wrong.
        yield next(parts, None) or read_file(path)
        yield from parts


def _cut_batches(batches: "Iterator[pa.RecordBatch]", most: int) -> Iterator[Body]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        step = _step(batch.nbytes, batch.num_rows, most)
        for start in range(0, max(1, batch.num_rows), step):
            part = batch.slice(start, step)
            size = sum(one.nbytes for one in (*waiting, part))
            rows = sum(one.num_rows for one in (*waiting, part))
            if waiting and (size > _PART_BYTES or rows > most):
                yield encode_table(pa.Table.from_batches(waiting))
                waiting = []
            waiting.append(part)
    if waiting:
        yield encode_table(pa.Table.from_batches(waiting))


def _step(size: int, rows: int, most: int) -> int:
    """Return the number of rows of a part, from the bytes of all rows."""
    return max(1, min(most, _PART_BYTES * rows // max(1, size)))


class JoinedResults:
    """Results of the parts of a file, written as those of the whole.

    What comes of a single part is written as it is.

    Attributes:
        rows: Number of rows of the parts so far.
    """

    def __init__(self, media_type: str, file: BinaryIO) -> None:
        self.rows = 0
        self._media_type = media_type
        self._file = file
        self._kept: list[bytes] = []

    def add(self, content: bytes) -> None:
        """Add the results of the next part."""
        if self._media_type == CSV:
            rest = content if self.rows == 0 else content[_end_of_names(content) :]
            self._file.write(rest)
            # About, where cells have line breaks: it is for messages.
            self.rows += content.count(b"\n") - 1
        elif self._media_type == NDJSON:
            self._file.write(content if self.rows == 0 else _moved_lines(content, self.rows))
            self.rows += content.count(b"\n")
        else:
            self._kept.append(content)
            self.rows += _count_rows(self._media_type, content)

    def finish(self) -> None:
        """Write what is written at the end."""
        if len(self._kept) <= 1:
            self._file.write(b"".join(self._kept))
        elif self._media_type == NPY:
            values: Floats = np.concatenate([read_array(content) for content in self._kept])
            np.save(self._file, values)
        elif self._media_type == JSON:
            self._file.write(json.dumps(_joined_json(self._kept)).encode())
        else:
            self._write_table()

    def _write_table(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - as above
        import pyarrow.parquet as pq  # noqa: PLC0415 - as above

        table = pa.concat_tables(_read_rows(self._media_type, content) for content in self._kept)
        if self._media_type == PARQUET:
            pq.write_table(table, self._file)
            return
        with pa.ipc.new_stream(self._file, table.schema) as writer:
            writer.write_table(table)


def _read_rows(media_type: str, content: bytes) -> "pa.Table":
    if media_type == ARROW:
        return read_table(content)
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    return pq.read_table(io.BytesIO(content))


def _count_rows(media_type: str, content: bytes) -> int:
    if media_type == NPY:
        return len(read_array(content))
    if media_type == JSON:
        return _rows_of(parse_json(content))
    return int(_read_rows(media_type, content).num_rows)


def _rows_of(document: dict[str, Any]) -> int:
    columns = (document.get(name) for name in ("log_prob", "elbo", "rows"))
    return next((len(column) for column in columns if column is not None), 0)


def _joined_json(parts: list[bytes]) -> dict[str, Any]:
    """Return the results of parts as those of the whole: lists of rows one after the other."""
    whole: dict[str, Any] = {}
    start = 0
    for part in map(parse_json, parts):
        document: dict[str, Any] = dict(part)
        for name, value in document.items():
            if name in _ABOUT_ROW:
                whole.setdefault(name, []).extend(
                    {**one, "row": one["row"] + start} for one in value
                )
            elif name == "row_warning_count":
                whole[name] = whole.get(name, 0) + value
            elif isinstance(value, list) and len(value) == _rows_of(document) and name != "order":
                whole.setdefault(name, []).extend(value)
            else:
                whole.setdefault(name, value)
        start += _rows_of(document)
    return whole


def _moved_lines(content: bytes, start: int) -> bytes:
    """Return lines of NDJSON whose notes about rows count from the first part on."""
    if b'"row":' not in content:
        return content
    return b"".join(
        _moved(line, start) if b'"row":' in line else line
        for line in content.splitlines(keepends=True)
    )


def _moved(line: bytes, start: int) -> bytes:
    row = json.loads(line)
    for note in [row.get("row_error"), *row.get("row_warnings", [])]:
        if isinstance(note, dict):
            note["row"] += start
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _end_of_names(content: bytes) -> int:
    """Return where the first line ends, whose names may have line breaks in quotation marks."""
    end = content.find(b"\n")
    while end >= 0 and content.count(b'"', 0, end) % 2:
        end = content.find(b"\n", end + 1)
    return len(content) if end < 0 else end + 1
