"""A request for numbers of rows: its model, the shape of its rows, and the way to its response."""

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.auth.callers import project_of
from app.engine.engine import Terms
from app.http.accept import listed
from app.http.json_body import read_body
from app.http.streaming import unless_disconnected
from app.limits import Share, body_share, in_thread
from app.problems.problem import FieldError, Problem
from app.rows.codecs import Codec, request_codec, response_codec
from app.rows.decode import (
    UNPACKED,
    BodyWarning,
    Decoded,
    RowsBody,
    body_warnings,
    warning_headers,
)
from app.rows.encode import Chunk, ResponseTable
from app.rows.model_types import ModelTypes, RowWarnings, types_of
from app.rows.shape import Floats, RowsShape
from app.scoring.functions import RowFunction, Space
from app.state import AppState, state_of
from flows import CompiledFlow
from models_store.process.traces import TRACES
from models_store.records import Version

Extra = Literal["ignore", "error"]
TIMEOUT_HEADER = "X-Request-Timeout"
ROW_WARNINGS_HEADER = "X-Row-Warnings"
_QUICK_VALUES = 4096
_VALUE_BYTES = 8
_NUMBER_BYTES = 24  # most of a number as text
_ADVICE = " Split it, or upload the rows as a dataset and start a scoring job."


@dataclass(frozen=True)
class ScoreRequest:
    """Request to a model, without its body.

    Args:
        version: Version that the request's reference stands for.
        space: Space of the rows: the data's own units, or the flow's after preprocessing.
        max_wait_s: Seconds that the caller will wait for the work to begin; None: the engine's own
            limit.
        extra: Wish to ignore or to refuse columns that the model does not have; None: as the model is.
        types: Types of the columns of the rows; None: they are plain numbers.
        given: True for rows of the context alone.
        subset: Columns of the model that the rows have; None: all of them.
    """

    request: Request
    version: Version
    space: Space
    codec: Codec
    max_wait_s: float | None = None
    extra: Extra | None = None
    types: ModelTypes | None = None
    given: bool = False
    subset: tuple[str, ...] | None = None

    @classmethod
    async def of(
        cls,
        request: Request,
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
            extra: Wish to ignore or to refuse columns that the model does not have.
            noise: True for rows of noise, which are plain numbers whatever the columns hold.
            given: True for rows of the context alone, which are plain numbers, too.

        Raises:
            Problem: `not-acceptable`, a time-out that is no number of seconds, or a space that the
                rows of the model do not have.
            NotFoundError: There is no such model.
        """
        codec = response_codec(listed(request.headers, "accept"))
        version = await state_of(request).models.resolve(project_of(request), ref)
        types = types_of(version)
        if space == "model" and types is not None:
            _check_space(types)
        if noise:
            types, extra = None, "error"
        types = None if given else types
        return cls(request, version, space, codec, _max_wait_s(request), extra, types, given)

    @cached_property
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
        columns = [*self.version.context_columns]
        if self.subset is not None:
            columns = [*self.subset]
        elif not self.given:
            columns = [*self.version.columns, *columns]
        partial = self.types is not None or self.state.models.leaves_out(self.version)
        extra = self.extra or ("ignore" if partial else "error")
        fitting = self._most_bytes // (_VALUE_BYTES * max(1, len(columns)))
        return RowsShape(
            columns,
            min(self.state.settings.max_score_rows, fitting),
            types=self.types,
            ignores_extra=extra == "ignore",
        )

    @property
    def _most_bytes(self) -> int:
        """Most bytes of rows in memory, and of a response."""
        return UNPACKED * self.state.settings.max_body_bytes

    def flow(
        self, function: RowFunction | None = None
    ) -> AbstractAsyncContextManager[CompiledFlow]:
        """Hold the model in memory as long as the context lasts, with what a function needs of it."""
        needs = function is not None and function.conditionals
        return self.state.models.use(self.version, conditionals=needs)

    async def respond(self, function: RowFunction) -> Response:
        """Respond with what a function makes of each row of the body.

        Raises:
            Problem: The rows are not valid.
            OverloadedError: The engine has too much to do.
            StoreError: The model cannot be loaded.
            ClientDisconnect: The caller has left.
        """
        with body_share(self.request) as share:
            rows, found = await self.read(share)
            self.check_results(function, len(rows))
            async with self.flow(function) as flow:
                values = await self.compute(function, flow, rows)
            about_body = body_warnings(found)
            made = partial(self._response, function, rows, values, about_body)
            table, chunk = made() if rows.size <= _QUICK_VALUES else await in_thread(made)
            headers = {**self.headers, **warning_headers(about_body)}
            if table.warnings is not None:
                headers[ROW_WARNINGS_HEADER] = table.warnings.header
            return await self.codec.respond(table, chunk, headers=headers)

    async def read(self, share: Share) -> Decoded:
        """Return the rows of the body, whose bytes the share counts."""
        codec, parameters = request_codec(self.request.headers.get("content-type"))
        state = self.state
        limit = codec.max_bytes(state.settings)
        content = await read_body(self.request, limit=limit, share=share, advice=_ADVICE)
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
        most = self._most_bytes
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
        terms = Terms.of(
            flow,
            passes=function.passes,
            max_wait_s=self.max_wait_s,
            least_rows=function.least_rows,
        )
        # Not by the flow's identity, which another one may get once this one was evicted.
        key = self.version.checkpoint_key, function.name, self.space
        compute = partial(function.compute, flow)
        work = self.state.engine.apply(compute, rows, values, key=key, terms=terms)
        with TRACES.span("engine", attributes={"densityd.rows": len(rows)}):
            if len(rows) > terms.first_rows:
                await unless_disconnected(self.request, work)
            else:  # to watch whether the caller leaves takes longer
                await work
        if function.differences is not None:
            self.state.monitor.watch(self.version, rows, values, differences=function.differences)
        return values

    def _response(
        self,
        function: RowFunction,
        rows: Floats,
        values: Floats,
        about_body: Sequence[BodyWarning],
    ) -> tuple[ResponseTable, Chunk]:
        """Return the head and the rows of the response."""
        types = self.types
        members = {"model": self.version.ref, **function.members}
        if about_body:
            members["body_warnings"] = about_body
        table = ResponseTable(
            columns=function.columns,
            parts=function.parts,
            rows=len(rows),
            dtype=np.dtype(np.float64),
            members=members,
            inputs=() if types is None else [column.name for column in types.columns],
            warnings=None if types is None else RowWarnings(types, rows),
        )
        return table, Chunk.of(values, rows, types=types, checked=function.checked)


def _check_space(types: ModelTypes) -> None:
    """Refuse rows as the flow sees them where it sees other columns than a row has."""
    if any(column.levels or column.missing or column.spikes for column in types.columns):
        error = FieldError(
            "The columns of this model have levels, missing values or spikes: leave `space` out.",
            parameter="space",
        )
        raise Problem("validation", errors=[error])


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
        raise Problem("validation", errors=[error])
    return seconds
