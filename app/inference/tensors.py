"""Tensors of the Open Inference Protocol: from bytes and JSON to arrays and rows, and back."""

import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.http.exchange import Answer
from app.http.json_body import JSON_MEDIA_TYPE, validate_json
from app.inference.views import MAX_VALUES, Datatype, InferRequest, InputTensor
from app.problems.fields import shown
from app.problems.problem import Problem
from app.rows.decode import as_problem, check_levels
from app.rows.shape import Floats, RowsShape
from tabular.typed_rows import JsonCell, encode_rows

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_MEDIA_TYPE = "application/octet-stream"

ROWS = "rows"
"""Name of the tensor that holds whole rows."""

MAX_CELLS = 500_000
"""Most cells that are texts, of which each is an object."""

_NUMBERS: dict[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LENGTH = struct.Struct("<I")
_MAX_TEXT = 64 * 1024
_MAX_NAMES = 20
_NUMBER_TYPES = frozenset({int, float, bool, type(None)})
_TEXT_TYPES = frozenset({str, type(None)})

Tensor = NDArray[Any]
"""Numbers or truth values, or objects: texts, and None where one is missing."""


def read_request(body: bytes, header_bytes: int | None) -> tuple[InferRequest, dict[str, Tensor]]:
    """Return a request and the tensors that it brings, by their names.

    Args:
        body: Body of the request: JSON, and behind it the bytes of tensors.
        header_bytes: Bytes of the JSON; None: the whole body.

    Raises:
        Problem: The JSON or a tensor is not valid.
    """
    if header_bytes is not None and header_bytes > len(body):
        raise Problem("validation", f"`{HEADER_LENGTH}` is larger than the body.", status=400)
    request = validate_json(InferRequest, body[:header_bytes])
    _check_counts(request.inputs)
    rest = memoryview(body)[len(body) if header_bytes is None else header_bytes :]
    tensors: dict[str, Tensor] = {}
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise _wrong("Two tensors have the same name.")
        size = tensor.binary_bytes
        values = _from_json(tensor) if size is None else _from_bytes(tensor, size, rest)
        tensors[tensor.name] = values.reshape(tensor.shape)
        rest = rest[size or 0 :]
    if len(rest):
        raise _wrong(f"The body has {len(rest)} bytes behind those of its tensors.")
    return request, tensors


def rows_of(tensors: Mapping[str, Tensor], shape: RowsShape) -> Floats:
    """Return the rows that tensors hold: one tensor `rows`, or one for each column.

    Raises:
        Problem: The tensors are not those of the model, or a value is none of its column.
    """
    if tensors.keys() == {ROWS} and tensors[ROWS].ndim == 2:
        return _matrix(tensors[ROWS], shape)
    if tensors.keys() != set(shape.columns):
        names = ", ".join(f"`{shown(name)}`" for name in shape.columns[:_MAX_NAMES])
        more = shape.width - _MAX_NAMES
        raise Problem(
            "columns-mismatch",
            f"The inputs must be one tensor `{ROWS}` of shape [rows, {shape.width}], or one tensor of"
            f" shape [rows] for each column: {names}{f' and {more} more' if more > 0 else ''}.",
        )
    columns = [tensors[name] for name in shape.columns]
    rows = columns[0].shape[0]
    if any(column.shape not in ((rows,), (rows, 1)) for column in columns):
        raise Problem("batch-shape", f"Every tensor must have the shape [{rows}] or [{rows}, 1].")
    shape.check_count(rows)
    if shape.types is None and all(column.dtype != object for column in columns):
        return np.column_stack([column.astype(np.float64) for column in columns])
    if rows * len(columns) > MAX_CELLS:
        raise Problem("limit-rows", f"A request may have {MAX_CELLS} cells of columns with types.")
    cells = zip(*(column.reshape(-1).tolist() for column in columns), strict=True)
    return _encoded(list(cells), shape)


def number_of(name: str, tensor: Tensor, *, most: int) -> int:
    """Return the whole number that a tensor of one value holds.

    Raises:
        Problem: It holds anything else, or the number is negative or above `most`.
    """
    value = tensor.item() if tensor.size == 1 else None
    if isinstance(value, str | bool) or value is None or not float(value).is_integer():
        raise _wrong(f"The tensor `{name}` must hold one whole number.")
    if not 0 <= value <= most:
        raise _wrong(f"The tensor `{name}` must hold a number from 0 to {most}.")
    return int(value)


def tensor_response(
    wanted: InferRequest, outputs: Mapping[str, Tensor], about: Mapping[str, str]
) -> Answer:
    """Return the response to a request: JSON, and behind it the values that are to be bytes.

    Args:
        outputs: Numbers or texts by the names of the outputs.
        about: Further members of the JSON.

    Raises:
        Problem: The response has too many values for its form.
    """
    named = {output.name: output.parameters or {} for output in wanted.outputs or ()}
    all_binary = (wanted.parameters or {}).get("binary_data_output") is True
    heads, rest, beside = [], [], 0
    for name, values in outputs.items():
        if named and name not in named:
            continue
        datatype = "BYTES" if values.dtype == object else "FP64"
        head: dict[str, object] = {"name": name, "datatype": datatype, "shape": values.shape}
        if named.get(name, {}).get("binary_data", all_binary) is True:
            rest.append(_to_bytes(values))
            head["parameters"] = {"binary_data_size": len(rest[-1])}
            heads.append(orjson.dumps(head))
        else:
            beside += values.size
            heads.append(orjson.dumps(head)[:-1] + b',"data":' + _to_json(values) + b"}")
    if rest and beside > MAX_CELLS:
        raise Problem(
            "limit-rows", f"A response may have {MAX_CELLS} values in JSON beside binary outputs."
        )
    start = orjson.dumps(about if wanted.id is None else {**about, "id": wanted.id})[:-1]
    text = start + b',"outputs":[' + b",".join(heads) + b"]}"
    if not rest:
        return Answer(text, media_type=JSON_MEDIA_TYPE)
    headers = [(HEADER_LENGTH.lower().encode(), b"%d" % len(text))]
    return Answer(b"".join([text, *rest]), media_type=BINARY_MEDIA_TYPE, headers=headers)


def _to_bytes(values: Tensor) -> bytes:
    if values.dtype != object:
        return np.ascontiguousarray(values, "<f8").tobytes()
    texts = [text.encode() for text in values.reshape(-1)]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))


