"""Calls about datasets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import (
    ARROW,
    LONG_S,
    NPY,
    Body,
    Call,
    Response,
    Retry,
    ignore,
    new_key,
)
from densityd.client.records import Dataset, DatasetSummary, Page
from densityd.client.wire.arrow import encode_table, read_table
from densityd.client.wire.files import read_file
from densityd.client.wire.npy import Floats, check_rows, encode_array, read_array

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Rows = TypeVar("_Rows")
PATH = "/v1/datasets"
_MAX_NAME = 128


def upload(
    source: "str | Path | ArrayLike | pa.Table", *, name: str | None, options: Mapping[str, Any]
) -> Call[Dataset]:
    """Return the upload of a file, an array or an Arrow table.

    Every attempt has the same idempotency key, so that there is one dataset.

    Raises:
        ValueError: The source is something else.
        OSError: The file cannot be read.
    """
    label = name
    if label is None and isinstance(source, str | Path):
        label = Path(source).stem[:_MAX_NAME] or None
    flags = {name: _format_flag(value) for name, value in options.items()}
    return Call(
        "POST",
        PATH,
        Dataset.of,
        params={"name": label, **flags},
        body=_encode(source),
        headers={"Idempotency-Key": new_key()},
        read_timeout_s=LONG_S,
    )


def page(*, cursor: str | None = None, limit: int | None = None) -> Call[Page[DatasetSummary]]:
    """Return the request for a page of datasets."""
    return Call("GET", PATH, Page[DatasetSummary].of, params={"cursor": cursor, "limit": limit})


def get(dataset_id: str) -> Call[Dataset]:
    """Return the request for a dataset."""
    return Call("GET", _path(dataset_id), Dataset.of)


def delete(dataset_id: str) -> Call[None]:
    """Return the deletion of a dataset."""
    return Call("DELETE", _path(dataset_id), ignore, retry=Retry.REFUSED)


def rows(dataset_id: str, *, offset: int, limit: int) -> Call[Floats]:
    """Return the request for a range of rows as an array."""
    return _rows(dataset_id, offset, limit, media_type=NPY, parse=_read_array)


def rows_table(dataset_id: str, *, offset: int, limit: int) -> "Call[pa.Table]":
    """Return the request for a range of rows as an Arrow table."""
    return _rows(dataset_id, offset, limit, media_type=ARROW, parse=_read_table)


def _rows(
    dataset_id: str,
    offset: int,
    limit: int,
    *,
    media_type: str,
    parse: Callable[[Response], _Rows],
) -> Call[_Rows]:
    params: dict[str, str | int | None] = {"offset": offset, "limit": limit}
    path = f"{_path(dataset_id)}/rows"
    return Call("GET", path, parse, params=params, headers={"Accept": media_type})


def _read_array(response: Response) -> Floats:
    return read_array(response.content)


def _read_table(response: Response) -> "pa.Table":
    return read_table(response.content)


def _encode(source: "str | Path | ArrayLike | pa.Table") -> Body:
    if isinstance(source, str | Path):
        return read_file(Path(source))
    if not isinstance(source, np.ndarray) and hasattr(source, "to_batches"):
        return encode_table(source)
    return encode_array(check_rows(source))


def _format_flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _path(dataset_id: str) -> str:
    return f"{PATH}/{quote(dataset_id, safe='')}"
