"""The npy format: a reader of what NumPy writes, and a writer of files for memory mapping."""

import io
import math
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.errors import TableError
from tabular.formats import ParseOptions
from tabular.source import (
    Columns,
    Source,
    check_columns,
    check_rows,
    default_names,
    rows_per_chunk,
)

MAX_HEADER_BYTES = 1024
"""Longest header that is parsed, which keeps the interpreter's lock: that of a table of numbers has 118."""

_PREFIX_BYTES = 12  # magic string, version and length of the header, where that has four bytes
_BAD_TYPE = "descr is not a valid dtype descriptor"  # how NumPy's error begins
# What NumPy raises on hostile headers; a warning where these are made errors.
_HEADER_ERRORS = (
    *(ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, MemoryError),
    *(RecursionError, tokenize.TokenError, Warning),
)
_WRITTEN_HEADER_BYTES = 128
_MAX_SIZE = 2**63 - 1  # of any file; a longer number could not even be told in decimal digits
_COPY_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class NpyHeader:
    """Header of a table of real numbers.

    Attributes:
        dtype: Type of the values, of any width and byte order.
        fortran_order: True where columns follow one another, instead of rows.
        shape: Number of rows and of columns.
        offset: Byte of the file at which the values begin.
    """

    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, int]
    offset: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.shape[1]

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(start: bytes) -> NpyHeader | None:
    """Parse the header at the start of an npy file; nothing is unpickled or evaluated.

    Returns:
        None where more bytes must come first.

    Raises:
        TableError: ``dataset-parse``, ``dataset-dtype``, ``dataset-pickle-forbidden``, or
            ``dataset-shape`` for an array that is not of two dimensions.
    """
    magic = np.lib.format.MAGIC_PREFIX
    if not start.startswith(magic[: len(start)]):
        raise TableError("dataset-parse", "The file does not begin as an npy file.")
    if len(start) < _PREFIX_BYTES:
        return None
    version = (start[6], start[7])
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise TableError("dataset-parse", "The file is of an unknown version of npy.")
    offset = _PREFIX_BYTES if version > (1, 0) else _PREFIX_BYTES - 2
    length = int.from_bytes(start[8:offset], "little")
    if length > MAX_HEADER_BYTES:
        raise TableError("dataset-parse", f"The header has more than {MAX_HEADER_BYTES} bytes.")
    stop = offset + length
    return None if len(start) < stop else _parsed(version, start[8:stop], offset=stop)


def open_npy(path: Path, options: ParseOptions) -> Source:
    """Open an npy file. Nothing in it is ever unpickled or evaluated.

    Raises:
        TableError: The header is not that of a 2-D array of reals, or the data do not fill it.
    """
    with path.open("rb") as file:
        start = file.read(_PREFIX_BYTES + MAX_HEADER_BYTES)
    if not start:
        raise TableError("dataset-empty", "The file is empty.")
    header = parse_header(start)
    if header is None:
        raise TableError("dataset-truncated", "The file ends too early.")
    check_columns(header.columns, options=options)
    _check_size(path.stat().st_size, header)
    stored_bytes = 4 if header.dtype.kind == "f" and header.dtype.itemsize <= 4 else 8
    check_rows(header.rows, row_bytes=header.columns * stored_bytes, options=options)

    def batches() -> Iterator[pa.RecordBatch]:
        names = [str(place) for place in range(header.columns)]
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        rows = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
        step = rows_per_chunk(header.columns)
        for first in range(0, header.rows, step):
            with np.errstate(invalid="ignore"):  # a signalling not-a-number is missing, too
                columns = np.ascontiguousarray(rows[first : first + step].T, np.float64)
            yield pa.record_batch(list(map(pa.array, columns)), names=names)

    return Source(
        names=default_names(header.columns),
        dtypes=[header.dtype.name] * header.columns,
        types=[pa.float64()] * header.columns,
        batches=batches,
    )


@lru_cache(maxsize=256)  # as below
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the bytes that come before the values of a row-major array."""
    file = io.BytesIO()
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


class RowWriter:
    """Writer of a row-major npy file of unknown length: rows first, the header at the end.

    Until `finish`, the file starts with zeros and is no npy file.

    Raises:
        OSError: The disk is full or failed; every method raises it.
    """

    def __init__(self, path: Path, columns: int, *, dtype: Literal["float32", "float64"]) -> None:
        self.columns = columns
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.rows = 0
        self._file: BinaryIO = path.open("w+b")
        self._file.write(bytes(_WRITTEN_HEADER_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, values: Columns) -> None:
        """Append rows."""
        self._file.write(np.ascontiguousarray(values.T, dtype=self.dtype).data)
        self.rows += values.shape[1]

    def keep_columns(self, keep: NDArray[np.bool_]) -> None:
        """Take the other columns out of the rows written so far, in place."""
        row_bytes = self.columns * self.dtype.itemsize
        step = max(1, _COPY_BYTES // row_bytes)
        source = target = _WRITTEN_HEADER_BYTES
        for start in range(0, self.rows, step):
            # What is written never reaches what is still to be read: it is narrower.
            self._file.seek(source)
            data = self._file.read(min(step, self.rows - start) * row_bytes)
            kept = np.frombuffer(data, self.dtype).reshape(-1, self.columns)[:, keep]
            self._file.seek(target)
            self._file.write(np.ascontiguousarray(kept).data)
            source += len(data)
            target += kept.nbytes
        self._file.truncate(target)
        self.columns = int(keep.sum())

    def finish(self) -> None:
        """Write the header."""
        header = npy_header(self.dtype, (self.rows, self.columns))
        self._file.seek(0)
        self._file.write(header)
        self._file.flush()


@lru_cache(maxsize=256)  # callers send the same few shapes over and over
def _parsed(version: tuple[int, int], header: bytes, *, offset: int) -> NpyHeader:
    """Parse a whole header, its length included."""
    # Version 3 has another character set, which no header of plain numbers needs.
    numpy = np.lib.format
    read = numpy.read_array_header_1_0 if version == (1, 0) else numpy.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read(io.BytesIO(header), max_header_size=MAX_HEADER_BYTES)
    except _HEADER_ERRORS as error:
        if str(error).startswith(_BAD_TYPE):
            raise _not_real() from None
        raise _bad_header() from None
    if not all(type(size) is int and 0 <= size <= _MAX_SIZE for size in shape):
        raise _bad_header()
    if dtype.hasobject:
        raise TableError(
            "dataset-pickle-forbidden",
            "The array holds Python objects, which would have to be unpickled. Convert it to"
            " float64 first.",
        )
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise _not_real()
    if len(shape) != 2:
        raise TableError(
            "dataset-shape",
            f"The array has {len(shape)} dimensions; a table has 2, rows by columns.",
        )
    return NpyHeader(dtype=dtype, fortran_order=fortran_order, shape=shape, offset=offset)


def _check_size(size: int, header: NpyHeader) -> None:
    if header.rows == 0:
        raise TableError("dataset-empty", "The array has no rows.")
    expected = header.offset + header.size
    if size < expected:
        raise TableError(
            "dataset-truncated", f"The file has {size} bytes; its header promises {expected}."
        )
    if size > expected:
        raise TableError("dataset-parse", f"{size - expected} bytes follow the array.")


def _bad_header() -> TableError:
    return TableError("dataset-parse", "The header is not one that NumPy writes.")


def _not_real() -> TableError:
    return TableError(
        "dataset-dtype",
        "The array is not of a real type: float16 to float64 and integers of 8 to 64 bits are"
        " accepted.",
    )
