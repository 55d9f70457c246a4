"""A request for numbers of rows: its model, the shape of its rows, and the way to its response."""

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from app.engine.engine import Terms
from app.http.exchange import Answer, Exchange
from app.http.json_body import body_share, read_body
from app.http.streaming import unless_disconnected
from app.limits import Share, in_thread
from app.problems.problem import FieldError, Problem
from app.rows.codecs import QUICK_COLUMNS, ROWS_VARY, Codec, request_codec, response_codec
from app.rows.decode import (
    UNPACKED,
    Decoded,
    RowsBody,
    body_warnings,
    warning_headers,
)
from app.rows.encode import Chunk, ResponseTable
from app.rows.model_types import ModelTypes, RowWarnings, types_of
from app.rows.shape import Floats, RowsShape
from app.scoring.functions import RowFunction, Space
from app.settings import ApiSettings
from app.state import AppState
from flows import CompiledFlow
from models_store.process.traces import TRACES
from models_store.records import Version
from tabular.formats import TableWarning

Extra = Literal["ignore", "error"]
TIMEOUT_HEADER = "X-Request-Timeout"
ROW_WARNINGS_HEADER = b"x-row-warnings"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_QUICK_CELLS = 4096  # of rows with types, whose levels are looked up
_DOUBLE = np.dtype(np.float64)
_VALUE_BYTES = 8
_NUMBER_BYTES = 24  # most of a number as text
_ADVICE = " Split it, or upload the rows as a dataset and start a scoring job."


class ScoreRequest(NamedTuple):
    """Request to a model, without its body.

    Args:
        version: Version that the request's reference stands for.
        space: Space of the rows: the data's own units, or the flow's after preprocessing.
        codec: Format of the response.
        shape: Shape that the rows of the body must have.
        max_wait_s: Seconds that the caller will wait for the work to begin; None: the engine's own
            limit.
    """

    exchange: Exchange
    version: Version
    space: Space
    codec: Codec
    shape: RowsShape
    max_wait_s: float | None = None

    @classmethod
    async def of(
        cls,
        exchange: Exchange,
        ref: str,
        space: Space,
        *,
        extra: Extra | None = None,
        noise: bool = False,
        given: bool = False,
    ) -> "ScoreRequest":
        """Read the headers and find the model.

        Args:
            ref: Reference to a version.
            extra: Wish to ignore or to refuse columns that the model does not have; None: as the
                model is.
            noise: True for rows of noise, which are plain numbers whatever the columns hold.
            given: True for rows of the context alone, which are plain numbers, too.

        Raises:
            Problem: `not-acceptable`, a time-out that is no number of seconds, or a space that the
                rows of the model do not have.
            NotFoundError: There is no such model.
        """
        codec = response_codec(exchange.listed(b"accept"))
        version = await exchange.state.models.resolve(exchange.project, ref)
        types = types_of(version)
        if space == "model" and types is not None:
            _check_space(types)
        columns = [*version.context_columns]
        if not given:
            columns = [*version.columns, *columns]
        if noise:
            types, extra = None, "error"
        shape = shape_of(
            exchange.state, version, columns, types=None if given else types, extra=extra
        )
        return cls(exchange, version, space, codec, shape, max_wait_s(exchange))

    @property
    def state(self) -> AppState:
        """State of the application."""
        state: AppState = self.exchange.state
        return state

    @property
    def types(self) -> ModelTypes | None:
        """Types of the columns of the rows; None: they are plain numbers."""
        return self.shape.types

    def flow(
        self, function: RowFunction | None = None
    ) -> AbstractAsyncContextManager[CompiledFlow]:
        """Hold the model in memory as long as the context lasts, with what a function needs of it."""
        needs = function is not None and function.conditionals
        return self.state.models.use(self.version, conditionals=needs)

    async def respond(self, function: RowFunction) -> Answer:
        """Respond with what a function makes of each row of the body.

        Raises:
            Problem: The rows are not valid.
            OverloadedError: The engine has too much to do.
            StoreError: The model cannot be loaded.
            ClientDisconnect: The caller has left.
        """
        models = self.state.models
        with body_share(self.exchange) as share:
            rows, warnings = await self.read(share)
            self.check_results(function, len(rows))
            held = models.hold(self.version, conditionals=function.conditionals)
            try:
                flow = await held.flow()
                if function.whole and not flow.is_whole:
                    await in_thread(flow.prepare)
                values = await self.compute(function, flow, rows)
            finally:
                models.release(held)
            respond = partial(self._response, function, rows, values, warnings)
            quick = (
                values.size <= self.codec.quick_values and len(function.columns) <= QUICK_COLUMNS
            )
            if quick and (self.types is None or rows.size <= _QUICK_CELLS):
                return respond()
            return await in_thread(respond)

    async def read(self, share: Share) -> Decoded:
        """Return the rows of the body, whose bytes the share counts."""
        codec, parameters = request_codec(self.exchange.text(b"content-type"))
        state = self.state
        limit = codec.max_bytes(state.settings)
        content = await read_body(self.exchange, limit=limit, share=share, advice=_ADVICE)
        body = RowsBody(content, codec.format, parameters, self.shape, state.settings, state.blobs)
        return await codec.read(body, state.parsers)

    def check_results(self, function: RowFunction, rows: int) -> None:
        """Refuse results of too many bytes, in the format of the response.

        Raises:
            Problem: `limit-rows`.
        """
        row_bytes = _VALUE_BYTES * function.width
        if self.codec.text:  # which may repeat the names in each row
            row_bytes = _NUMBER_BYTES * function.width + sum(map(len, function.columns))
        most = most_bytes(self.state.settings)
        if rows * row_bytes > most:
            raise Problem("limit-rows", f"The response may have more than {most} bytes.{_ADVICE}")

    async def compute(self, function: RowFunction, flow: CompiledFlow, rows: Floats) -> Floats:
        """Compute a function of some rows.

        Args:
            rows: Rows of the model's columns.

        Returns:
            An array of shape (rows, columns of the function).

        Raises:
            OverloadedError: The engine has too much to do.
            ClientDisconnect: The caller has left.
        """
        values = np.empty((len(rows), function.width))
        terms = Terms.of(flow, passes=function.passes, least_rows=function.least_rows)
        state = self.state
        work = state.engine.apply(
            partial(function.compute, flow),
            rows,
            values,
            # Not by the flow's identity, which another one may get once this one was evicted.
            key=(self.version.checkpoint_key, function.name, self.space),
            terms=terms,
            max_wait_s=self.max_wait_s,
        )
        if len(rows) > terms.first_rows:  # to watch whether the caller leaves takes time
            work = unless_disconnected(self.exchange.receive, work)
        if TRACES.on:
            with TRACES.span("engine", attributes={"densityd.rows": len(rows)}):
                await work
        else:
            await work
        if function.differences is not None:
            state.monitor.watch(self.version, rows, values, differences=function.differences)
        return values

    def _response(
        self,
        function: RowFunction,
        rows: Floats,
        values: Floats,
        warnings: Sequence[TableWarning],
    ) -> Answer:
        """Return the response: its head and the rows."""
        types, ref = self.types, self.version.ref
        members = {"model": ref, **function.members}
        headers = [(b"x-model", ref.encode()), *ROWS_VARY]
        if warnings:
            about_body = body_warnings(warnings)
            members["body_warnings"] = about_body
            headers += warning_headers(about_body)
        table = ResponseTable(
            columns=function.columns,
            parts=function.parts,
            rows=len(rows),
            dtype=_DOUBLE,
            members=members,
            inputs=() if types is None else [column.name for column in types.columns],
            warnings=None if types is None else RowWarnings(types, rows),
        )
        if table.warnings is not None:
            headers.append((ROW_WARNINGS_HEADER, table.warnings.header.encode()))
        chunk = Chunk.of(values, rows, types=types, checked=function.checked)
        return self.codec.answer(table, chunk, headers=headers)


