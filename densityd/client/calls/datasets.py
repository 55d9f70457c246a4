"""The requests about datasets."""

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
    Answer,
    Body,
    Call,
    Retry,
    new_key,
    nothing,
)
from densityd.client.records import Dataset, DatasetSummary, Page
from densityd.client.wire.arrow import table_body, table_of
from densityd.client.wire.files import file_body
from densityd.client.wire.npy import Floats, array_of, npy_body, rows_of

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Rows = TypeVar("_Rows")
PATH = "/v1/datasets"
_MAX_NAME = 128


def upload(
    source: "str | Path | ArrayLike | pa.Table", *, name: str | None, options: Mapping[str, Any]
) -> Call[Dataset]:
    """Upload a file, an array or an Arrow table.

    Every try has the same idempotency key, so there is one dataset however often it is sent.

    Raises:
        ValueError: it is none of these.
        OSError: the file cannot be read.
    """
    label = name
    if label is None and isinstance(source, str | Path):
        label = Path(source).stem[:_MAX_NAME] or None
    flags = {name: _flag(value) for name, value in options.items()}
    return Call(
        "POST",
        PATH,
        Dataset.of,
        params={"name": label, **flags},
        body=_body(source),
        headers={"Idempotency-Key": new_key()},
        read_timeout_s=LONG_S,
    )


def page(*, cursor: str | None = None, limit: int | None = None) -> Call[Page[DatasetSummary]]:
    """A page of datasets."""
    return Call("GET", PATH, Page[DatasetSummary].of, params={"cursor": cursor, "limit": limit})


def get(dataset_id: str) -> Call[Dataset]:
    """One dataset."""
    return Call("GET", _path(dataset_id), Dataset.of)


def delete(dataset_id: str) -> Call[None]:
    """Delete a dataset."""
    return Call("DELETE", _path(dataset_id), nothing, retry=Retry.REFUSED)


def rows(dataset_id: str, *, offset: int, limit: int) -> Call[Floats]:
    """Some rows as an array."""
    return _rows(dataset_id, offset, limit, media_type=NPY, parse=_array)


def rows_table(dataset_id: str, *, offset: int, limit: int) -> "Call[pa.Table]":
    """Some rows as an Arrow table."""
    return _rows(dataset_id, offset, limit, media_type=ARROW, parse=_table)


def _rows(
    dataset_id: str,
    offset: int,
    limit: int,
    *,
    media_type: str,
    parse: Callable[[Answer], _Rows],
) -> Call[_Rows]:
    params: dict[str, str | int | None] = {"offset": offset, "limit": limit}
    path = f"{_path(dataset_id)}/rows"
    return Call("GET", path, parse, params=params, headers={"Accept": media_type})


def _array(answer: Answer) -> Floats:
    return array_of(answer.content)


def _table(answer: Answer) -> "pa.Table":
    return table_of(answer.content)


def _body(source: "str | Path | ArrayLike | pa.Table") -> Body:
    if isinstance(source, str | Path):
        return file_body(Path(source))
    if not isinstance(source, np.ndarray) and hasattr(source, "to_batches"):
        return table_body(source)
    return npy_body(rows_of(source))


def _flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _path(dataset_id: str) -> str:
    return f"{PATH}/{quote(dataset_id, safe='')}"
