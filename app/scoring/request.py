"""A request for numbers of rows, and the two ways to its response: whole, or streamed."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.auth.callers import project_of
from app.engine.engine import Terms
from app.fairness.turns import in_thread, in_thread_alone
from app.http.accept import listed, preferences
from app.http.body_memory import body_memory_of
from app.http.json_body import body_chunks, read_body
from app.http.streaming import ahead, unless_disconnected
from app.problems.problem import FieldError, Problem
from app.rows.answer_table import AnswerTable, Chunk, Part
from app.rows.body import RowsBody, in_thread_if_large
from app.rows.codecs import Codec
from app.rows.model_types import ModelTypes, RowWarnings, types_of
from app.rows.negotiation import answer_codec, request_codec
from app.rows.respond import respond_streamed, respond_whole
from app.rows.shape import Floats, RowsShape
from app.scoring.results import Results, check_size
from app.settings import ApiSettings, EarlyAnswers
from app.state import AppState, state_of
from flows import CompiledFlow
from models_store.registry import Version

Space = Literal["data", "model"]
Extra = Literal["ignore", "error"]
Compute = Callable[[CompiledFlow, Floats], tuple[Floats, ...]]
Decode = Callable[[bytes, RowsShape], Floats]

EARLY_ANSWER = "early-answer"
TIMEOUT_HEADER = "X-Request-Timeout"
ROW_WARNINGS_HEADER = "X-Row-Warnings"
_UNWATCHED_ROWS = 256  # watching whether the caller leaves takes longer than to compute so few
_QUICK_VALUES = 4096
_QUICK_COLUMNS = 64  # of types; the texts of more take long where they have not been seen before
_SMALL_BYTES = 64 * 1024  # smaller bodies are not worth decoding ahead


@dataclass(frozen=True)
class RowFunction:
    """Function of rows that a route computes, and the names of its results.

    Args:
        name: Name of the function; requests with equal names may be computed as one batch.
        compute: Callable from a flow and rows of shape (n, columns) to arrays of n entries or rows.
        columns: Names of the numbers that a row becomes.
        parts: Members of the JSON response that hold them.
        checked: Number of them that must be finite, the first ones; None: all.
        scores: Number of scores that it computes of a row, by which it costs more than one.
        members: Further members of the JSON response.
    """

    name: str
    compute: Compute
    columns: Sequence[str]
    parts: Sequence[Part]
    checked: int | None = None
    scores: int = 1
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers that a row becomes."""
        return len(self.columns)


