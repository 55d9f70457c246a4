"""The npy format: reading what NumPy may have written, and writing what is memory-mapped."""

import ast
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tables.errors import TableError
from tables.formats import ParseOptions
from tables.source import (
    Columns,
    TableSource,
    check_columns,
    check_rows,
    default_names,
    rows_per_chunk,
)

MAX_HEADER_BYTES = 10_000
"""The longest header that is parsed, as in NumPy itself."""

_MAGIC = b"\x93NUMPY"
_REAL = re.compile(r"[<>|=]?(f[248]|[iu][1248])")
_WRITTEN_HEADER_BYTES = 128
_MAX_SIZE = 2**63 - 1  # of any file; a longer number could not even be told in decimal digits
_COPY_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class _Header:
    dtype: np.dtype[np.generic]
    fortran_order: bool
    rows: int
    columns: int
    data_offset: int


def open_npy(path: Path, options: ParseOptions) -> TableSource:
    """Open an npy file. Nothing in it is ever unpickled or evaluated.

    Raises:
        TableError: the header is not that of a 2-D array of reals, or the data do not fill it.
    """
    header = _read_header(path)
    check_columns(header.columns, options=options)
    stored_bytes = 4 if header.dtype.kind == "f" and header.dtype.itemsize <= 4 else 8
    _check_size(path, header)
    check_rows(header.rows, row_bytes=header.columns * stored_bytes, options=options)
    read = _fortran_chunks if header.fortran_order else _row_major_chunks
    return TableSource(
        names=default_names(header.columns),
        dtypes=[header.dtype.name] * header.columns,
        named=False,
        chunks=read(path, header),
        warnings=[],
        rows=header.rows,
    )


class RowWriter:
    """Writes a row-major npy file of unknown length: rows first, the header when it is known.

    Until `finish`, the file starts with zeros and is no npy file.

    Raises:
        OSError: from every method, when the disk is full or failed.
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
        text = (
            f"{{'descr': '{self.dtype.str}', 'fortran_order': False,"
            f" 'shape': ({self.rows}, {self.columns}), }}"
        )
        length = _WRITTEN_HEADER_BYTES - 10
        self._file.seek(0)
        self._file.write(_MAGIC + b"\x01\x00" + length.to_bytes(2, "little"))
        self._file.write(text.ljust(length - 1).encode() + b"\n")
        self._file.flush()


def _read_header(path: Path) -> _Header:
    with path.open("rb") as file:
        start = file.read(12)
        if not start:
            raise TableError("dataset-empty", "The file is empty.")
        if len(start) < 12:
            raise _truncated()
        wide = start[6] > 1  # versions 2.0 and 3.0 have four bytes for the length, 1.0 two
        if start[6:8] not in {b"\x01\x00", b"\x02\x00", b"\x03\x00"}:
            raise TableError("dataset-parse", "The file is of an unknown version of npy.")
        offset = 12 if wide else 10
        length = int.from_bytes(start[8:offset], "little")
        if length > MAX_HEADER_BYTES:
            raise TableError("dataset-parse", f"The header has more than {MAX_HEADER_BYTES} bytes.")
        file.seek(offset)
        text = file.read(length)
    if len(text) < length:
        raise _truncated()
    return _parse_header(text, data_offset=offset + length)


def _parse_header(text: bytes, *, data_offset: int) -> _Header:
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _bad_header() from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise _bad_header()
    fortran_order, shape = header["fortran_order"], header["shape"]
    if not isinstance(fortran_order, bool) or not _is_shape(shape):
        raise _bad_header()
    dtype = _real_dtype(header["descr"])
    if len(shape) != 2:
        raise TableError(
            "dataset-shape",
            f"The array has {len(shape)} dimensions; a table has 2, rows by columns.",
        )
    return _Header(
        dtype=dtype,
        fortran_order=fortran_order,
        rows=shape[0],
        columns=shape[1],
        data_offset=data_offset,
    )


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(n) is int and 0 <= n <= _MAX_SIZE for n in shape)


def _real_dtype(description: object) -> np.dtype[np.generic]:
    """Turn a type that is allowed, and no other, into NumPy's."""
    if isinstance(description, str) and _REAL.fullmatch(description):
        return np.dtype(description)
    if "O" in str(description):
        raise TableError(
            "dataset-pickle-forbidden",
            "The array holds Python objects, which would have to be unpickled. Convert it to"
            " float64 first.",
        )
    raise TableError(
        "dataset-dtype",
        "The array is not of a real type: float16 to float64 and integers of 8 to 64 bits are"
        " accepted.",
    )


def _check_size(path: Path, header: _Header) -> None:
    if header.rows == 0:
        raise TableError("dataset-empty", "The array has no rows.")
    expected = header.data_offset + math.prod((header.rows, header.columns, header.dtype.itemsize))
    size = path.stat().st_size
    if size < expected:
        raise TableError(
            "dataset-truncated", f"The file has {size} bytes; its header promises {expected}."
        )
    if size > expected:
        raise TableError("dataset-parse", f"{size - expected} bytes follow the array.")


def _row_major_chunks(path: Path, header: _Header) -> Iterator[Columns]:
    row_bytes = header.columns * header.dtype.itemsize
    with path.open("rb") as file:
        file.seek(header.data_offset)
        for start, stop in _ranges(header):
            data = _read_exactly(file, (stop - start) * row_bytes)
            rows = np.frombuffer(data, header.dtype).reshape(stop - start, header.columns)
            yield _widened(rows.T)


def _fortran_chunks(path: Path, header: _Header) -> Iterator[Columns]:
    size = header.dtype.itemsize
    with path.open("rb") as file:
        for start, stop in _ranges(header):
            values = np.empty((header.columns, stop - start))
            for column in range(header.columns):
                file.seek(header.data_offset + (column * header.rows + start) * size)
                data = _read_exactly(file, (stop - start) * size)
                values[column] = _widened(np.frombuffer(data, header.dtype))
            yield values


def _widened(values: NDArray[np.generic]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a signalling not-a-number is missing like any other
        return np.ascontiguousarray(values, dtype=np.float64)


def _ranges(header: _Header) -> Iterator[tuple[int, int]]:
    step = rows_per_chunk(header.columns)
    for start in range(0, header.rows, step):
        yield start, min(start + step, header.rows)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _truncated()
    return data


def _truncated() -> TableError:
    return TableError("dataset-truncated", "The file ends too early.")


def _bad_header() -> TableError:
    return TableError("dataset-parse", "The header is not one that NumPy writes.")
