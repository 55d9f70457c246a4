"""What Arrow and Parquet share: schemas of real columns, and record batches as float64."""

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tables.errors import TableError
from tables.source import Columns, clean_names

_EXTENSION_KEY = b"ARROW:extension:name"
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def real_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return the names and the types of columns that must all be plain real numbers.

    Raises:
        TableError: ``dataset-dtype``, naming the first that is not; or a name is bad.
    """
    names = clean_names(list(schema.names))
    for name, field in zip(names, schema, strict=True):
        if not _is_real(field):
            raise TableError(
                "dataset-dtype",
                f"Column {name!r} is of type {str(field.type)[:64]}; only plain integers and"
                " floats are accepted.",
                column=name,
            )
    return names, [_FLOATS.get(str(field.type), str(field.type)) for field in schema]


def row_bytes(dtypes: list[str]) -> int:
    """Return the bytes of a row of the stored table."""
    return len(dtypes) * (4 if set(dtypes) <= {"float16", "float32"} else 8)


def columns_of(batch: pa.RecordBatch) -> Columns:
    """Copy a batch of numeric columns; nulls become not-a-number."""
    values = np.empty((batch.num_columns, batch.num_rows))
    with np.errstate(invalid="ignore"):  # a signalling not-a-number is missing like any other
        for position, column in enumerate(batch.columns):
            values[position] = column.to_numpy(zero_copy_only=False)
    return values


def _is_real(field: pa.Field) -> bool:
    extended = field.metadata is not None and _EXTENSION_KEY in field.metadata
    return not extended and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
