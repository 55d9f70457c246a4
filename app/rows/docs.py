"""The OpenAPI description of rows in every format, which FastAPI cannot infer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.rows.codecs import CODECS, Codec
from app.rows.encode import Chunk, Part, ResponseTable
from tabular.formats import MEDIA_TYPES, TableFormat

ExampleRows = Sequence[Sequence[float]]

_BINARY = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_CELL = {"type": ["number", "string", "boolean", "null"]}
_ROW_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "array", "minItems": 1, "items": _CELL},
}
_NAMED_ROW_LIST = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "additionalProperties": _CELL},
}
_NAMES = {"type": "array", "items": {"type": "string"}}
_LEFT_OUT = "Left out: a response of `sample` can be sent as it is."
ROWS_SCHEMA = {
    "title": "RowsBody",
    "description": "Rows, and the names of their columns if they are not in the order of the model's.",
    "type": "object",
    "required": ["rows"],
    "properties": {
        "rows": {
            "anyOf": [_ROW_LIST, _NAMED_ROW_LIST],
            "description": "Rows: lists of values in the order of the columns, or objects by column.",
        },
        "columns": {**_NAMES, "description": "Names of the columns, for rows that are lists."},
        "model": {**_TEXT, "description": _LEFT_OUT},
        "seed": {"type": "integer", "maximum": 2**63 - 1, "description": _LEFT_OUT},
        "row_errors": {**_NAMED_ROW_LIST, "minItems": 0, "description": _LEFT_OUT},
    },
    "additionalProperties": False,
}
"""Schema of a JSON body of rows that is an object."""

_ROWS_BODY = {"$ref": "#/components/schemas/RowsBody"}


def rows_content(columns: Sequence[str], rows: ExampleRows) -> dict[str, Any]:
    """Return the `content` of a request body of rows.

    Args:
        columns: Names of the columns of the example.
        rows: Rows of the example.
    """
    return {codec.media_type: _request_media(codec, columns, rows) for codec in CODECS}


_NO_NUMBERS = ("columns", "given", "row_errors")  # members that are lists of something else


def upload_content(columns: Sequence[str], rows: ExampleRows) -> dict[str, Any]:
    """Return the `content` of the upload of a table, CSV first; as `rows_content`."""
    content = rows_content(columns, rows)
    lists = [_ROW_LIST, _NAMED_ROW_LIST]
    content["application/json"]["schema"] = {"anyOf": [_ROWS_BODY, *lists]}
    excel = next(kind for kind, form in MEDIA_TYPES.items() if form is TableFormat.EXCEL)
    return {"text/csv": content.pop("text/csv"), **content, excel: {"schema": _BINARY}}


def rows_response_content(
    schema: Mapping[str, Any] | None, *, example: Mapping[str, Any], columns: Sequence[str]
) -> dict[str, Any]:
    """Return the `content` of a response of rows.

    Args:
        schema: Schema of a JSON response; None: FastAPI knows its model.
        example: Example of a JSON response; its `rows`, or else its lists of numbers, are the columns.
        columns: Names of the columns in the other formats.
    """
    lists = [value for name, value in example.items() if name not in _NO_NUMBERS]
    lists = [value for value in lists if isinstance(value, list)]
    rows = np.column_stack([np.array(value, dtype=np.float64) for value in lists]).tolist()
    content: dict[str, Any] = {}
    for codec in CODECS:
        if codec.format is TableFormat.JSON:
            content[codec.media_type] = {
                "example": example,
                **({"schema": schema} if schema else {}),
            }
        elif codec.text:
            content[codec.media_type] = {"schema": _TEXT, "example": _text(codec, columns, rows)}
        else:
            content[codec.media_type] = {"schema": _BINARY}
    return content


def _request_media(codec: Codec, columns: Sequence[str], rows: ExampleRows) -> dict[str, Any]:
    if codec.format is TableFormat.JSON:
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        examples = {
            "lists": {"summary": "Rows as lists", "value": {"rows": rows}},
            "objects": {"summary": "Rows as objects keyed by column", "value": {"rows": objects}},
            "named": {
                "summary": "Rows as lists, with named columns",
                "value": {"columns": columns, "rows": rows},
            },
        }
        # A list of rows alone is read, too; generated clients cannot send one beside an object.
        return {"schema": _ROWS_BODY, "examples": examples}
    if codec.text:
        return {"schema": _TEXT, "example": _text(codec, columns, rows)}
    return {"schema": _BINARY}


def _text(codec: Codec, columns: Sequence[str], rows: ExampleRows) -> str:
    values = np.array(rows, dtype=np.float64)
    layout = ResponseTable(
        columns=columns,
        parts=[Part("rows", 0, len(columns))],
        rows=len(values),
        dtype=values.dtype,
        members={},
    )
    return codec.encode(layout, Chunk(values)).decode()
