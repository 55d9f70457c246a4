"""One request to a model, from its headers to its answer."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.engine.engine import Engine, Terms
from app.engine.loaded_models import LoadedModels
from app.http.accept import listed, preferences
from app.http.body_memory import body_memory_of
from app.http.json_body import body_chunks, read_body
from app.http.streaming import ahead, unless_disconnected
from app.problems.problem import FieldError, Problem
from app.rows.answer_table import AnswerTable, Part
from app.rows.body import Incoming, in_thread_if_large
from app.rows.codecs import Codec
from app.rows.negotiation import answer_codec, request_codec
from app.rows.respond import respond_at_once, respond_in_pieces
from app.rows.shape import Floats, RowsShape
from app.scoring.results import Results
from app.settings import ApiSettings, EarlyAnswers
from app.state import project_of, settings_of
from flows import CompiledFlow
from models_store.files.blobs import BlobStore
from models_store.registry import Version
from tables.writers import unused_name

Space = Literal["data", "model"]
Direction = Literal["inverse", "forward"]
Compute = Callable[[CompiledFlow, Floats], tuple[Floats, ...]]

EARLY_ANSWER = "early-answer"
TIMEOUT_HEADER = "X-Request-Timeout"
LOG_DET = "log_det"
LOG_PROB = "log_prob"
QUANTILE = "quantile"
_BRIEF_ROWS = 256  # fewer are done before a look whether the caller is still there
_SMALL_BYTES = 64 * 1024  # so few are not worth decoding ahead


def row_columns(version: Version) -> Sequence[str]:
    """The columns of the rows that a model is sent, in their order."""
    return [*version.columns, *version.context_columns]


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


def _may_answer_early(request: Request, settings: ApiSettings) -> bool:
    match settings.early_answers:
        case EarlyAnswers.ALWAYS:
            return True
        case EarlyAnswers.NEVER:
            return False
        case EarlyAnswers.ASKED:
            return EARLY_ANSWER in preferences(listed(request.headers, "prefer"))


@dataclass(frozen=True)
class ScoreRequest:
    """What is asked of which model, and how the answer is to look.

    Args:
        request: the request itself.
        version: what its `ref` stands for.
        space: of the data side: its own units, or as the flow sees it after preprocessing.
        codec: the format of the answer.
        max_wait_s: how long the caller will wait for the work to begin; None: as long as others.
    """

    request: Request
    version: Version
    space: Space
    codec: Codec
    max_wait_s: float | None = None

    @classmethod
    async def of(cls, request: Request, ref: str, space: Space) -> "ScoreRequest":
        """Read everything but the body.

        Raises:
            Problem: `not-acceptable`, or a time-out that is no number of seconds.
            NotFoundError: there is no such model.
        """
        codec = answer_codec(listed(request.headers, "accept"))
        models: LoadedModels = request.app.state.models
        version = await models.resolve(project_of(request), ref)
        return cls(request, version, space, codec, _max_wait_s(request))

    @property
    def model(self) -> str:
        """The reference that always stands for this version."""
        return self.version.ref

    @property
    def headers(self) -> dict[str, str]:
        """What every answer has."""
        return {"X-Model": self.model}

    def flow(self) -> AbstractAsyncContextManager[CompiledFlow]:
        """The model, in memory as long as the context lasts."""
        models: LoadedModels = self.request.app.state.models
        return models.use(self.version)

    async def answer_log_prob(self, compute: Compute) -> Response:
        """Answer with one number a row.

        Args:
            compute: from rows to the numbers.

        Raises:
            Problem: what is wrong with the rows.
            OverloadedError: the engine has too much to do.
            StoreError: the model cannot be loaded, or there is no room for the answer.
            ClientDisconnect: the caller has left.
        """
        results = await self._results(compute, LOG_PROB, width=1)
        parts = [Part(LOG_PROB, 0, None)]
        return self._answer(results, columns=[LOG_PROB], parts=parts)

    async def answer_score(self, compute: Compute) -> Response:
        """Answer with two numbers a row: log density and quantile.

        Args:
            compute: from rows to the numbers.

        Raises:
            As `answer_log_prob`.
        """
        results = await self._results(compute, "score", width=2)
        parts = [Part(LOG_PROB, 0, None), Part(QUANTILE, 1, None)]
        return self._answer(results, columns=[LOG_PROB, QUANTILE], parts=parts)

    async def answer_transformed(self, compute: Compute, direction: Direction) -> Response:
        """Answer with rows of the model's columns, and one log determinant each.

        Args:
            compute: from rows to other rows and the log determinants.
            direction: which way that is.

        Raises:
            As `answer_log_prob`.
        """
        columns = self.version.columns
        dim = len(columns)
        results = await self._results(compute, direction, width=dim + 1)
        return self._answer(
            results,
            columns=[*columns, unused_name(LOG_DET, columns)],
            parts=[Part("rows", 0, dim), Part(LOG_DET, dim, None)],
        )

    async def _results(self, compute: Compute, what: str, *, width: int) -> "_Answerable":
        """The rows of the body, computed as they come; all of them, or as many as are needed.

        Args:
            compute: from rows to the columns of their results.
            what: the same for equal functions: their rows may be computed together.
            width: numbers that come of a row.
        """
        settings = settings_of(self.request)
        blobs: BlobStore = self.request.app.state.blobs
        results = Results(width, blobs, settings.max_table_bytes)
        body = _Body(self.request, self.version, max_wait_s=self.max_wait_s)

        async def add(flow: CompiledFlow, rows: Floats) -> None:
            values = np.empty((len(rows), width))
            wanted = Wanted(partial(compute, flow), (id(flow), what, self.space), flow.row_bytes)
            await body.apply(wanted, rows, values)
            await results.add(values, inputs=rows)

        if (all_rows := await body.brief_rows()) is not None:
            async with self.flow() as flow:
                await add(flow, all_rows)
            return _Answerable(results, results.rows)

        async def add_all() -> None:
            async with aclosing(body.rows()) as chunks, self.flow() as flow:
                async for rows in chunks:
                    await add(flow, rows)

        filling = results.fill(add_all())
        return await _answerable(results, body, filling)

    def _answer(
        self, computed: "_Answerable", *, columns: Sequence[str], parts: Sequence[Part]
    ) -> Response:
        results = computed.results
        answer = AnswerTable(
            columns=columns,
            parts=parts,
            rows=computed.rows,
            dtype=np.dtype(np.float64),
            members={"model": self.model},
            flat=len(columns) == 1,
        )
        if computed.filling is None and (whole := results.whole) is not None:
            response = respond_at_once(
                self.request, self.codec, answer, whole, headers=self.headers
            )
            if response is not None:
                return response
        headers = self.headers
        if computed.early:
            headers["Preference-Applied"] = EARLY_ANSWER
        return respond_in_pieces(
            self.request,
            self.codec,
            answer,
            results.chunks,
            headers=headers,
            filling=computed.filling,
        )


@dataclass(frozen=True)
class Wanted:
    """Function of rows that a request asks for.

    Args:
        function: no row's result depends on the rows beside it.
        key: the same for equal functions: their rows may be computed together.
        row_bytes: memory that it takes for each row that is computed at a time.
    """

    function: Callable[[Floats], tuple[Floats, ...]]
    key: Hashable
    row_bytes: int


@dataclass(frozen=True)
class _Answerable:
    """Results of which the answer may begin.

    Args:
        results: some or all of the rows.
        rows: number of them, once all are there.
        filling: task that brings those that are not there yet.
        early: the answer begins before the body has ended.
    """

    results: Results
    rows: int
    filling: "asyncio.Task[None] | None" = None
    early: bool = False


async def _answerable(
    results: Results, body: "_Body", filling: "asyncio.Task[None]"
) -> _Answerable:
    """Wait until all is computed, or the first rows of a body that nothing can be wrong with.

    Most proxies stop sending a body once its answer has begun, so that one begins when the body has
    ended, unless the caller, or whoever runs the service, says that no such proxy is in the way.
    """
    try:
        while not filling.done():
            await results.changed()
            rows = body.certain_rows if body.complete or body.early else None
            if rows is not None and 0 < results.rows < rows:
                results.check_size(rows)
                return _Answerable(results, rows, filling, early=not body.complete)
        filling.result()
    except BaseException:
        filling.cancel()
        await asyncio.wait({filling})
        raise
    return _Answerable(results, results.rows)


class _Body:
    """The rows of a request, and the work on them, which ends when the caller leaves.

    Attributes:
        complete: all of it has come.
        early: its answer may begin before that.
    """

    def __init__(self, request: Request, version: Version, *, max_wait_s: float | None) -> None:
        self.complete = False
        self._request = request
        self._settings = settings_of(request)
        self._codec, self._parameters = request_codec(request.headers.get("content-type"))
        self._shape = RowsShape(row_columns(version), self._settings.max_score_rows)
        self.early = False
        self._max_wait_s = max_wait_s
        self._incoming: Incoming | None = None
        self._admitted = False

    @property
    def certain_rows(self) -> int | None:
        """Number of its rows, once nothing can be wrong with it any more."""
        return None if self._incoming is None else self._incoming.certain_rows

    async def brief_rows(self) -> Floats | None:
        """All the rows of a brief body, by the shortest way; None if `rows` must be asked.

        Raises:
            Problem: what is wrong with them.
        """
        codec = self._codec
        if codec.decode is None or not self._is_at_most(codec.brief_bytes):
            return None
        body = await read_body(self._request, limit=codec.max_bytes(self._settings))
        self.complete = True
        if codec.text:
            return await in_thread_if_large(codec.decode, body, self._shape)
        return codec.decode(body, self._shape)

    async def rows(self) -> AsyncGenerator[Floats, None]:
        """The rows as they come.

        Raises:
            Problem: what is wrong with them.
        """
        state = self._request.app.state
        settings, codec = self._settings, self._codec
        self.early = _may_answer_early(self._request, settings)
        self._incoming = Incoming(
            body=self._bytes(limit=codec.max_bytes(settings)),
            format=codec.format,
            parameters=self._parameters,
            shape=self._shape,
            settings=settings,
            blobs=state.blobs,
            parsers=state.parsers,
            memory=body_memory_of(self._request),
            declared_bytes=self._declared_bytes,
        )
        chunks = codec.read(self._incoming)
        is_small = self._is_at_most(_SMALL_BYTES)
        async with aclosing(chunks if is_small else ahead(chunks)) as found:
            async for rows in found:
                yield rows

    async def apply(self, wanted: Wanted, rows: Floats, values: Floats) -> None:
        """Have the engine fill `values`, unless the caller has left.

        Raises:
            OverloadedError: it has too much to do; only for the first rows.
            ClientDisconnect: the caller has left.
        """
        engine: Engine = self._request.app.state.engine
        terms = Terms(
            max_wait_s=self._max_wait_s, admitted=self._admitted, row_bytes=wanted.row_bytes
        )
        work = engine.apply(wanted.function, rows, values, key=wanted.key, terms=terms)
        self._admitted = True
        # As long as there is more of the body, waiting for that tells whether the caller has left.
        if self.complete and len(rows) > _BRIEF_ROWS:
            await unless_disconnected(self._request, work)
        else:
            await work

    async def _bytes(self, *, limit: int) -> AsyncGenerator[bytes, None]:
        async for piece in body_chunks(self._request, limit=limit):
            yield piece
        self.complete = True

    @property
    def _declared_bytes(self) -> int | None:
        declared = self._request.headers.get("content-length", "")
        return int(declared) if declared.isdecimal() else None

    def _is_at_most(self, size: int) -> bool:
        declared = self._declared_bytes
        return declared is not None and declared <= size
