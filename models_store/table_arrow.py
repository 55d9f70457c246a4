"""Arrow record batches as columns of float64."""

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from models_store.table_source import Columns


def columns_of(batch: pa.RecordBatch) -> Columns:
    """Copy a batch of numeric columns; nulls become not-a-number."""
    values = np.empty((batch.num_columns, batch.num_rows))
    with np.errstate(invalid="ignore"):  # a signalling not-a-number is missing like any other
        for position, column in enumerate(batch.columns):
            values[position] = column.to_numpy(zero_copy_only=False)
    return values
