"""Arrays as the body of an answer: whole when small, in pieces when large."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from app.negotiation import RowFormat
from app.npy import npy_header, npy_values
from app.rows import Floats
from app.streaming import Piece, StreamedResponse

_PIECE_VALUES = 32_768
_PIECE_BYTES = 256 * 1024


def json_answer(
    members: Mapping[str, Any],
    arrays: Mapping[str, Floats],
    *,
    errors: Sequence[Mapping[str, Any]],
    headers: Mapping[str, str],
) -> Response:
    """An object of `members`, then `arrays` as lists with null for what is not finite.

    Args:
        members: what comes first.
        arrays: name to values.
        errors: the list `row_errors` at the end.
        headers: further headers.
    """
    pieces = _json_pieces(members, arrays, errors)
    small = sum(values.size for values in arrays.values()) + len(errors) <= _PIECE_VALUES
    return _respond(pieces, RowFormat.JSON, headers, whole=small)


def npy_answer(values: Floats, *, headers: Mapping[str, str]) -> Response:
    """One npy array, non-finite values as they are."""
    head = npy_header(values.dtype, values.shape)
    small = values.nbytes <= _PIECE_BYTES
    headers = {**headers, "Content-Length": str(len(head) + values.nbytes)}
    return _respond(_npy_pieces(head, values), RowFormat.NPY, headers, whole=small)


def json_rows(rows: Floats) -> bytes:
    """Values as they stand between the brackets of a JSON list."""
    return orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _respond(
    pieces: Iterable[Piece], row_format: RowFormat, headers: Mapping[str, str], *, whole: bool
) -> Response:
    if whole:
        return Response(b"".join(pieces), media_type=row_format.value, headers=dict(headers))
    return StreamedResponse(_yielding(pieces), media_type=row_format.value, headers=headers)


async def _yielding(pieces: Iterable[Piece]) -> AsyncGenerator[Piece, None]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)  # a caller who reads fast must not keep the others waiting


def _npy_pieces(head: bytes, values: Floats) -> Iterator[Piece]:
    yield head
    data = npy_values(values)
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]


def _json_pieces(
    members: Mapping[str, Any],
    arrays: Mapping[str, Floats],
    errors: Sequence[Mapping[str, Any]],
) -> Iterator[bytes]:
    yield orjson.dumps(members)[:-1]
    for name, values in arrays.items():
        yield b',"%s":[' % name.encode()
        yield from _joined(json_rows(part) for part in _parts(values, values.size))
        yield b"]"
    yield b',"row_errors":['
    yield from _joined(orjson.dumps(part)[1:-1] for part in _parts(errors, len(errors)))
    yield b"]}"


def _parts(rows: Any, size: int) -> Iterator[Any]:  # noqa: ANN401 - an array or a sequence
    step = max(1, _PIECE_VALUES * len(rows) // max(1, size))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    separator = b""
    for part in parts:
        yield separator + part
        separator = b","
