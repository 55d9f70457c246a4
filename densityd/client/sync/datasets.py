# Generated from densityd/client/aio/datasets.py by tools/sync_client.py; do not edit.
"""Datasets of the service."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, overload

import orjson

from densityd.client.call import (
    ARROW,
    LONG_S,
    NPY,
    Call,
    Response,
    build_change,
    build_deletion,
    build_path,
    new_key,
    parse_json,
    read_content,
)
from densityd.client.filters import DatasetFilters, format_filters
from densityd.client.options import Labels, UploadOptions
from densityd.client.record import Page
from densityd.client.records import ColumnPage, Dataset, DatasetSummary, Preview
from densityd.client.rows import encode_rows
from densityd.client.signatures import shows_options
from densityd.client.wire.arrays import Floats, read_array, read_table
from densityd.client.wire.frames import Rows

if TYPE_CHECKING:  # httpx takes a while, and pyarrow too
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

    from densityd.client.sync.transport import Transport

_PATH = "/v1/datasets"
_MAX_NAME = 128


class Datasets:
    """Uploaded tables."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport

    @shows_options(UploadOptions)
    def upload(
        self,
        source: str | Path | Rows,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Upload a table.

        Args:
            source: Path of a file, the suffix of which is its format; a frame of pandas, polars or
                pyarrow; a list of records; or an array, whose columns are named x1 to xD.
            name: Label of the dataset; None for the file's name.
            idempotency_key: Key under which the same upload gives the same dataset for a day; None
                for a new key.

        Raises:
            ValueError: The source is not a table.
            OSError: The file cannot be read.
        """
        if name is None and isinstance(source, str | Path):
            name = Path(source).stem[:_MAX_NAME] or None
        call = Call(
            "POST",
            _PATH,
            _read_upload,
            params={"name": name, **_format_options(options)},
            body=encode_rows(Path(source) if isinstance(source, str) else source),
            # Every attempt has the same key, so that there is one dataset.
            headers={"Idempotency-Key": idempotency_key or new_key()},
            read_timeout_s=LONG_S,
        )
        return self._transport.send(call)

    @shows_options(UploadOptions)
    def preview(self, source: str | Path | Rows, **options: Unpack[UploadOptions]) -> Preview:
        """Return what an upload would make of a table: types, warnings with what mends them, first rows.

        Nothing is stored. Arguments and errors are those of `upload`.
        """
        call = Call(
            "POST",
            f"{_PATH}/preview",
            Preview.of,
            params=_format_options(options),
            body=encode_rows(Path(source) if isinstance(source, str) else source),
            read_timeout_s=LONG_S,
        )
        return self._transport.send(call)

    @shows_options(DatasetFilters)
    def list(self, **filters: Unpack[DatasetFilters]) -> Iterator[DatasetSummary]:
        """Return an iterator over datasets, newest first; pages are fetched as needed."""
        params = format_filters(filters)
        return self._transport.iter_items(_PATH, Page[DatasetSummary].of, params)

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return self._transport.fetch(Dataset, _PATH, dataset_id)

    def columns(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> ColumnPage:
        """Return a page of columns with their types and statistics, for tables with many columns."""
        path = build_path(_PATH, dataset_id, "columns")
        params: dict[str, int] = {"offset": offset, "limit": limit}
        return self._transport.send(Call("GET", path, ColumnPage.of, params=params))

    @shows_options(Labels)
    def update(
        self,
        dataset_id: str,
        *,
        types: Mapping[str, str] | None = None,
        etag: str | None = None,
        **labels: Unpack[Labels],
    ) -> Dataset:
        """Describe and tag a dataset, or correct the types of columns without a new upload.

        Args:
            types: New type of each named column; all others keep theirs.
            etag: Etag that the dataset must still have; None to change it in any case.
            **labels: New description and tags; what is left out stays.

        Raises:
            ApiError: A column cannot have its new type.
        """
        change = {**labels, **({} if types is None else {"types": dict(types)})}
        path = build_path(_PATH, dataset_id)
        return self._transport.send(build_change(path, Dataset.of, change, etag))

    @overload
    def rows(
        self, dataset_id: str, *, to: None = None, offset: int = 0, limit: int = 100, step: int = 1
    ) -> Floats: ...

    @overload
    def rows(
        self,
        dataset_id: str,
        *,
        to: Literal["table"],
        offset: int = 0,
        limit: int = 100,
        step: int = 1,
    ) -> "pa.Table": ...

    def rows(
        self,
        dataset_id: str,
        *,
        to: Literal["table"] | None = None,
        offset: int = 0,
        limit: int = 100,
        step: int = 1,
    ) -> "Floats | pa.Table":
        """Return each `step`-th of the stored rows.

        Args:
            to: None for an array, in which text is codes and dates are seconds; `"table"` for an Arrow
                table with the values of the file.
        """
        call = Call(
            "GET",
            build_path(_PATH, dataset_id, "rows"),
            read_content,
            params={"offset": offset, "limit": limit, "step": step},
            headers={"Accept": NPY if to is None else ARROW},
        )
        content = self._transport.send(call)
        return read_array(content) if to is None else read_table(content)

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished job uses."""
        self._transport.send(build_deletion(_PATH, dataset_id))


def _read_upload(response: Response) -> Dataset:
    replayed = response.headers.get("idempotent-replayed") == "true"
    return Dataset.read({**parse_json(response.content), "replayed": replayed})


def _format_options(options: Mapping[str, object]) -> dict[str, str]:
    """Return values of the query: text as it is, anything else as JSON."""
    return {
        name: value if isinstance(value, str) else orjson.dumps(value).decode()
        for name, value in options.items()
    }