@dataclass(frozen=True)
class ScoreRequest:
    """Request to a model, without its body.

    Args:
        request: HTTP request.
        version: Version that the request's reference stands for.
        space: Space of the rows: the data's own units, or the flow's after preprocessing.
        codec: Format of the response.
        max_wait_s: Seconds that the caller will wait for the work to begin; None: the engine's own
            limit.
        extra: Wish to ignore or to refuse columns that the model does not have; None: as the model is.
        types: Types of the columns of the rows; None: they are plain numbers.
    """

    request: Request
    version: Version
    space: Space
    codec: Codec
    max_wait_s: float | None = None
    extra: Extra | None = None
    types: ModelTypes | None = None

    @classmethod
    async def of(
        cls,
        request: Request,
        ref: str,
        space: Space,
        *,
        extra: Extra | None = None,
        noise: bool = False,
    ) -> "ScoreRequest":
        """Read the headers and find the model.

        Args:
            request: HTTP request.
            ref: Reference to a version.
            space: Space of the rows.
            extra: Wish to ignore or to refuse columns that the model does not have.
            noise: True for rows of noise, which are plain numbers whatever the columns hold.

        Raises:
            Problem: `not-acceptable`, a time-out that is no number of seconds, or a space that the
                rows of the model do not have.
            NotFoundError: There is no such model.
        """
        codec = answer_codec(listed(request.headers, "accept"))
        version = await state_of(request).models.resolve(project_of(request), ref)
        types = types_of(version)
        if space == "model" and types is not None:
            _check_space(types)
        if noise:
            types, extra = None, "error"
        return cls(request, version, space, codec, _max_wait_s(request), extra, types)

    @property
    def state(self) -> AppState:
        """State of the application."""
        return state_of(self.request)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response."""
        return {"X-Model": self.version.ref}

    @property
    def shape(self) -> RowsShape:
        """Shape that the rows of the body must have."""
        columns = [*self.version.columns, *self.version.context_columns]
        extra = self.extra or ("error" if self.version.types is None else "ignore")
        return RowsShape(
            columns,
            self.state.settings.max_score_rows,
            types=self.types,
            ignores_extra=extra == "ignore",
        )

    def chunk(self, function: RowFunction, values: Floats, rows: Floats) -> Chunk:
        """Return the values of some rows, with the reasons of those that have none."""
        return Chunk.of(values, rows, types=self.types, checked=function.checked)

    def flow(self) -> AbstractAsyncContextManager[CompiledFlow]:
        """Hold the model in memory as long as the context lasts."""
        return self.state.models.use(self.version)

    async def compute(
        self,
        function: RowFunction,
        flow: CompiledFlow,
        rows: Floats,
        *,
        admitted: bool = False,
        watched: bool = True,
    ) -> Floats:
        """Compute a function of some rows.

        Args:
            function: Function to compute.
            flow: Loaded model.
            rows: Rows of the model's columns.
            admitted: Rows of this request were computed before, so these are not refused.
            watched: The body has been read, so that a caller who leaves ends the work.

        Returns:
            An array of shape (rows, columns of the function).

        Raises:
            OverloadedError: The engine has too much to do.
            ClientDisconnect: The caller has left.
        """
        values = np.empty((len(rows), function.width))
        work = self.state.engine.apply(
            partial(function.compute, flow),
            rows,
            values,
            key=(id(flow), function.name, self.space),
            terms=Terms(
                self.max_wait_s, admitted=admitted, row_bytes=flow.row_bytes * function.scores
            ),
        )
        if watched and len(rows) > _UNWATCHED_ROWS:
            await unless_disconnected(self.request, work)
        else:
            await work
        return values

    def table(
        self, function: RowFunction, rows: int, warnings: RowWarnings | None = None
    ) -> AnswerTable:
        """Return the head of the response to this many rows."""
        return AnswerTable(
            columns=function.columns,
            parts=function.parts,
            rows=rows,
            dtype=np.dtype(np.float64),
            members={"model": self.version.ref, **function.members},
            flat=function.width == 1,
            inputs=() if self.types is None else [column.name for column in self.types.columns],
            warnings=warnings,
        )


async def answer(score: ScoreRequest, function: RowFunction) -> Response:
    """Answer with what a function makes of each row of the body.

    Args:
        score: Request to answer.
        function: Function to compute.

    Raises:
        Problem: The rows are not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded, or there is no room for the results.
        ClientDisconnect: The caller has left.
    """
    codec, parameters = request_codec(score.request.headers.get("content-type"))
    declared = score.request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else None
    if size is not None and codec.decode is not None and size <= codec.whole_bytes:
        return await _answer_whole(score, function, codec, codec.decode)
    return await _Stream(score, function, codec, parameters, size).answer()


async def _answer_whole(
    score: ScoreRequest, function: RowFunction, codec: Codec, decode: Decode
) -> Response:
    """Answer a request whose body is read, decoded and computed as one array."""
    body = await read_body(score.request, limit=codec.max_bytes(score.state.settings))
    if score.types is not None and len(score.types.columns) > _QUICK_COLUMNS:
        rows = await in_thread_alone(decode, body, score.shape)
    elif codec.text:
        rows = await in_thread_if_large(decode, body, score.shape)
    else:
        rows = decode(body, score.shape)
    check_size(len(rows), function.width, max_bytes=score.state.settings.max_table_bytes)
    async with score.flow() as flow:
        values = await score.compute(function, flow, rows)
    warnings = await _warnings(score, rows)
    table = score.table(function, len(rows), warnings)
    chunk = score.chunk(function, values, rows)
    headers = {**score.headers, **_headers(warnings)}
    return respond_whole(score.request, score.codec, table, chunk, headers=headers)


async def _warnings(score: ScoreRequest, rows: Floats) -> RowWarnings | None:
    """Return the warnings about rows of a model that has types."""
    if score.types is None:
        return None
    warnings = RowWarnings(score.types)
    await _warn(warnings, rows, start=0)
    return warnings


async def _warn(warnings: RowWarnings, rows: Floats, *, start: int) -> None:
    """Look for levels that training never saw; off the event loop where the rows are many."""
    if rows.size > _QUICK_VALUES:
        await in_thread(warnings.add, rows, start=start)
    else:
        warnings.add(rows, start=start)


def _headers(warnings: RowWarnings | None) -> dict[str, str]:
    return {} if warnings is None else {ROW_WARNINGS_HEADER: warnings.header}


class _Stream:
    """Request whose rows are computed as they come; its response may begin before the last of them.

    Args:
        score: Request to answer.
        function: Function to compute.
        codec: Format of the body.
        parameters: Parameters of its media type.
        size: Declared length of the body in bytes; None: unknown.
    """

    def __init__(
        self,
        score: ScoreRequest,
        function: RowFunction,
        codec: Codec,
        parameters: Mapping[str, str],
        size: int | None,
    ) -> None:
        state, settings = score.state, score.state.settings
        self._score = score
        self._function = function
        self._codec = codec
        self._is_small = size is not None and size <= _SMALL_BYTES
        self._complete = False
        self._warnings = None if score.types is None else RowWarnings(score.types)
        self._early = _may_answer_early(score.request, settings)
        self._results = Results(function.width, state.blobs, settings.max_table_bytes)
        self._body = self._read_body()
        self._source = RowsBody(
            chunks=self._body,
            format=codec.format,
            parameters=parameters,
            shape=score.shape,
            settings=settings,
            blobs=state.blobs,
            parsers=state.parsers,
            memory=body_memory_of(score.request),
            declared_bytes=size,
        )

    async def answer(self) -> Response:
        """Return the response once it may begin.

        It begins with the first rows where nothing can be wrong with the rest of the body, else
        after the last ones, and so where its headers count warnings about rows. Most proxies stop sending a body once its response has begun, so that it
        also waits for the end of the body, unless the caller or the settings allow an early one.
        """
        results = self._results
        filling = results.fill(self._compute())
        try:
            while not filling.done():
                await results.changed()
                may_begin = (self._complete or self._early) and self._warnings is None
                total = self._source.total_rows if may_begin else None
                if total is not None and 0 < results.rows < total:
                    results.check_size(total)
                    return self._respond(total, filling)
            filling.result()
        except BaseException:
            filling.cancel()
            await asyncio.wait({filling})
            # Its error refers to this frame, and must not find itself in it.
            results.forget_task()
            del filling
            raise
        score, whole = self._score, results.whole
        if whole is None:
            return self._respond(results.rows, None)
        table = score.table(self._function, results.rows, self._warnings)
        headers = {**score.headers, **_headers(self._warnings)}
        return respond_whole(score.request, score.codec, table, whole, headers=headers)

    def _respond(self, rows: int, filling: "asyncio.Task[None] | None") -> Response:
        score = self._score
        headers = {**score.headers, **_headers(self._warnings)}
        if filling is not None and not self._complete:
            headers["Preference-Applied"] = EARLY_ANSWER
        return respond_streamed(
            score.request,
            score.codec,
            score.table(self._function, rows, self._warnings),
            self._results.chunks,
            headers=headers,
            filling=filling,
        )

    async def _compute(self) -> None:
        score, results = self._score, self._results
        read = self._codec.read(self._source)
        chunks = read if self._is_small else ahead(read)
        async with aclosing(self._body), aclosing(chunks), score.flow() as flow:
            async for rows in chunks:
                values = await score.compute(
                    self._function,
                    flow,
                    rows,
                    admitted=results.rows > 0,
                    # While the body comes, waiting for it tells whether the caller has left.
                    watched=self._complete,
                )
                if self._warnings is not None:
                    await _warn(self._warnings, rows, start=results.rows)
                await results.add(score.chunk(self._function, values, rows))

    async def _read_body(self) -> AsyncGenerator[bytes, None]:
        limit = self._codec.max_bytes(self._score.state.settings)
        async for piece in body_chunks(self._score.request, limit=limit):
            yield piece
        self._complete = True


def _may_answer_early(request: Request, settings: ApiSettings) -> bool:
    match settings.early_answers:
        case EarlyAnswers.ALWAYS:
            return True
        case EarlyAnswers.NEVER:
            return False
        case EarlyAnswers.ASKED:
            return EARLY_ANSWER in preferences(listed(request.headers, "prefer"))


def _check_space(types: ModelTypes) -> None:
    """Refuse rows as the flow sees them where it sees other columns than a row has."""
    if any(column.levels or column.missing or column.spikes for column in types.columns):
        error = FieldError(
            "The columns of this model have levels, gaps or spikes: leave `space` out.",
            parameter="space",
        )
        raise Problem("validation", "A parameter is not valid; see `errors`.", errors=[error])


def _max_wait_s(request: Request) -> float | None:
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        error = FieldError("It must be a number of seconds above 0.", parameter=TIMEOUT_HEADER)
        raise Problem("validation", "A header is not valid; see `errors`.", errors=[error])
    return seconds
