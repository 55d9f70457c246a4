# Generated from densityd/client/aio/datasets.py by tools/sync_client.py; do not edit.
"""Datasets of the service."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import (
    ARROW,
    LONG_S,
    NPY,
    Body,
    Call,
    Retry,
    build_path,
    ignore,
    new_key,
    read_content,
)
from densityd.client.options import UploadOptions
from densityd.client.records import Dataset, DatasetSummary, Page
from densityd.client.sync.transport import Transport
from densityd.client.wire.arrow import encode_table, read_table
from densityd.client.wire.files import read_file
from densityd.client.wire.npy import Floats, check_rows, encode_array, read_array

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_PATH = "/v1/datasets"
_MAX_NAME = 128


class Datasets:
    """Uploaded tables."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        source: "str | Path | ArrayLike | pa.Table",
        *,
        name: str | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Upload a table.

        Args:
            source: Path of a file, the suffix of which is its format; an array; or an Arrow table.
            name: Label of the dataset; None for the file's name.
            **options: Options of the reader.

        Raises:
            ApiError: The service refuses the table.
            TransportError: There is no response.
            ValueError: The source is not a table.
            OSError: The file cannot be read.
        """
        if name is None and isinstance(source, str | Path):
            name = Path(source).stem[:_MAX_NAME] or None
        params = {option: _format_flag(value) for option, value in options.items()}
        call = Call(
            "POST",
            _PATH,
            Dataset.of,
            params={"name": name, **params},
            body=_encode(source),
            # Every attempt has the same key, so that there is one dataset.
            headers={"Idempotency-Key": new_key()},
            read_timeout_s=LONG_S,
        )
        return self._transport.send(call)

    def list(self) -> Iterator[DatasetSummary]:
        """Return an iterator over all datasets, newest first; pages are fetched as needed."""
        return self._transport.iter_items(_PATH, Page[DatasetSummary].of)

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return self._transport.send(Call("GET", build_path(_PATH, dataset_id), Dataset.of))

    def rows(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> Floats:
        """Return a range of the stored rows as an array."""
        return read_array(self._rows(dataset_id, offset, limit, NPY))

    def rows_table(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> "pa.Table":
        """Return a range of the stored rows as an Arrow table."""
        return read_table(self._rows(dataset_id, offset, limit, ARROW))

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished job uses."""
        path = build_path(_PATH, dataset_id)
        self._transport.send(Call("DELETE", path, ignore, retry=Retry.REFUSED))

    def _rows(self, dataset_id: str, offset: int, limit: int, media_type: str) -> bytes:
        call = Call(
            "GET",
            build_path(_PATH, dataset_id, "rows"),
            read_content,
            params={"offset": offset, "limit": limit},
            headers={"Accept": media_type},
        )
        return self._transport.send(call)


def _encode(source: "str | Path | ArrayLike | pa.Table") -> Body:
    if isinstance(source, str | Path):
        return read_file(Path(source))
    if not isinstance(source, np.ndarray) and hasattr(source, "to_batches"):
        return encode_table(source)
    return encode_array(check_rows(source))


def _format_flag(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
