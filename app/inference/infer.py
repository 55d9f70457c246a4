"""Inference: from the body of a request to that of its response."""

import math
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from starlette.requests import Request
from starlette.responses import Response

from app.http.json_body import is_quick, read_body
from app.inference.functions import (
    CONTEXT,
    FUNCTIONS,
    SAMPLE,
    SEED,
    N,
    Served,
    output_names,
)
from app.inference.respond import HEADER_LENGTH, Output, respond
from app.inference.tensors import MAX_CELLS, ROWS, Tensor, number_of, read_request, rows_of
from app.inference.views import MAX_VALUES, InferRequest
from app.limits import body_share, in_thread
from app.problems.fields import shown
from app.problems.problem import Problem
from app.rows.cell_codes import SlowRowsError
from app.rows.codecs import CODECS
from app.rows.context import context_cells, context_rows
from app.rows.model_types import types_of
from app.rows.shape import Floats, RowsShape
from app.scoring.request import ScoreRequest
from app.scoring.samples import Drawing
from app.state import state_of
from models_store.records import Version
from models_store.requests.bulk import ContextRow
from tabular.numbers import with_decimal_marks
from tabular.typed_rows import TypedRows

_MAX_BODY_BYTES = 40 * 2**20
_MICROSECONDS = 1e6
_QUICK_VALUES = 4096
_MOST_TEXT_BYTES = 32 * 2**20
_MAX_SEED = 2**63 - 1
# Memory of a body and of what is read from it, as multiples of the body: objects take more than bytes.
_JSON_MEMORY, _BINARY_MEMORY = 8, 2


async def infer(request: Request, served: Served) -> Response:
    """Return the response to an inference request.

    Args:
        request: Request, whose body is not read yet.
        served: Function to compute.

    Raises:
        Problem: The request is not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
    """
    header_bytes = _header_bytes(request)
    settings = state_of(request).settings
    most = settings.max_json_bytes if header_bytes is None else _MAX_BODY_BYTES
    with body_share(request) as share:
        body = await read_body(request, limit=min(most, settings.max_body_bytes), share=share)
        if (header_bytes or 0) > settings.max_json_bytes:
            raise Problem("limit-body", f"The JSON may have {settings.max_json_bytes} bytes.")
        if is_quick(body):
            wanted, tensors = read_request(body, header_bytes)
        else:
            share.hold(len(body) * (_JSON_MEMORY if header_bytes is None else _BINARY_MEMORY))
            wanted, tensors = await in_thread(read_request, body, header_bytes)
        _check_outputs(wanted, served.function)
        score = _score_request(request, served.version, wanted)
        compute = _sampled if served.function == SAMPLE else _computed
        outputs = await compute(score, served.function, tensors)
        if sum(math.prod(output.shape) for output in outputs.values()) <= _QUICK_VALUES:
            return respond(wanted, served, outputs)
        return await in_thread(respond, wanted, served, outputs)


def _score_request(request: Request, version: Version, wanted: InferRequest) -> ScoreRequest:
    types = types_of(version)
    return ScoreRequest(request, version, "data", CODECS[0], _max_wait_s(wanted), types=types)


async def _computed(
    score: ScoreRequest, name: str, tensors: Sequence[Tensor]
) -> Mapping[str, Output]:
    """Return the outputs of rows."""
    function = FUNCTIONS[name]
    compute = function.of(score.version)
    rows = await _rows(tensors, score.shape)
    async with score.flow() as flow:
        values = await score.compute(compute, flow, rows)
    return {output: Output.of(found) for output, found in function.split(values).items()}


async def _rows(tensors: Sequence[Tensor], shape: RowsShape) -> Floats:
    if sum(len(tensor.values) for tensor in tensors) <= _QUICK_VALUES:
        with suppress(SlowRowsError):
            return rows_of(tensors, replace(shape, quick=True))
    return await in_thread(rows_of, tensors, shape)


async def _sampled(
    score: ScoreRequest, _name: str, tensors: Sequence[Tensor]
) -> Mapping[str, Output]:
    """Return the output of samples."""
    drawing = await _drawing(score, {tensor.name: tensor for tensor in tensors})
    types = score.types
    if types is not None and drawing.n * types.samples.text_bytes > _MOST_TEXT_BYTES:
        raise Problem(
            "limit-rows",
            f"The samples may have more than {_MOST_TEXT_BYTES} bytes of text; draw fewer.",
        )
    async with aclosing(drawing.chunks()) as chunks:
        rows = np.concatenate([chunk async for chunk in chunks])
    if types is None:
        return {ROWS: Output.of(rows)}
    texts = await in_thread(lambda: _texts(types.samples, rows))
    return {ROWS: Output.of_texts(rows.shape, texts)}


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


def _texts(types: TypedRows, values: Floats) -> list[str]:
    """Return the cells of rows as the texts that a CSV file has; empty for a gap."""
    columns = [
        pc.fill_null(pc.cast(column, pa.string()), "")
        for column in with_decimal_marks(types.batch(values)).columns
    ]
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return [text for row in rows for text in row]


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
