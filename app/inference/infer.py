"""Inference: the functions of a model as the protocol sees them, and the way from a request to its response."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above

from app.engine.held_out_rows import HeldOutRows
from app.http.exchange import Answer, Exchange
from app.http.json_body import body_share, is_quick, read_body
from app.inference.tensors import (
    HEADER_LENGTH,
    MAX_CELLS,
    ROWS,
    Tensor,
    number_of,
    read_request,
    rows_of,
    tensor_response,
)
from app.inference.views import MAX_VALUES, InferRequest, TensorMetadata
from app.limits import in_thread
from app.problems.fields import shown
from app.problems.problem import Problem
from app.rows.codecs import CODECS
from app.rows.context import context_cells, context_rows
from app.rows.model_types import types_of
from app.rows.shape import Floats
from app.scoring.functions import (
    SCORES,
    RowFunction,
    log_prob_alone,
    noise_of,
    score_alone,
)
from app.scoring.request import ScoreRequest, shape_of
from app.scoring.samples import Drawing
from models_store.records import Version
from models_store.requests.bulk import ContextRow
from tabular.numbers import with_decimal_marks
from tabular.typed_rows import TypedRows

N, SEED, CONTEXT = "n", "seed", "context"
"""Names of the tensors of a request for samples."""

_SAMPLE, _NOISE = "sample", "noise"
_MAX_BODY_BYTES = 40 * 2**20
_MICROSECONDS = 1e6
_QUICK_VALUES = 4096
_MOST_TEXT_BYTES = 32 * 2**20
_MAX_SEED = 2**63 - 1

# Functions of rows, of which the first is that of a model's name alone.
_FUNCTIONS: dict[str, Callable[[Version], RowFunction]] = {
    "log_prob": lambda _: log_prob_alone("data"),
    "score": lambda version: score_alone(HeldOutRows.of(version)),
    "inverse": lambda version: noise_of(version.columns, "data"),
}
_OUTPUTS = {
    "log_prob": ["log_prob"],
    "score": SCORES,
    "inverse": [_NOISE, "log_det"],
    _SAMPLE: [ROWS],
}


class Served(NamedTuple):
    """Function of a version, with the name that the protocol has for it in the path."""

    name: str
    version: Version
    function: str


def named_function(name: str) -> tuple[str, str]:
    """Return the reference to a model and the name of a function, of `reference` or `reference:function`.

    Args:
        name: Name of a model in the protocol.
    """
    ref, _, function = name.rpartition(":")
    return (ref, function) if function in _OUTPUTS else (name, "log_prob")


async def served_of(exchange: Exchange, name: str, version: str | None = None) -> Served:
    """Return the function of the version that the name of a model in the protocol stands for.

    Args:
        version: Number of the version, where the path has one.

    Raises:
        NotFoundError: There is no such model.
    """
    ref, function = named_function(name)
    wanted = ref if version is None else f"{ref}:{version}"
    return Served(name, await exchange.state.models.resolve(exchange.project, wanted), function)


async def infer_newest(exchange: Exchange, name: str) -> Answer:
    """Return the response to an inference request for a model by its name in the protocol; raises as `infer`."""
    return await infer(exchange, await served_of(exchange, name))


def input_tensors(version: Version, function: str) -> list[TensorMetadata]:
    """Return the tensors that a function of a model takes."""
    typed = types_of(version) is not None
    context = len(version.context_columns)
    if function != _SAMPLE:
        return [_tensor(ROWS, [-1, len(version.columns) + context], is_text=typed)]
    given = [_tensor(CONTEXT, [-1, context], is_text=typed)] if context else []
    whole = [TensorMetadata(name=name, datatype="INT64", shape=[1]) for name in (N, SEED)]
    return [*whole, *given]


def output_tensors(version: Version, function: str) -> list[TensorMetadata]:
    """Return the tensors that a function of a model gives."""
    is_text = function == _SAMPLE and types_of(version) is not None
    width = len(version.columns)
    shapes = {ROWS: [-1, width], _NOISE: [-1, width]}
    return [_tensor(n, shapes.get(n, [-1]), is_text=is_text) for n in _OUTPUTS[function]]


def _tensor(name: str, shape: list[int], *, is_text: bool) -> TensorMetadata:
    return TensorMetadata(name=name, datatype="BYTES" if is_text else "FP64", shape=shape)


async def infer(exchange: Exchange, served: Served) -> Answer:
    """Return the response to an inference request.

    Args:
        exchange: Request, whose body is not read yet.

    Raises:
        Problem: The request is not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
    """
    header_bytes = _header_bytes(exchange)
    state, version = exchange.state, served.version
    settings = state.settings
    columns = [*version.columns, *version.context_columns]
    shape = shape_of(state, version, columns, types=types_of(version))
    score = ScoreRequest(exchange, version, "data", CODECS[0], shape)
    most = settings.max_json_bytes if header_bytes is None else _MAX_BODY_BYTES
    with body_share(exchange) as share:
        body = await read_body(exchange, limit=min(most, settings.max_body_bytes), share=share)
        if (header_bytes or 0) > settings.max_json_bytes:
            raise Problem("limit-body", f"The JSON may have {settings.max_json_bytes} bytes.")
        read = _read_samples if served.function == _SAMPLE else _read_rows
        prepare = partial(read, score, served.function, body, header_bytes)
        wanted, given = prepare() if is_quick(body) else await in_thread(prepare)
        score = score._replace(max_wait_s=_max_wait_s(wanted))
        if isinstance(given, Drawing):
            outputs = await _sampled(score, replace(given, score=score))
        else:
            outputs = await _computed(score, _FUNCTIONS[served.function](version), given)
        about = {"model_name": served.name, "model_version": str(version.version)}
        write = partial(tensor_response, wanted, outputs, about)
        few = sum(values.size for values in outputs.values()) <= _QUICK_VALUES
        answer = write() if few else await in_thread(write)
        answer.raw_headers.append((b"x-model", version.ref.encode()))
        return answer


def _read_rows(
    score: ScoreRequest, function: str, body: bytes, header_bytes: int | None
) -> tuple[InferRequest, Floats]:
    wanted, tensors = read_request(body, header_bytes)
    _check_outputs(wanted, function)
    return wanted, rows_of(tensors, score.shape)


def _read_samples(
    score: ScoreRequest, function: str, body: bytes, header_bytes: int | None
) -> tuple[InferRequest, Drawing]:
    wanted, tensors = read_request(body, header_bytes)
    _check_outputs(wanted, function)
    unknown = tensors.keys() - {N, SEED, CONTEXT}
    if N not in tensors or unknown:
        raise Problem(
            "validation",
            f"The inputs of samples are the tensors `{N}`, and where wanted `{SEED}` and `{CONTEXT}`.",
        )
    version = score.version
    cells = version.dim if score.types is None else version.dim * (MAX_VALUES // MAX_CELLS)
    most = min(score.state.settings.max_sample_rows, max(1, MAX_VALUES // cells))
    n = number_of(N, tensors[N], most=most)
    if n == 0:
        raise Problem("validation", f"The tensor `{N}` must hold at least 1.")
    if score.types is not None and n * score.types.samples.text_bytes > _MOST_TEXT_BYTES:
        raise Problem(
            "limit-rows",
            f"The samples may have more than {_MOST_TEXT_BYTES} bytes of text; draw fewer.",
        )
    seed = secrets.randbits(32)
    if SEED in tensors:
        seed = number_of(SEED, tensors[SEED], most=_MAX_SEED)
    return wanted, Drawing(score, n, seed, _context(tensors.get(CONTEXT), version, n))


def _context(tensor: Tensor | None, version: Version, n: int) -> Floats | None:
    columns = version.context_columns
    rows: list[ContextRow] | None = None
    if tensor is not None:
        if tensor.ndim != 2 or tensor.shape[1] != len(columns) or tensor.size > MAX_CELLS:
            raise Problem(
                "context-mismatch", f"`context` must have the shape [rows, {len(columns)}]."
            )
        rows = tensor.tolist()
    return context_rows(context_cells(rows, columns, n=n), version)


async def _computed(
    score: ScoreRequest, function: RowFunction, rows: Floats
) -> Mapping[str, Tensor]:
    """Return the outputs of rows."""
    async with score.flow() as flow:
        values = await score.compute(function, flow, rows)
    return {_NOISE if p.name == ROWS else p.name: p.of(values) for p in function.parts}


async def _sampled(score: ScoreRequest, drawing: Drawing) -> Mapping[str, Tensor]:
    """Return the output of samples."""
    async with aclosing(drawing.chunks()) as chunks:
        rows = np.concatenate([chunk async for chunk in chunks])
    if score.types is None:
        return {ROWS: rows}
    return {ROWS: await in_thread(_texts, score.types.samples, rows)}


def _texts(types: TypedRows, values: Floats) -> Tensor:
    """Return the cells of rows as the texts that a CSV file has; empty for a gap."""
    columns = [
        pc.fill_null(pc.cast(column, pa.string()), "").to_pylist()
        for column in with_decimal_marks(types.batch(values)).columns
    ]
    return np.array(columns, object).T


def _header_bytes(exchange: Exchange) -> int | None:
    text = exchange.text(HEADER_LENGTH.lower().encode())
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Problem("validation", f"`{HEADER_LENGTH}` must be a number of bytes.", status=400)
    return int(text)


def _max_wait_s(wanted: InferRequest) -> float | None:
    timeout = (wanted.parameters or {}).get("timeout")
    if isinstance(timeout, bool | str) or timeout is None or timeout <= 0:
        return None
    return timeout / _MICROSECONDS


def _check_outputs(wanted: InferRequest, function: str) -> None:
    known = _OUTPUTS[function]
    for output in wanted.outputs or ():
        if output.name not in known:
            names = ", ".join(f"`{name}`" for name in known)
            raise Problem(
                "validation", f"There is no output `{shown(output.name)}`; there is {names}."
            )