def most_bytes(settings: ApiSettings) -> int:
    """Return the most bytes of rows in memory, and of a response."""
    return UNPACKED * settings.max_body_bytes


def shape_of(
    state: AppState,
    version: Version,
    columns: Sequence[str],
    *,
    types: ModelTypes | None,
    extra: Extra | None = None,
) -> RowsShape:
    """Return the shape of rows of some columns of a model.

    Args:
        types: Types of the columns; None: they are plain numbers.
        extra: Wish to ignore or to refuse other columns; None: as the model is.
    """
    is_part = types is not None or state.models.leaves_out(version)
    extra = extra or ("ignore" if is_part else "error")
    fitting = most_bytes(state.settings) // (_VALUE_BYTES * max(1, len(columns)))
    most = min(state.settings.max_score_rows, fitting)
    return RowsShape(columns, most, types=types, ignores_extra=extra == "ignore")


def _check_space(types: ModelTypes) -> None:
    """Refuse rows as the flow sees them where it sees other columns than a row has."""
    if any(column.levels or column.missing or column.spikes for column in types.columns):
        error = FieldError(
            "The columns of this model have levels, missing values or spikes: leave `space` out.",
            parameter="space",
        )
        raise Problem("validation", errors=[error])


def max_wait_s(exchange: Exchange) -> float | None:
    """Return the seconds that a caller will wait; None if the request does not say.

    Raises:
        Problem: It says no number of seconds.
    """
    text = exchange.head.get(_TIMEOUT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        error = FieldError("It must be a number of seconds above 0.", parameter=TIMEOUT_HEADER)
        raise Problem("validation", errors=[error])
    return seconds
