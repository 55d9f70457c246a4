"""Inference: from the body of a request to that of its response."""

import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread, in_thread_alone
from app.http.json_body import JSON_MEDIA_TYPE, read_body
from app.inference.functions import CONTEXT, FUNCTIONS, SAMPLE, SEED, N, output_names
from app.inference.tensors import (
    MAX_CELLS,
    ROWS,
    Tensor,
    bytes_of,
    json_of,
    number_of,
    read_request,
    rows_of,
)
from app.inference.views import MAX_VALUES, Datatype, InferRequest
from app.problems.fields import shown
from app.problems.problem import Problem
from app.rows.codecs import CODECS
from app.rows.context import context_cells, context_rows
from app.rows.model_types import types_of
from app.rows.shape import Floats
from app.scoring.request import ScoreRequest
from app.scoring.samples import Drawing
from app.state import state_of
from models_store.records import Version
from models_store.requests.bulk import ContextRow

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_MEDIA_TYPE = "application/octet-stream"
_MAX_BODY_BYTES = 80 * 2**20
_INLINE_BYTES = 32 * 1024
_MICROSECONDS = 1e6
_MAX_SEED = 2**63 - 1

Values = Floats | Sequence[str]


async def infer(request: Request, version: Version, function: str, model: str) -> Response:
    """Return the response to an inference request.

    Args:
        request: Request, whose body is not read yet.
        version: Version of the model.
        function: Name of the function.
        model: Name of the model in the request.

    Raises:
        Problem: The request is not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
    """
    header_bytes = _header_bytes(request)
    settings = state_of(request).settings
    most = settings.max_json_bytes if header_bytes is None else _MAX_BODY_BYTES
    body = await read_body(request, limit=min(most, settings.max_score_bytes))
    if (header_bytes or 0) > settings.max_json_bytes:
        raise Problem("limit-body", f"The JSON may have {settings.max_json_bytes} bytes.")
    is_large = len(body) > _INLINE_BYTES
    if is_large:
        wanted, tensors = await in_thread_alone(read_request, body, header_bytes)
    else:
        wanted, tensors = read_request(body, header_bytes)
    del body
    _check_outputs(wanted, function)
    score = ScoreRequest(
        request, version, "data", CODECS[0], _max_wait_s(wanted), types=types_of(version)
    )
    if function == SAMPLE:
        found = await _sampled(score, tensors)
    else:
        found = await _computed(score, function, tensors, is_large=is_large)
    write = partial(_response, wanted, version, model, found)
    return await in_thread(write) if is_large or function == SAMPLE else write()


async def _computed(
    score: ScoreRequest, name: str, tensors: Sequence[Tensor], *, is_large: bool
) -> Mapping[str, Values]:
    function = FUNCTIONS[name]
    compute = function.of(score.version)
    if is_large:
        rows = await in_thread_alone(rows_of, tensors, score.shape)
    else:
        rows = rows_of(tensors, score.shape)
    async with score.flow() as flow:
        values = await score.compute(compute, flow, rows)
    return function.split(values)


async def _sampled(score: ScoreRequest, tensors: Sequence[Tensor]) -> Mapping[str, Values]:
    drawing = await _drawing(score, {tensor.name: tensor for tensor in tensors})
    async with aclosing(drawing.chunks()) as chunks:
        rows = np.concatenate([chunk async for chunk in chunks])
    types = score.types
    if types is None:
        return {ROWS: rows}
    return {ROWS: await in_thread(lambda: _texts(types.samples.batch(rows)))}


async def _drawing(score: ScoreRequest, tensors: Mapping[str, Tensor]) -> Drawing:
    unknown = tensors.keys() - {N, SEED, CONTEXT}
    if N not in tensors or unknown:
        raise Problem(
            "validation",
            f"The inputs of samples are the tensors `{N}`, and where wanted `{SEED}` and `{CONTEXT}`.",
        )
    version = score.version
    cells = version.dim if score.types is None else version.dim * (MAX_VALUES // MAX_CELLS)
    most = min(score.state.settings.max_sample_rows, max(1, MAX_VALUES // cells))
    n = number_of(tensors[N], most=most)
    if n == 0:
        raise Problem("validation", f"The tensor `{N}` must hold at least 1.")
    seed = number_of(tensors[SEED], most=_MAX_SEED) if SEED in tensors else secrets.randbits(32)
    context = await in_thread(_context, tensors.get(CONTEXT), version, n)
    return Drawing(score, n, seed, context)


def _context(tensor: Tensor | None, version: Version, n: int) -> Floats | None:
    columns = version.context_columns
    if tensor is None:
        return context_rows(context_cells(None, columns, n=n), version)
    if len(tensor.shape) != 2 or tensor.shape[1] != len(columns) or len(tensor.values) > MAX_CELLS:
        raise Problem("context-mismatch", f"`context` must have the shape [rows, {len(columns)}].")
    cells, width = tensor.cells, len(columns)
    rows: list[ContextRow] = [
        list(cells[place : place + width]) for place in range(0, len(cells), width)
    ]
    return context_rows(context_cells(rows, columns, n=n), version)


def _texts(batch: pa.RecordBatch) -> list[str]:
    """Return the cells of rows as the texts that a CSV file has; empty for a gap."""
    columns = [pc.fill_null(pc.cast(column, pa.string()), "") for column in batch.columns]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [text for row in rows for text in row]


def _response(
    wanted: InferRequest, version: Version, model: str, found: Mapping[str, Values]
) -> Response:
    rows = len(next(iter(found.values())))
    named = {output.name: output.parameters or {} for output in wanted.outputs or ()}
    all_binary = (wanted.parameters or {}).get("binary_data_output") is True
    heads: list[bytes] = []
    parts: list[bytes] = []
    for name, values in found.items():
        if named and name not in named:
            continue
        is_text = not isinstance(values, np.ndarray)
        shape = [rows // version.dim, version.dim] if is_text else list(np.shape(values))
        datatype: Datatype = "BYTES" if is_text else "FP64"
        head = {"name": name, "datatype": datatype, "shape": shape}
        if named.get(name, {}).get("binary_data", all_binary) is True:
            part = bytes_of(values)
            parts.append(part)
            heads.append(orjson.dumps({**head, "parameters": {"binary_data_size": len(part)}}))
        else:
            heads.append(orjson.dumps(head)[:-1] + b',"data":' + json_of(values) + b"}")
    about = {"model_name": model, "model_version": str(version.version)}
    start = orjson.dumps(about if wanted.id is None else {**about, "id": wanted.id})[:-1]
    header = start + b',"outputs":[' + b",".join(heads) + b"]}"
    headers = {"X-Model": version.ref}
    if not parts:
        return Response(header, media_type=JSON_MEDIA_TYPE, headers=headers)
    headers[HEADER_LENGTH] = str(len(header))
    return Response(b"".join([header, *parts]), media_type=BINARY_MEDIA_TYPE, headers=headers)


def _header_bytes(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Problem("validation", f"`{HEADER_LENGTH}` must be a number of bytes.", status=400)
    return int(text)


def _max_wait_s(wanted: InferRequest) -> float | None:
    timeout = (wanted.parameters or {}).get("timeout")
    if isinstance(timeout, bool | str) or timeout is None or not 0 < timeout < math.inf:
        return None
    return timeout / _MICROSECONDS


def _check_outputs(wanted: InferRequest, function: str) -> None:
    known = output_names(function)
    for output in wanted.outputs or ():
        if output.name not in known:
            names = ", ".join(f"`{name}`" for name in known)
            raise Problem(
                "validation", f"There is no output `{shown(output.name)}`; there is {names}."
            )