def _to_json(values: Tensor) -> bytes:
    """Return values as a JSON list; null for what is not finite."""
    if values.dtype == object:
        return orjson.dumps(values.reshape(-1).tolist())
    flat = np.ascontiguousarray(values, np.float64).reshape(-1)
    return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_counts(inputs: Sequence[InputTensor]) -> None:
    """Refuse more values than fit into memory, before any is read."""
    values = sum(math.prod(tensor.shape) for tensor in inputs)
    texts = sum(math.prod(tensor.shape) for tensor in inputs if tensor.datatype == "BYTES")
    if values > MAX_VALUES or texts > MAX_CELLS:
        raise Problem(
            "limit-rows",
            f"The tensors of a request may have {MAX_VALUES} values, {MAX_CELLS} of them texts; these"
            f" have {values} and {texts}. Split the request, or send rows to `/v1/models`, whose bodies may be larger.",
        )


def _from_json(tensor: InputTensor) -> Tensor:
    if tensor.data is None:
        raise _wrong(f"{_name(tensor)} has neither `data` nor `binary_data_size`.")
    values = _flat(tensor, tensor.data)
    kinds = set(map(type, values))
    if tensor.datatype == "BYTES":
        if not kinds <= _TEXT_TYPES:
            raise _wrong(f"{_name(tensor)} must hold texts; it is of type BYTES.")
        return np.array([text or None for text in values], object)
    if not kinds <= _NUMBER_TYPES:
        raise _wrong(f"{_name(tensor)} must hold numbers; it is of type {tensor.datatype}.")
    if tensor.datatype == "BOOL" and kinds <= {bool}:
        return np.array(values, np.bool_)
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise _wrong(f"{_name(tensor)} has a number that is too large.") from None


def _flat(tensor: InputTensor, values: list[Any]) -> list[Any]:
    """Return values of lists in lists as one list of as many as the shape says."""
    while values and isinstance(values[0], list):
        if not all(isinstance(value, list) for value in values):
            raise _wrong(f"{_name(tensor)} has lists beside values.")
        values = list(chain.from_iterable(values))
    if len(values) != math.prod(tensor.shape):
        raise _wrong(f"{_name(tensor)} has {len(values)} values, which do not fit its shape.")
    return values


def _from_bytes(tensor: InputTensor, size: int, rest: memoryview) -> Tensor:
    if tensor.data is not None:
        raise _wrong(f"{_name(tensor)} has both `data` and `binary_data_size`.")
    if not 0 <= size <= len(rest):
        raise _wrong(f"{_name(tensor)} needs {size} bytes behind the JSON; {len(rest)} are left.")
    if tensor.datatype == "BYTES":
        return _texts(tensor, bytes(rest[:size]))
    dtype = _NUMBERS[tensor.datatype]
    if size != dtype.itemsize * math.prod(tensor.shape):
        raise _wrong(f"{_name(tensor)} has {size} bytes, which do not fit its shape and type.")
    values = np.frombuffer(rest[:size], dtype)
    if dtype.kind == "b":
        return values
    single = dtype.kind == "f" and dtype.itemsize <= np.dtype(np.float32).itemsize
    return values.astype(np.float32 if single else np.float64, copy=False)


def _texts(tensor: InputTensor, data: bytes) -> Tensor:
    """Return the texts of a tensor, each behind the four bytes of its length."""
    texts: list[str | None] = []
    place = 0
    for _ in range(math.prod(tensor.shape)):
        start = place + _LENGTH.size
        if start > len(data):
            raise _wrong(f"{_name(tensor)} has fewer texts than its shape says.")
        length = _LENGTH.unpack_from(data, place)[0]
        if length > _MAX_TEXT:
            raise _wrong(f"{_name(tensor)} has a text of more than {_MAX_TEXT} bytes.")
        place = start + length
        if place > len(data):
            raise _wrong(f"{_name(tensor)} has a text that is cut off.")
        try:
            texts.append(data[start:place].decode() or None)
        except UnicodeDecodeError:
            raise _wrong(f"{_name(tensor)} has a text that is no UTF-8.") from None
    if place != len(data):
        raise _wrong(f"{_name(tensor)} has more texts than its shape says.")
    return np.array(texts, object)


def _matrix(tensor: Tensor, shape: RowsShape) -> Floats:
    rows, width = tensor.shape
    shape.check_count(rows)
    shape.check_width(width)
    if tensor.dtype == object:
        return _encoded(tensor.tolist(), shape)
    found: Floats = tensor if tensor.dtype.kind == "f" else tensor.astype(np.float64)
    check_levels(found, shape)
    return found


def _encoded(cells: Sequence[Sequence[JsonCell]], shape: RowsShape) -> Floats:
    with as_problem():
        if shape.types is not None:
            return shape.types.codes.rows(cells)
        return encode_rows(cells, shape.cell_columns)


def _name(tensor: InputTensor) -> str:
    return f"The tensor `{shown(tensor.name)}`"


def _wrong(detail: str) -> Problem:
    return Problem("validation", detail)
