"""Tensors of the Open Inference Protocol: from bytes and JSON to rows, and back."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.http.json_body import validate_json
from app.inference.views import MAX_VALUES, Datatype, InferRequest, InputTensor
from app.problems.fields import shown
from app.problems.problem import Problem
from app.rows.decode.problems import as_problem
from app.rows.shape import Floats, RowsShape
from tabular.typed_rows import JsonCell, check_codes, encode_rows

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
_NUMBER_TYPES = frozenset({int, float, bool, type(None)})
_TEXT_TYPES = frozenset({str, type(None)})

Numbers = NDArray[Any]
Texts = list[str | None]


@dataclass(frozen=True)
class Tensor:
    """Tensor of a request.

    Args:
        name: Name of the tensor.
        shape: Sizes of its dimensions.
        values: Its values row by row, in one dimension: numbers, or texts.
    """

    name: str
    shape: tuple[int, ...]
    values: Numbers | Texts

    @property
    def cells(self) -> Sequence[JsonCell]:
        """Values as cells of a table, of which a missing one is None."""
        if isinstance(self.values, list):
            return self.values
        cells: list[JsonCell] = self.values.tolist()
        return cells


def read_request(body: bytes, header_bytes: int | None) -> tuple[InferRequest, list[Tensor]]:
    """Return a request and the tensors that it brings.

    Args:
        body: Body of the request: JSON, and behind it the bytes of tensors.
        header_bytes: Bytes of the JSON; None: the whole body.

    Raises:
        Problem: The JSON or a tensor is not valid.
    """
    if header_bytes is not None and header_bytes > len(body):
        raise Problem(
            "validation", "`Inference-Header-Content-Length` is larger than the body.", status=400
        )
    request = validate_json(InferRequest, body[:header_bytes])
    _check_counts(request.inputs)
    rest = memoryview(body)[len(body) if header_bytes is None else header_bytes :]
    tensors = []
    for tensor in request.inputs:
        size = tensor.binary_bytes
        if size is None:
            tensors.append(Tensor(tensor.name, tuple(tensor.shape), _from_json(tensor)))
        else:
            tensors.append(Tensor(tensor.name, tuple(tensor.shape), _from_bytes(tensor, rest)))
            rest = rest[size:]
    if len(rest):
        raise _wrong(f"The body has {len(rest)} bytes behind those of its tensors.")
    return request, tensors


def rows_of(tensors: Sequence[Tensor], shape: RowsShape) -> Floats:
    """Return the rows that tensors hold: one tensor `rows`, or one for each column.

    Args:
        tensors: Tensors of a request.
        shape: Shape that the rows must have.

    Raises:
        Problem: The tensors are not those of the model, or a value is none of its column.
    """
    named = {tensor.name: tensor for tensor in tensors}
    if len(named) < len(tensors):
        raise _wrong("Two tensors have the same name.")
    if named.keys() == {ROWS} and len(named[ROWS].shape) == 2:
        return _matrix(named[ROWS], shape)
    if named.keys() != set(shape.columns):
        raise Problem("columns-mismatch", _wanted_tensors(shape))
    return _side_by_side([named[name] for name in shape.columns], shape)


def number_of(tensor: Tensor, *, most: int) -> int:
    """Return the whole number that a tensor of one value holds.

    Raises:
        Problem: It holds anything else, or the number is negative or above `most`.
    """
    value = tensor.cells[0] if len(tensor.values) == 1 else None
    if isinstance(value, str | bool) or value is None or not float(value).is_integer():
        raise _wrong(f"The tensor `{tensor.name}` must hold one whole number.")
    if not 0 <= value <= most:
        raise _wrong(f"The tensor `{tensor.name}` must hold a number from 0 to {most}.")
    return int(value)


def bytes_of(values: Floats | Sequence[str]) -> bytes:
    """Return the values of an output as the bytes of a tensor."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values, "<f8").tobytes()
    texts = [text.encode() for text in values]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))


def json_of(values: Floats | Sequence[str]) -> bytes:
    """Return the values of an output as a JSON list; null for what is not finite."""
    if isinstance(values, np.ndarray):
        flat = np.ascontiguousarray(values, np.float64).reshape(-1)
        return orjson.dumps(np.where(np.isfinite(flat), flat, np.nan), option=_NUMPY)
    return orjson.dumps(values)


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


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


def _from_json(tensor: InputTensor) -> Numbers | Texts:
    if tensor.data is None:
        raise _wrong(f"{_name(tensor)} has neither `data` nor `binary_data_size`.")
    values = _flat(tensor, tensor.data)
    kinds = set(map(type, values))
    if tensor.datatype == "BYTES":
        if not kinds <= _TEXT_TYPES:
            raise _wrong(f"{_name(tensor)} must hold texts; it is of type BYTES.")
        return [text or None for text in values]
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


def _from_bytes(tensor: InputTensor, rest: memoryview) -> Numbers | Texts:
    size = tensor.binary_bytes or 0
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


def _texts(tensor: InputTensor, data: bytes) -> Texts:
    """Return the texts of a tensor, each behind the four bytes of its length."""
    texts: Texts = []
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
    return texts


def _matrix(tensor: Tensor, shape: RowsShape) -> Floats:
    rows, width = tensor.shape
    shape.check_count(rows)
    shape.check_width(width)
    if isinstance(tensor.values, list):
        texts = tensor.values
        return _encoded(
            [texts[place : place + width] for place in range(0, len(texts), width)], shape
        )
    values = tensor.values if tensor.values.dtype.kind == "f" else tensor.values.astype(np.float64)
    found = values.reshape(rows, width)
    if shape.types is not None and shape.types.has_codes:
        with as_problem():
            check_codes(found, shape.types.columns)
    return found


def _side_by_side(tensors: Sequence[Tensor], shape: RowsShape) -> Floats:
    rows = tensors[0].shape[0]
    for tensor in tensors:
        if tensor.shape not in ((rows,), (rows, 1)):
            raise Problem(
                "batch-shape", f"Every tensor must have the shape [{rows}] or [{rows}, 1]."
            )
    shape.check_count(rows)
    if shape.types is None and not any(isinstance(tensor.values, list) for tensor in tensors):
        return np.column_stack([np.asarray(tensor.values, np.float64) for tensor in tensors])
    if rows * len(tensors) > MAX_CELLS:
        raise Problem("limit-rows", f"A request may have {MAX_CELLS} cells of columns with types.")
    return _encoded(list(zip(*(tensor.cells for tensor in tensors), strict=True)), shape)


def _encoded(cells: Sequence[Sequence[JsonCell]], shape: RowsShape) -> Floats:
    with as_problem():
        if shape.types is not None:
            return shape.types.codes.rows(cells, quick=shape.quick)
        return encode_rows(cells, shape.cell_columns)


def _wanted_tensors(shape: RowsShape) -> str:
    names = ", ".join(f"`{shown(name)}`" for name in shape.columns[:20])
    more = f" and {len(shape.columns) - 20} more" if len(shape.columns) > 20 else ""
    return (
        f"The inputs must be one tensor `{ROWS}` of shape [rows, {shape.width}], or one tensor of shape"
        f" [rows] for each column: {names}{more}."
    )


def _name(tensor: InputTensor) -> str:
    return f"The tensor `{shown(tensor.name)}`"


def _wrong(detail: str) -> Problem:
    return Problem("validation", detail)
