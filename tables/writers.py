"""Tables to files, a block of rows at a time: Parquet, CSV and npy in bounded memory.

Equal tables in equal blocks give equal bytes.
"""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pcsv  # type: ignore[import-untyped] # as above
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tables.formats import MEDIA_TYPES, Output, TableFormat

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""

Column = NDArray[np.floating[Any]]

_GROUP_VALUES, _GROUP_ROWS = 1_000_000, 131_072


@dataclass(frozen=True)
class TableHead:
    """What a table is, without its rows.

    Args:
        names: of the columns.
        dtypes: float32 or float64, one a column.
        rows: how many there will be.
    """

    names: Sequence[str]
    dtypes: Sequence[np.dtype[Any]]
    rows: int

    @property
    def block_rows(self) -> int:
        """Rows that are best written at a time: a row group of Parquet."""
        return max(1, min(_GROUP_ROWS, _GROUP_VALUES // len(self.names)))


class TableWriter(ABC):
    """Writes one table: every block of rows, then the end."""

    def __init__(self, head: TableHead, file: IO[bytes]) -> None:
        """Begin to write.

        Args:
            head: of the table.
            file: where to; stays open.
        """
        self._head = head
        self._file = file

    @abstractmethod
    def write(self, block: Sequence[Column]) -> None:
        """Some rows, one array a column."""

    @abstractmethod
    def end(self) -> None:
        """What comes after the rows."""


class ParquetTable(TableWriter):
    """A row group a block, compressed with Zstandard."""

    def __init__(self, head: TableHead, file: IO[bytes]) -> None:
        """As `TableWriter`."""
        super().__init__(head, file)
        self._schema = _schema(head)
        self._writer = pq.ParquetWriter(
            file, self._schema, compression="zstd", use_dictionary=False
        )

    def write(self, block: Sequence[Column]) -> None:
        """A row group."""
        self._writer.write_batch(_batch(block, self._schema))

    def end(self) -> None:
        """The footer."""
        self._writer.close()


class CsvTable(TableWriter):
    """A header and a line a row, each number as short as its precision needs.

    What is not finite is `nan`, `inf` or `-inf`.
    """

    def __init__(self, head: TableHead, file: IO[bytes]) -> None:
        """As `TableWriter`."""
        super().__init__(head, file)
        self._schema = _schema(head)
        file.write(csv_header(head.names))

    def write(self, block: Sequence[Column]) -> None:
        """A line a row."""
        options = pcsv.WriteOptions(include_header=False)
        pcsv.write_csv(_batch(block, self._schema), self._file, options)

    def end(self) -> None:
        """Nothing."""


class NpyTable(TableWriter):
    """One array of float64: rows by columns, or one dimension if there is one column."""

    def __init__(self, head: TableHead, file: IO[bytes]) -> None:
        """As `TableWriter`."""
        super().__init__(head, file)
        width = len(head.names)
        shape = (head.rows,) if width == 1 else (head.rows, width)
        header = {"descr": "<f8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    def write(self, block: Sequence[Column]) -> None:
        """The values, row by row."""
        self._file.write(np.column_stack(block).astype("<f8", copy=False).data)

    def end(self) -> None:
        """Nothing."""


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


def csv_header(names: Sequence[str]) -> bytes:
    """The header line of a CSV file, whose names no spreadsheet runs as formulas."""
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(name) for name in names])
    return text.getvalue().encode()


def unused_name(name: str, columns: Sequence[str]) -> str:
    """A name for a further column: `name`, unless there is a column of that name."""
    while name in columns:
        name += "_"
    return name


def _harmless(name: str) -> str:
    return f"'{name}" if name.startswith(FORMULA_STARTS) else name


def _schema(head: TableHead) -> pa.Schema:
    pairs = zip(head.names, head.dtypes, strict=True)
    return pa.schema([pa.field(n, pa.from_numpy_dtype(t), nullable=False) for n, t in pairs])


def _batch(block: Sequence[Column], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array(np.ascontiguousarray(column)) for column in block]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
