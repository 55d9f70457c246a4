"""A request for numbers of rows: its model, the shape of its rows, and what to compute of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from starlette.requests import Request

from app.auth.callers import project_of
from app.engine.engine import Terms
from app.http.accept import listed
from app.http.streaming import unless_disconnected
from app.problems.problem import FieldError, Problem
from app.rows.body_warnings import BodyWarning
from app.rows.codecs import Codec, response_codec
from app.rows.model_types import ModelTypes, RowWarnings, types_of
from app.rows.response_table import Chunk, Part, ResponseTable
from app.rows.shape import Floats, RowsShape
from app.state import AppState, state_of
from flows import CompiledFlow, turn_rows
from models_store.process.traces import TRACES
from models_store.records import Version

Space = Literal["data", "model"]
Extra = Literal["ignore", "error"]
Compute = Callable[[CompiledFlow, Floats], tuple[Floats, ...]]


TIMEOUT_HEADER = "X-Request-Timeout"
_UNWATCHED_ROWS = (
    256  # of one pass of a quick flow: to watch whether the caller leaves takes longer
)


@dataclass(frozen=True)
class RowFunction:
    """Function of rows that a route computes, and the names of its results.

    Args:
        name: Name of the function; those with equal names give a row the same numbers.
        compute: Callable from a flow and rows of shape (n, columns) to arrays of n entries or rows.
        columns: Names of the numbers that a row becomes.
        parts: Members of the JSON response that hold them.
        checked: Number of them that must be finite, the first ones; None: all.
        passes: Rows that the flow computes for each row.
        members: Further members of the JSON response.
        conditionals: True for one that needs the densities of single columns.
    """

    name: str
    compute: Compute
    columns: Sequence[str]
    parts: Sequence[Part]
    checked: int | None = None
    passes: int = 1
    members: Mapping[str, Any] = field(default_factory=dict)
    conditionals: bool = False

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
        given: True for rows of the context alone.
    """

    request: Request
    version: Version
    space: Space
    codec: Codec
    max_wait_s: float | None = None
    extra: Extra | None = None
    types: ModelTypes | None = None
    given: bool = False

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
            request: HTTP request.
            ref: Reference to a version.
            space: Space of the rows.
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
        if not self.given:
            columns = [*self.version.columns, *columns]
        partial = self.types is not None or self.state.models.leaves_out(self.version)
        extra = self.extra or ("ignore" if partial else "error")
        return RowsShape(
            columns,
            self.state.settings.max_score_rows,
            types=self.types,
            ignores_extra=extra == "ignore",
        )

    def chunk(self, function: RowFunction, values: Floats, rows: Floats) -> Chunk:
        """Return the values of some rows, with the reasons of those that have none."""
        return Chunk.of(values, rows, types=self.types, checked=function.checked)

    def flow(
        self, function: RowFunction | None = None
    ) -> AbstractAsyncContextManager[CompiledFlow]:
        """Hold the model in memory as long as the context lasts, with what a function needs of it."""
        needs = function is not None and function.conditionals
        return self.state.models.use(self.version, conditionals=needs)

    async def compute(self, function: RowFunction, flow: CompiledFlow, rows: Floats) -> Floats:
        """Compute a function of some rows.

        Args:
            function: Function to compute.
            flow: Loaded model.
            rows: Rows of the model's columns.

        Returns:
            An array of shape (rows, columns of the function).

        Raises:
            OverloadedError: The engine has too much to do.
            ClientDisconnect: The caller has left.
        """
        values = np.empty((len(rows), function.width))
        terms = Terms.of(flow, passes=function.passes, max_wait_s=self.max_wait_s)
        # Not by the flow's identity, which another one may get once this one was evicted.
        key = self.version.checkpoint_key, function.name, self.space
        compute = partial(function.compute, flow)
        work = self.state.engine.apply(compute, rows, values, key=key, terms=terms)
        with TRACES.span("engine", attributes={"densityd.rows": len(rows)}):
            if _takes_long(function, flow, len(rows)):
                await unless_disconnected(self.request, work)
            else:
                await work
        return values

    def table(
        self,
        function: RowFunction,
        rows: int,
        warnings: RowWarnings | None = None,
        *,
        body: Sequence[BodyWarning] = (),
    ) -> ResponseTable:
        """Return the head of the response.

        Args:
            function: Function of the rows.
            rows: Number of rows.
            warnings: Warnings about single rows.
            body: Warnings about the body that the rows came in.
        """
        about_body = {"body_warnings": body} if body else {}
        return ResponseTable(
            columns=function.columns,
            parts=function.parts,
            rows=rows,
            dtype=np.dtype(np.float64),
            members={"model": self.version.ref, **function.members, **about_body},
            flat=function.width == 1,
            inputs=() if self.types is None else [column.name for column in self.types.columns],
            warnings=warnings,
        )


def _takes_long(function: RowFunction, flow: CompiledFlow, rows: int) -> bool:
    """Return whether a function of some rows may take longer than to watch whether the caller leaves."""
    most = turn_rows(_UNWATCHED_ROWS, max(flow.operations))
    return rows * function.passes > most


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
