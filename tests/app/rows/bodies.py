"""Bodies of rows with three columns, and what is read from them."""

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.problems.problem import Problem
from app.rows.shape import Floats, RowsShape
from tabular.formats import TableFormat
from tests.app.decoding import decode

SHAPE = RowsShape(["a", "b", "c"], max_rows=4)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def from_json(document: object, shape: RowsShape = SHAPE) -> Floats:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(body, TableFormat.JSON, shape)


def refusal(body: object, kind: TableFormat = TableFormat.JSON) -> Problem:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as caught:
        decode(text, kind, SHAPE)
    return caught.value
