"""The two ways from a request for numbers of rows to its response: whole, or streamed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread, in_thread_alone
from app.http.accept import listed, preferences
from app.http.body_memory import body_files_of, body_memory_of
from app.http.json_body import body_chunks, read_body
from app.http.streaming import ahead
from app.rows.body import RowsBody
from app.rows.body_warnings import body_warnings, warning_headers
from app.rows.codecs import Codec, request_codec
from app.rows.decode.json import QUICK_COLUMNS, decoded_document
from app.rows.model_types import RowWarnings
from app.rows.respond import respond_streamed, respond_whole
from app.rows.shape import Floats, RowsShape
from app.scoring.request import RowFunction, ScoreRequest
from app.scoring.results import FEW_BYTES, Results, check_size
from app.settings import ApiSettings, EarlyAnswers

Decode = Callable[[bytes, RowsShape], Floats]

EARLY_ANSWER = "early-answer"
ROW_WARNINGS_HEADER = "X-Row-Warnings"
_QUICK_VALUES = 4096
_SMALL_BYTES = 64 * 1024  # smaller bodies are not worth decoding ahead


async def respond(score: ScoreRequest, function: RowFunction) -> Response:
    """Respond with what a function makes of each row of the body.

    Args:
        score: Request to respond to.
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
        return await _respond_whole(score, function, codec, codec.decode)
    return await _Stream(score, function, codec, parameters, size).start()


async def _respond_whole(
    score: ScoreRequest, function: RowFunction, codec: Codec, decode: Decode
) -> Response:
    """Respond to a request whose body is read, decoded and computed as one array."""
    settings, shape = score.state.settings, score.shape
    with body_memory_of(score.request).share() as share:
        body = await read_body(score.request, limit=codec.max_bytes(settings), share=share)
        rows = None if codec.numbers is None else codec.numbers(body, shape)
        if rows is None:
            rows = await _decoded(decode, body, shape, text=codec.text)
        del body
        check_size(len(rows), function.width, max_bytes=settings.max_table_bytes)
        share.hold(_held_bytes(rows))
        async with score.flow(function) as flow:
            values = await score.compute(function, flow, rows)
    warnings = await _warnings(score, rows)
    table = score.table(function, len(rows), warnings)
    chunk = score.chunk(function, values, rows)
    headers = {**score.headers, **_headers(warnings)}
    if values.nbytes <= FEW_BYTES:
        return respond_whole(score.request, score.codec, table, chunk, headers=headers)
    results = _results(score, function)
    await results.add(chunk)
    return respond_streamed(score.request, score.codec, table, results.chunks, headers=headers)


def _held_bytes(rows: Floats) -> int:
    """Return the bytes that rows count while they wait for the model and the engine; few are free."""
    return rows.nbytes if rows.nbytes > FEW_BYTES else 0


def _results(score: ScoreRequest, function: RowFunction) -> Results:
    state, request = score.state, score.request
    return Results(
        function.width,
        state.blobs,
        state.settings.max_table_bytes,
        memory=body_memory_of(request).kept_share(),
        files=body_files_of(request).kept_share(),
    )


async def _decoded(decode: Decode, body: bytes, shape: RowsShape, *, text: bool) -> Floats:
    """Return the rows of a body; off the event loop where that takes long."""
    if text:
        return await decoded_document(body, shape)
    if shape.types is not None and len(shape.types.columns) > QUICK_COLUMNS:
        return await in_thread_alone(decode, body, shape)
    return decode(body, shape)


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
        score: Request to respond to.
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
        self._early = _may_respond_early(score.request, settings)
        self._results = _results(score, function)
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
            files=body_files_of(score.request),
            declared_bytes=size,
        )

    async def start(self) -> Response:
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
        body = body_warnings(self._source.warnings)
        table = score.table(self._function, results.rows, self._warnings, body=body)
        headers = {**score.headers, **_headers(self._warnings), **warning_headers(body)}
        return respond_whole(score.request, score.codec, table, whole, headers=headers)

    def _respond(self, rows: int, filling: "asyncio.Task[None] | None") -> Response:
        score, body = self._score, body_warnings(self._source.warnings)
        headers = {**score.headers, **_headers(self._warnings), **warning_headers(body)}
        if filling is not None and not self._complete:
            headers["Preference-Applied"] = EARLY_ANSWER
        return respond_streamed(
            score.request,
            score.codec,
            score.table(self._function, rows, self._warnings, body=body),
            self._results.chunks,
            headers=headers,
            filling=filling,
        )

    async def _compute(self) -> None:
        score, results = self._score, self._results
        read = self._codec.read(self._source)
        chunks = read if self._is_small else ahead(read)
        with body_memory_of(score.request).share() as share:  # of the rows of one chunk
            async with aclosing(self._body), aclosing(chunks), score.flow(self._function) as flow:
                async for rows in chunks:
                    if results.rows == 0:  # others are about as large, and refused no more
                        share.hold(_held_bytes(rows))
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
                    del rows, values  # more may come late

    async def _read_body(self) -> AsyncGenerator[bytes, None]:
        limit = self._codec.max_bytes(self._score.state.settings)
        async for piece in body_chunks(self._score.request, limit=limit):
            yield piece
            del piece  # the next one may come late
        self._complete = True


def _may_respond_early(request: Request, settings: ApiSettings) -> bool:
    match settings.early_answers:
        case EarlyAnswers.ALWAYS:
            return True
        case EarlyAnswers.NEVER:
            return False
        case EarlyAnswers.ASKED:
            return EARLY_ANSWER in preferences(listed(request.headers, "prefer"))
