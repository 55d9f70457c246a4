"""Encoders of tables, a block of rows at a time, for files and for responses alike.

Equal tables in equal blocks give equal bytes.
"""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pcsv  # type: ignore[import-untyped] # as above
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.formats import MEDIA_TYPES, Output, TableFormat
from tabular.numbers import with_decimal_marks
from tabular.readers.npy import npy_header

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Starts of what a spreadsheet takes for a formula."""

Column = NDArray[np.floating[Any]]
Block = Sequence[Column] | Column
"""Some rows: one array a column, or an array of shape (rows, columns)."""

Encoded = bytes | memoryview

_LINE_END = b"\n"  # of CSV, as Arrow writes it
_GROUP_VALUES, GROUP_ROWS = 1_000_000, 131_072
_GROUP_BYTES = 16 << 20  # of texts, which may be long


@dataclass(frozen=True)
class TableHead:
    """Description of a table, without its rows.

    Args:
        rows: Number of rows.
        flat: True for an npy array of one dimension where there is one column.
        schema: Types of the columns of a table of cells; None: it holds numbers.
        drops_zeros: True to write whole numbers without decimals in text, 42 for 42.0.
    """

    names: Sequence[str]
    dtypes: Sequence[np.dtype[Any]]
    rows: int
    flat: bool = True
    schema: pa.Schema | None = None
    drops_zeros: bool = False

    @property
    def block_rows(self) -> int:
        """Rows that are best written at a time: a row group of Parquet."""
        return max(1, min(GROUP_ROWS, _GROUP_VALUES // len(self.names)))


class TableWriter(ABC):
    """Encoder of one table: the start, every block of rows, then the end."""

    def __init__(self, head: TableHead) -> None:
        self.head = head

    def start(self) -> bytes:
        """Return what comes before the rows."""
        return b""

    @abstractmethod
    def rows(self, block: Block) -> Encoded:
        """Encode some rows; nothing comes of them while they are only gathered."""

    def cells(self, batch: pa.RecordBatch) -> Encoded:
        """Encode some rows of cells, in a format that can hold them."""
        raise NotImplementedError

    def end(self) -> bytes:
        """Return what comes after the rows."""
        return b""


class ArrowTable(TableWriter):
    """Arrow IPC stream: a schema, a record batch a block, and the end marker."""

    def __init__(self, head: TableHead) -> None:
        super().__init__(head)
        self._sink = _Sink()
        self._schema = _schema(head)
        self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def rows(self, block: Block) -> bytes:
        return self.cells(_batch(block, self._schema))

    def cells(self, batch: pa.RecordBatch) -> bytes:
        self._writer.write_batch(batch)
        return self._sink.take()

    def end(self) -> bytes:
        self._writer.close()
        return self._sink.take()


class ParquetTable(TableWriter):
    """Parquet file: row groups of one or more blocks, compressed with Zstandard."""

    def __init__(self, head: TableHead) -> None:
        super().__init__(head)
        self._sink = _Sink()
        self._schema = _schema(head)
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", use_dictionary=False
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def rows(self, block: Block) -> bytes:
        return self.cells(_batch(block, self._schema))

    def cells(self, batch: pa.RecordBatch) -> bytes:
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= self.head.block_rows or self._waiting_bytes >= _GROUP_BYTES:
            self._write_group()
        return self._sink.take()

    def end(self) -> bytes:
        if self._waiting_rows:
            self._write_group()
        self._writer.close()
        return self._sink.take()

    def _write_group(self) -> None:
        batches, self._waiting = self._waiting, []
        self._waiting_rows = self._waiting_bytes = 0
        batch = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        self._writer.write_batch(batch)


class CsvTable(TableWriter):
    """CSV file: a header and a line a row, each number as short as its own precision needs.

    What is not finite is `nan`, `inf` or `-inf`.
    """

    def start(self) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator=_LINE_END.decode()).writerow(
            [_harmless(name) for name in self.head.names]
        )
        return text.getvalue().encode()

    def rows(self, block: Block) -> bytes:
        # Finite numbers of one type are written in up to half the time that Arrow takes for cells.
        if len(set(self.head.dtypes)) == 1:
            values = block if isinstance(block, np.ndarray) else np.column_stack(block)
            if values.size and np.isfinite(values).all():
                text = json_numbers(values, drops_zeros=self.head.drops_zeros)
                return text[1:-1].replace(b"],[", _LINE_END) + _LINE_END
        return self.cells(_batch(block, _schema(self.head)))

    def cells(self, batch: pa.RecordBatch) -> bytes:
        batch = with_decimal_marks(batch)
        try:
            return _csv_lines(batch, "none")
        except pa.ArrowInvalid:  # a text has a comma, a quote or a line end: then all are quoted
            return _csv_lines(batch, "needed")


def text_places(schema: pa.Schema) -> list[int]:
    """Return the places of the columns that a CSV file has as text: all but numbers that any reader knows."""
    return [place for place, field in enumerate(schema) if not _is_number(field)]


class NpyTable(TableWriter):
    """npy file: one array of rows by columns, in the widest type of the columns."""

    def __init__(self, head: TableHead) -> None:
        super().__init__(head)
        width = len(head.names)
        self._dtype = np.result_type(*set(head.dtypes))  # of thousands it takes long
        self._shape = (head.rows,) if head.flat and width == 1 else (head.rows, width)

    def start(self) -> bytes:
        return npy_header(self._dtype, self._shape)

    def rows(self, block: Block) -> memoryview:
        table = block if isinstance(block, np.ndarray) else np.column_stack(block)
        values = np.ascontiguousarray(table, dtype=self._dtype)
        return values.reshape(-1).view(np.uint8).data


WRITERS: dict[Output, type[TableWriter]] = {
    "parquet": ParquetTable,
    "csv": CsvTable,
    "npy": NpyTable,
}

_TYPES = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}
OUTPUT_MEDIA_TYPES: dict[Output, str] = {
    "parquet": _TYPES[TableFormat.PARQUET],
    "csv": _TYPES[TableFormat.CSV],
    "npy": _TYPES[TableFormat.NPY],
}


def json_numbers(values: NDArray[np.floating[Any]], *, drops_zeros: bool) -> bytes:
    """Return numbers as between the brackets of a JSON list; null for what is not finite."""
    option = orjson.OPT_SERIALIZE_NUMPY
    text = orjson.dumps(np.ascontiguousarray(values), option=option)[1:-1]
    if not drops_zeros:
        return text
    return text.replace(b".0,", b",").replace(b".0]", b"]").removesuffix(b".0")


def unused_name(name: str, columns: Sequence[str]) -> str:
    """Return a name for a further column: `name`, unless there is a column of that name."""
    while name in columns:
        name += "_"
    return name


class _Sink(io.RawIOBase):
    """File that hands over what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        kept = bytes(memoryview(data))  # type: ignore[arg-type]  # whatever Arrow writes
        self._written.append(kept)
        return len(kept)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        written, self._written = self._written, []
        return b"".join(written)


def _harmless(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA_STARTS) else name


def _csv_lines(batch: pa.RecordBatch, quoting: str) -> bytes:
    sink = _Sink()
    options = pcsv.WriteOptions(include_header=False, quoting_style=quoting)
    pcsv.write_csv(batch, sink, options)
    return sink.take()


def _schema(head: TableHead) -> pa.Schema:
    if head.schema is not None:
        return head.schema
    pairs = zip(head.names, head.dtypes, strict=True)
    return pa.schema([pa.field(n, pa.from_numpy_dtype(t), nullable=False) for n, t in pairs])


def _batch(block: Block, schema: pa.Schema) -> pa.RecordBatch:
    rows = block.T if isinstance(block, np.ndarray) else block
    columns = [pa.array(np.ascontiguousarray(column)) for column in rows]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _is_number(field: pa.Field) -> bool:
    """Return whether the cells of a column are numbers, without marks of its own where they are text."""
    is_plain_float = pa.types.is_floating(field.type) and not field.metadata
    return bool(is_plain_float or pa.types.is_integer(field.type))
