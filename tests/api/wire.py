"""Tables as bodies in every format, and back."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from app.rows.decode import RowsBody
from app.rows.shape import Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular.formats import MEDIA_TYPES, TableFormat

MEDIA_TYPE = {kind: media_type for media_type, kind in MEDIA_TYPES.items()}
FORMATS: list[TableFormat] = [
    kind for kind in TableFormat if kind is not TableFormat.EXCEL
]  # is read alone


def write(kind: TableFormat, columns: Sequence[str], rows: NDArray[np.floating[Any]]) -> bytes:
    """A body as another program would write it; JSON and NDJSON as objects keyed by column."""
    buffer = io.BytesIO()
    objects = [dict(zip(columns, row, strict=True)) for row in rows.tolist()]
    table = pa.table({name: rows[:, i] for i, name in enumerate(columns)})
    match kind:
        case TableFormat.JSON:
            return json.dumps({"rows": objects}).encode()
        case TableFormat.NDJSON:
            return "".join(json.dumps(row) + "\n" for row in objects).encode()
        case TableFormat.CSV:
            text = io.StringIO()
            csv.writer(text).writerows([columns, *rows.tolist()])
            return text.getvalue().encode()
        case TableFormat.NPY:
            np.save(buffer, rows)
        case TableFormat.ARROW:
            with pa.ipc.new_stream(buffer, table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
        case TableFormat.PARQUET:
            pq.write_table(table, buffer)
        case TableFormat.EXCEL:
            raise NotImplementedError
    return buffer.getvalue()


def read(kind: TableFormat, body: bytes) -> tuple[list[str], NDArray[np.float64]]:
    """The columns and the rows of an answer as another program reads them."""
    match kind:
        case TableFormat.NPY:
            values = np.load(io.BytesIO(body), allow_pickle=False)
            return [], values.reshape(len(values), -1)
        case TableFormat.CSV:
            lines = list(csv.reader(io.StringIO(body.decode())))
            return lines[0], np.array(lines[1:], dtype=np.float64)
        case TableFormat.NDJSON:
            objects = [json.loads(line) for line in body.splitlines()]
            names = [name for name in objects[0] if name != "row_error"]
            rows = [[row[name] for name in names] for row in objects]
            return names, np.array(rows, dtype=np.float64)
        case TableFormat.JSON:
            return _from_json(json.loads(body))
        case TableFormat.ARROW:
            table = pa.ipc.open_stream(body).read_all()
        case _:
            table = pq.read_table(io.BytesIO(body))
    return table.column_names, np.column_stack([column.to_numpy() for column in table.columns])


def _from_json(document: dict[str, Any]) -> tuple[list[str], NDArray[np.float64]]:
    lists = [
        document[name] for name in ("rows", "log_det", "log_prob", "quantile") if name in document
    ]
    columns = [np.array(values, dtype=np.float64) for values in lists]
    return document.get("columns", []), np.column_stack(columns)


def decode(body: bytes, kind: TableFormat, shape: RowsShape, **parameters: str) -> Floats:
    """The rows of a body; nothing may be left on the disk."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            settings = ApiSettings(data_dir=folder)
            return (
                RowsBody(body, kind, parameters, shape, settings, Blobs.in_folder(folder))
                .read()
                .rows
            )
        finally:
            assert not [path for path in folder.rglob("*") if path.is_file()]
