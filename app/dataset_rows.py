"""A slice of a stored table, in the format that the caller likes."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.npy import encode_npy

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def read_slice(table: Path, *, offset: int, limit: int) -> NDArray[Any]:
    """Rows of a stored table; only they are read from the disk."""
    rows = np.load(table, mmap_mode="r", allow_pickle=False)
    return np.array(rows[offset : offset + limit])


def encode_rows(
    rows: NDArray[Any], media_type: str, *, columns: list[str], offset: int, total: int
) -> bytes:
    """Rows in one of `ROWS_MEDIA_TYPES`."""
    return _ENCODERS[media_type](rows, columns, offset, total)


def _as_json(rows: NDArray[Any], columns: list[str], offset: int, total: int) -> bytes:
    content = {"columns": columns, "rows": rows, "offset": offset, "total": total}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _as_csv(rows: NDArray[Any], columns: list[str], offset: int, total: int) -> bytes:  # noqa: ARG001  one signature
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_harmless(name) for name in columns])
    writer.writerows(rows.tolist() if rows.dtype == np.float64 else rows.astype(str).tolist())
    return text.getvalue().encode()


def _as_npy(rows: NDArray[Any], columns: list[str], offset: int, total: int) -> bytes:  # noqa: ARG001  one signature
    return b"".join(encode_npy(rows))


def _harmless(name: str) -> str:
    """A column name that a spreadsheet does not run as a formula."""
    return f"'{name}" if name.startswith(_FORMULA_STARTS) else name


_ENCODERS: dict[str, Callable[[NDArray[Any], list[str], int, int], bytes]] = {
    "application/json": _as_json,
    "text/csv": _as_csv,
    "application/x-npy": _as_npy,
}
ROWS_MEDIA_TYPES = tuple(_ENCODERS)
